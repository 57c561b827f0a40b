//! Computes the encodings of a rectangle of pixels from the image, and their rotary encoding.

use loftup_spec::naf::{Branch, HEAD_WIDTH, LAYERS, PERIODS, WIDTH};

use super::{
    Naf,
    frame::{Area, Axis, Image, Patch, Rotation},
    layers::LayerBuffers,
    statistics::{Affine, Statistics},
};
use crate::simd::{Simd, SimdOp, SupportedIsa, dispatch};

/// Buffers of one thread.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    pub layers: LayerBuffers,
    /// The encodings of each branch.
    pub encodings: [Vec<f32>; 2],
    /// The input of a layer.
    input: Vec<f32>,
}

impl Buffers {
    /// Computes the inputs of layer `depth` of a branch for the pixels of `area`: the output of the first
    /// convolution and `depth` layers. The result is in [`Self::encodings`].
    pub fn compute(
        &mut self,
        naf: &Naf,
        branch: Branch,
        (image, area): (&Image, Area),
        norms: &[Affine],
        depth: usize,
    ) {
        let layers = &naf.branches[branch as usize];
        let Self {
            layers: buffers,
            encodings,
            input,
        } = self;
        let out = &mut encodings[branch as usize];
        let halo = |i: usize| match layers.is_spatial() {
            true => area.expanded(depth - i, image.size()),
            false => area,
        };
        out.resize(halo(0).pixels() * WIDTH, 0.0);
        layers.first(image, halo(0), buffers, out);
        for (i, norm) in norms.iter().enumerate().take(depth) {
            if !layers.is_spatial() {
                layers.pointwise(i, norm, buffers, out);
                continue;
            }
            std::mem::swap(input, out);
            let from = Patch {
                area: halo(i),
                data: input,
            };
            let to = halo(i + 1);
            out.resize(to.pixels() * WIDTH, 0.0);
            layers.spatial(i, norm, (from, to), image.size(), buffers, out);
        }
    }

    /// Computes rotated encodings of the pixels of `area` in both branches.
    pub fn encode(
        &mut self,
        naf: &Naf,
        (image, area): (&Image, Area),
        statistics: &Statistics,
        axes: (&Axis, &Axis),
    ) {
        for branch in Branch::ALL {
            let norms = statistics.of(branch);
            self.compute(naf, branch, (image, area), norms, LAYERS);
            rotate(naf.isa, axes, area, &mut self.encodings[branch as usize]);
        }
    }
}

/// Applies the rotary encoding of the position to encodings of one branch, `[height, width, 128]`.
pub(super) fn rotate(
    isa: SupportedIsa,
    (rows, columns): (&Axis, &Axis),
    area: Area,
    pixels: &mut [f32],
) {
    let mut pixels = pixels.as_chunks_mut::<WIDTH>().0.iter_mut();
    for y in area.y..area.y + area.height {
        let row = &rows.rotation[y];
        for (x, pixel) in (area.x..area.x + area.width).zip(&mut pixels) {
            let column = &columns.rotation[x];
            dispatch(isa, Rotate { row, column, pixel });
        }
    }
}

struct Rotate<'a> {
    row: &'a Rotation,
    column: &'a Rotation,
    pixel: &'a mut [f32; WIDTH],
}

impl SimdOp for Rotate<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self) {
        for head in self.pixel.as_chunks_mut::<HEAD_WIDTH>().0 {
            let (first, second) = head.split_at_mut(HEAD_WIDTH / 2);
            for (i, rotation) in [self.row, self.column].into_iter().enumerate() {
                for c in (0..PERIODS).step_by(S::LANES) {
                    let (cos, sin) = (S::load(&rotation.cos[c..]), S::load(&rotation.sin[c..]));
                    let at = i * PERIODS + c;
                    let (a, b) = (S::load(&first[at..]), S::load(&second[at..]));
                    S::store(&mut first[at..], S::sub(S::mul(a, cos), S::mul(b, sin)));
                    S::store(&mut second[at..], S::fma(a, sin, S::mul(b, cos)));
                }
            }
        }
    }
}
