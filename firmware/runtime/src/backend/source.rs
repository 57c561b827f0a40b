//! A graph to compile.

use loftup_bundle::Precision;

/// A graph to compile: serialised ONNX, and what its inputs are.
#[derive(Debug, Clone, Copy)]
pub struct GraphSource<'a> {
    /// What messages call it.
    pub name: &'a str,
    /// The ONNX file.
    pub onnx: &'a [u8],
    /// Precision of its arithmetic.
    pub precision: Precision,
    /// Inputs in the order in which sessions will number them, with their shapes.
    pub inputs: &'a [(&'a str, &'a [usize])],
    /// Outputs in the order in which sessions will number them.
    pub outputs: &'a [&'a str],
    /// Shapes that the same graph will be asked for sooner or later. An engine that is slow to
    /// build builds once for all of them; others look at `inputs` alone.
    pub profiles: &'a [ShapeProfile],
}

impl<'a> GraphSource<'a> {
    /// A 32-bit graph for these shapes and no others.
    pub fn fixed(
        name: &'a str,
        onnx: &'a [u8],
        inputs: &'a [(&'a str, &'a [usize])],
        outputs: &'a [&'a str],
    ) -> Self {
        Self {
            name,
            onnx,
            precision: Precision::Fp32,
            inputs,
            outputs,
            profiles: &[],
        }
    }
}

/// Shapes that an engine is built for: a range for every input, in the order of
/// [`GraphSource::inputs`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShapeProfile {
    /// The ranges.
    pub inputs: Vec<ShapeBounds>,
}

impl ShapeProfile {
    /// Exactly these shapes.
    pub fn fixed(inputs: &[(&str, &[usize])]) -> Self {
        let inputs = inputs.iter().map(|(_, s)| ShapeBounds::fixed(s)).collect();
        Self { inputs }
    }

    /// Whether these shapes lie in it.
    pub fn contains(&self, inputs: &[(&str, &[usize])]) -> bool {
        self.inputs.len() == inputs.len()
            && self
                .inputs
                .iter()
                .zip(inputs)
                .all(|(bounds, (_, shape))| bounds.contains(shape))
    }
}

/// The smallest, usual and largest shape of one input, of equal rank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShapeBounds {
    /// Smallest shape that will be used.
    pub smallest: Vec<usize>,
    /// The shape to be fastest at.
    pub usual: Vec<usize>,
    /// Largest shape that will be used.
    pub largest: Vec<usize>,
}

impl ShapeBounds {
    /// Exactly this shape.
    pub fn fixed(shape: &[usize]) -> Self {
        Self {
            smallest: shape.to_vec(),
            usual: shape.to_vec(),
            largest: shape.to_vec(),
        }
    }

    fn contains(&self, shape: &[usize]) -> bool {
        let (low, high) = (&self.smallest, &self.largest);
        shape.len() == low.len()
            && shape.len() == high.len()
            && shape
                .iter()
                .zip(low.iter().zip(high))
                .all(|(n, (low, high))| low <= n && n <= high)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_contains_what_lies_between_its_ends() {
        let profile = ShapeProfile {
            inputs: vec![
                ShapeBounds {
                    smallest: vec![1, 3],
                    usual: vec![2, 3],
                    largest: vec![4, 3],
                },
                ShapeBounds::fixed(&[7]),
            ],
        };
        let holds = |a: &[usize], b: &[usize]| profile.contains(&[("a", a), ("b", b)]);
        assert!(holds(&[1, 3], &[7]) && holds(&[4, 3], &[7]));
        assert!(!holds(&[0, 3], &[7]) && !holds(&[5, 3], &[7]) && !holds(&[2, 2], &[7]));
        assert!(!holds(&[2, 3], &[8]) && !holds(&[2], &[7]) && !holds(&[2, 3, 1], &[7]));
        assert!(!profile.contains(&[("a", &[2, 3])]));
    }
}
