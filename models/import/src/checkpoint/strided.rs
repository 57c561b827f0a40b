//! Strided tensors in a storage, and how they are copied out of it.

use std::ops::Range;

use super::dtype::{ByteOrder, Dtype};

/// The layout of a tensor in its storage, in elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    pub offset: usize,
    pub shape: Vec<usize>,
    /// Stride of each axis; as many as `shape` has.
    pub stride: Vec<usize>,
}

impl Layout {
    /// Number of elements; `None` on overflow.
    pub fn numel(&self) -> Option<usize> {
        if self.shape.contains(&0) {
            return Some(0);
        }
        self.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))
    }

    /// One more than the largest storage index used.
    fn end(&self) -> Option<usize> {
        let last = self
            .shape
            .iter()
            .zip(&self.stride)
            .try_fold(self.offset, |at, (&d, &s)| {
                at.checked_add(d.checked_sub(1)?.checked_mul(s)?)
            })?;
        last.checked_add(1)
    }

    /// Whether the elements are contiguous in row-major order.
    fn is_contiguous(&self) -> bool {
        let mut expected = 1;
        self.shape.iter().zip(&self.stride).rev().all(|(&d, &s)| {
            // The stride of an axis of length 1 is never used.
            let fits = d == 1 || s == expected;
            expected *= d;
            fits
        })
    }

    /// The range of elements that the tensor spans in a storage of `held` elements.
    ///
    /// A tensor must not have more elements than its storage (as created by `expand`), so that
    /// memory use is bounded by the file size.
    ///
    /// # Errors
    /// The tensor exceeds its storage.
    pub fn window(&self, held: usize) -> Result<Range<usize>, String> {
        let numel = self.numel().ok_or("its size overflows")?;
        if numel == 0 {
            return Ok(0..0);
        }
        if numel > held {
            return Err(format!(
                "it has {numel} elements, but its storage has only {held}"
            ));
        }
        let end = self.end().ok_or("its strides overflow")?;
        if end > held {
            return Err(format!("it ends at element {end} of a storage with {held}"));
        }
        Ok(self.offset..end)
    }

    /// The elements in row-major order, from the bytes of its [`window`](Self::window).
    pub fn gather(&self, window: &[u8], dtype: Dtype, order: ByteOrder) -> Vec<f32> {
        let window = dtype.decode(window, order);
        match self.numel() {
            // Converted first, then permuted, so that each element needs only one lookup.
            Some(numel) if numel > 0 && !self.is_contiguous() => self.permute(&window, numel),
            _ => window,
        }
    }

    /// Iterates over all index tuples in row-major order; `window` starts at the first element.
    fn permute(&self, window: &[f32], numel: usize) -> Vec<f32> {
        let mut out = Vec::with_capacity(numel);
        let mut index = vec![0; self.shape.len()];
        let mut at = 0;
        while out.len() < numel {
            out.push(window[at]);
            for axis in (0..index.len()).rev() {
                index[axis] += 1;
                at += self.stride[axis];
                if index[axis] < self.shape[axis] {
                    break;
                }
                at -= self.stride[axis] * self.shape[axis];
                index[axis] = 0;
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(offset: usize, shape: &[usize], stride: &[usize]) -> Layout {
        Layout {
            offset,
            shape: shape.into(),
            stride: stride.into(),
        }
    }

    fn ramp(n: usize) -> Vec<u8> {
        (0..n).flat_map(|i| (i as f32).to_le_bytes()).collect()
    }

    fn gather(l: &Layout, n: usize) -> Result<Vec<f32>, String> {
        let window = l.window(n)?;
        let bytes = &ramp(n)[4 * window.start..4 * window.end];
        Ok(l.gather(bytes, Dtype::F32, ByteOrder::Little))
    }

    /// The definition: element (i, j, ...) is at offset + i s0 + j s1 + ...
    fn reference(l: &Layout) -> Vec<f32> {
        let numel: usize = l.shape.iter().product();
        let position = |flat: usize| {
            let mut rest = flat;
            let mut at = l.offset;
            for axis in (0..l.shape.len()).rev() {
                at += rest % l.shape[axis] * l.stride[axis];
                rest /= l.shape[axis];
            }
            at as f32
        };
        (0..numel).map(position).collect()
    }

    #[test]
    fn every_layout_matches_the_definition() {
        for l in [
            layout(0, &[], &[]),
            layout(5, &[], &[]),
            layout(0, &[24], &[1]),
            layout(3, &[2, 3], &[3, 1]),
            layout(0, &[4, 6], &[1, 4]),
            layout(0, &[2, 3, 4], &[1, 8, 2]),
            layout(0, &[1, 5], &[77, 1]),
            layout(2, &[3, 1, 2], &[4, 900, 2]),
            layout(0, &[4, 3], &[0, 1]),
            layout(23, &[1, 1], &[1, 1]),
        ] {
            assert_eq!(gather(&l, 24).as_deref(), Ok(&reference(&l)[..]), "{l:?}");
        }
    }

    #[test]
    fn a_tensor_that_leaves_its_storage_is_an_error() {
        for l in [
            layout(24, &[], &[]),
            layout(1, &[24], &[1]),
            layout(0, &[4, 6], &[6, 2]),
            layout(0, &[25], &[0]),
            layout(usize::MAX, &[1], &[1]),
            layout(0, &[2], &[usize::MAX]),
            layout(0, &[3, 2], &[usize::MAX / 2, 4]),
            layout(0, &[usize::MAX, usize::MAX], &[0, 0]),
            layout(0, &[1 << 32, 1 << 32], &[1, 1]),
        ] {
            let message = gather(&l, 24).unwrap_err();
            println!("{message}");
        }
    }

    #[test]
    fn an_empty_tensor_needs_no_storage() {
        assert_eq!(
            gather(&layout(9, &[3, 0, usize::MAX], &[1, 1, 1]), 0),
            Ok(vec![])
        );
    }
}
