//! Neighborhood attention of pixels over the cells around them.

use loftup_spec::naf::{CHANNELS, HEAD_WIDTH, HEADS, TAPS, WIDTH};

use super::frame::{Area, EncodedImage, Patch};
use crate::{
    KernelError,
    gemm::{Epilogue, GemmPackedB, PackedA, gemm, nr},
    simd::SupportedIsa,
    tokens::{from_panel, scale_columns, to_panel, unnormalized_softmax},
};

/// Maximum number of pixels per block: as many as a cell of 16x16 pixels, so that their scores stay
/// in the L2 cache.
const BLOCK: usize = 256;

/// The values that pixels attend to: features, or the outputs of a linear layer on them.
///
/// Each head attends to a quarter of the channels. So a linear layer on the output equals the sum over
/// the heads of attention to the values of a linear layer on their quarter. With `k` outputs, these are
/// `4 k` values per cell instead of all channels, and no features of pixels are computed.
#[derive(Debug, Clone)]
pub struct Values {
    /// `[cells, HEADS, width]`.
    data: Vec<f32>,
    /// Number of values per head.
    width: usize,
    /// If present, the heads are summed and this bias is added; otherwise they are concatenated.
    bias: Option<Vec<f32>>,
}

impl Values {
    /// Uses features `[cells, dim]` directly.
    ///
    /// # Errors
    /// If `dim` is not a multiple of the number of heads.
    pub fn features(features: Vec<f32>, dim: usize) -> Result<Self, KernelError> {
        let width = check_features(&features, dim)?;
        Ok(Self {
            data: features,
            width,
            bias: None,
        })
    }

    /// `features weight^T + bias` of features `[cells, dim]`, with `weight` `[k, dim]` and `bias`
    /// `[k]`.
    ///
    /// # Errors
    /// If `dim` is not a multiple of the number of heads, or the weights have the wrong size.
    pub fn linear(
        isa: crate::Isa,
        (features, dim): (&[f32], usize),
        weight: &[f32],
        bias: &[f32],
    ) -> Result<Self, KernelError> {
        let isa = isa.supported().ok_or(KernelError::Isa(isa))?;
        let depth = check_features(features, dim)?;
        let outputs = bias.len();
        if weight.len() != outputs * dim || outputs == 0 {
            return Err(KernelError::Weight {
                what: "the linear layer".into(),
                expected: outputs.max(1) * dim,
                found: weight.len(),
            });
        }
        let (cells, columns) = (features.len() / dim, nr(isa));
        let padded = outputs.next_multiple_of(columns);
        let mut data = vec![0.0; cells * HEADS * outputs];
        let mut product = vec![0.0; cells * padded];
        for head in 0..HEADS {
            let mut b = vec![0.0; depth * padded];
            for (o, row) in weight.chunks_exact(dim).enumerate() {
                for (k, w) in row[head * depth..][..depth].iter().enumerate() {
                    b[(o / columns * depth + k) * columns + o % columns] = *w;
                }
            }
            let gemm = GemmPackedB {
                rows: cells,
                depth,
                cols: padded,
                a: &features[head * depth..],
                a_stride: dim,
                b: &b,
                c: &mut product,
                c_stride: padded,
                scales: None,
            };
            gemm.run(isa);
            for (to, from) in data
                .chunks_exact_mut(HEADS * outputs)
                .zip(product.chunks(padded))
            {
                to[head * outputs..][..outputs].copy_from_slice(&from[..outputs]);
            }
        }
        Ok(Self {
            data,
            width: outputs,
            bias: Some(bias.to_vec()),
        })
    }

    /// `[cells, HEADS, width]`.
    pub fn data(&self) -> &[f32] {
        &self.data
    }

    /// Number of values per cell and attention head.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The bias of a linear layer, whose values are summed over the heads; `None` for features.
    pub fn bias(&self) -> Option<&[f32]> {
        self.bias.as_deref()
    }

    /// Number of output channels per pixel.
    pub fn outputs(&self) -> usize {
        match self.bias {
            Some(_) => self.width,
            None => HEADS * self.width,
        }
    }

    fn cells(&self) -> usize {
        self.data.len() / (HEADS * self.width)
    }
}

/// Returns the number of channels per head.
fn check_features(features: &[f32], dim: usize) -> Result<usize, KernelError> {
    if dim == 0 || !dim.is_multiple_of(HEADS) {
        return Err(KernelError::Channels(dim));
    }
    if features.is_empty() || !features.len().is_multiple_of(dim) {
        return Err(KernelError::Size {
            what: "features",
            expected: features.len().next_multiple_of(dim).max(dim),
            found: features.len(),
        });
    }
    Ok(dim / HEADS)
}

/// The buffers of attention.
#[derive(Debug, Default)]
pub(super) struct Attention {
    /// The keys of the window, by head.
    keys: Vec<PackedA>,
    /// The values of the window: one matrix per head, or a single one if heads are summed.
    values: Vec<PackedA>,
    /// Queries `[pixels, 256]`, and in panels `[panels][256][NR]`.
    queries: Vec<f32>,
    panels: Vec<f32>,
    /// `[panels][HEADS][TAPS][NR]`.
    scores: Vec<f32>,
    inverse: Vec<f32>,
    /// `[panels][outputs][NR]`, and `[pixels, outputs]`.
    attended: Vec<f32>,
    pixels: Vec<f32>,
    /// Scale of the identity map of the outputs.
    ones: Vec<f32>,
    zeros: Vec<f32>,
}

impl EncodedImage {
    /// Computes the output for the pixels of `area`, `[height, width, outputs]`.
    ///
    /// # Errors
    /// If the area is not in the image, or `values` or `out` has the wrong size.
    pub fn attend(&self, values: &Values, area: Area, out: &mut [f32]) -> Result<(), KernelError> {
        self.check_area(area)?;
        let (down, across) = self.grid();
        let sizes = [
            ("values", down * across, values.cells()),
            ("output", area.pixels() * values.outputs(), out.len()),
        ];
        for (what, expected, found) in sizes {
            if expected != found {
                return Err(KernelError::Size {
                    what,
                    expected,
                    found,
                });
            }
        }
        self.naf.with_workspace(|workspace| {
            let patches = self.patches(area, &mut workspace.pixels);
            let attention = &mut workspace.attention;
            attention.prepare(self.naf.isa, values);
            for rows in self.rows.runs(area.y, area.height) {
                for columns in self.columns.runs(area.x, area.width) {
                    let block = Area {
                        x: columns.0,
                        y: rows.0,
                        width: columns.1,
                        height: rows.1,
                    };
                    self.block(block, patches, values, attention, (area, &mut *out));
                }
            }
        });
        Ok(())
    }

    /// Computes attention for pixels that attend to the same cells.
    fn block(
        &self,
        block: Area,
        patches: [Patch<'_>; 2],
        values: &Values,
        attention: &mut Attention,
        (area, out): (Area, &mut [f32]),
    ) {
        let cells: [usize; TAPS] = {
            let (rows, columns) = (self.rows.windows[block.y], self.columns.windows[block.x]);
            let (across, side) = (self.columns.cells, columns.len());
            std::array::from_fn(|t| rows[t / side] * across + columns[t % side])
        };
        attention.fill(&cells, &self.keys, values);
        let outputs = values.outputs();
        for pixels in (0..block.pixels()).step_by(BLOCK) {
            let count = BLOCK.min(block.pixels() - pixels);
            let places = (pixels..pixels + count)
                .map(|p| (block.y + p / block.width, block.x + p % block.width));
            attention.queries.resize(count * CHANNELS, 0.0);
            let queries = attention.queries.chunks_exact_mut(CHANNELS);
            for (query, (y, x)) in queries.zip(places.clone()) {
                for (to, patch) in query.chunks_exact_mut(WIDTH).zip(patches) {
                    to.copy_from_slice(patch.row(y, x, 1));
                }
            }
            attention.run(self.naf.isa, count, values);
            let found = attention.pixels.chunks_exact(outputs);
            for (from, (y, x)) in found.zip(places) {
                out[area.at(y, x) * outputs..][..outputs].copy_from_slice(from);
            }
        }
    }
}

impl Attention {
    /// Resizes the buffers.
    fn prepare(&mut self, isa: SupportedIsa, values: &Values) {
        let (count, depth) = match values.bias {
            Some(_) => (1, HEADS * TAPS),
            None => (HEADS, TAPS),
        };
        let fits = |m: &PackedA| m.rows() == values.width && m.depth() == depth;
        if self.values.len() != count || !self.values.iter().all(fits) {
            let new = || PackedA::new(isa, values.width, depth, |_, _| 0.0);
            self.values = (0..count).map(|_| new()).collect();
        }
        if self.keys.is_empty() {
            let new = || PackedA::new(isa, TAPS, HEAD_WIDTH, |_, _| 0.0);
            self.keys = (0..HEADS).map(|_| new()).collect();
        }
        self.inverse.resize(nr(isa), 0.0);
        self.ones.resize(values.outputs(), 1.0);
        self.zeros.resize(values.outputs(), 0.0);
    }

    /// Packs the keys and values of a window.
    fn fill(&mut self, cells: &[usize; TAPS], keys: &[f32], values: &Values) {
        for (head, packed) in self.keys.iter_mut().enumerate() {
            packed.fill(|t, k| keys[cells[t] * CHANNELS + head * HEAD_WIDTH + k]);
        }
        let width = values.width;
        for (first, packed) in self.values.iter_mut().enumerate() {
            packed.fill(|o, t| {
                let (head, tap) = (first + t / TAPS, t % TAPS);
                values.data[(cells[tap] * HEADS + head) * width + o]
            });
        }
    }

    /// Computes attention for `count` queries and writes it to `pixels` `[count, outputs]`.
    fn run(&mut self, isa: SupportedIsa, count: usize, values: &Values) {
        let columns = nr(isa);
        let panels = count.div_ceil(columns);
        let outputs = values.outputs();
        let (query_step, score_step) = (CHANNELS * columns, HEADS * TAPS * columns);
        let out_step = outputs * columns;
        self.panels.resize(panels * query_step, 0.0);
        self.scores.resize(panels * score_step, 0.0);
        self.attended.resize(panels * out_step, 0.0);
        self.pixels.resize(count * outputs, 0.0);
        let queries = self.queries.chunks(columns * CHANNELS);
        for (panel, rows) in self.panels.chunks_exact_mut(query_step).zip(queries) {
            to_panel(rows, rows.len() / CHANNELS, CHANNELS, columns, panel);
        }
        for (head, keys) in self.keys.iter().enumerate() {
            let queries = &self.panels[head * HEAD_WIDTH * columns..];
            let scores = &mut self.scores[head * TAPS * columns..];
            gemm(
                keys,
                queries,
                query_step,
                scores,
                score_step,
                panels,
                Epilogue::Store,
            );
        }
        for scores in self.scores.chunks_exact_mut(TAPS * columns) {
            unnormalized_softmax(isa, scores, &mut self.inverse);
            scale_columns(isa, scores, &self.inverse);
        }
        let step = values.width * columns;
        for (head, packed) in self.values.iter().enumerate() {
            let scores = &self.scores[head * TAPS * columns..];
            let out = &mut self.attended[head * step..];
            let epilogue = match &values.bias {
                Some(bias) => Epilogue::Bias(bias),
                None => Epilogue::Store,
            };
            gemm(packed, scores, score_step, out, out_step, panels, epilogue);
        }
        let panels = self.attended.chunks_exact(out_step);
        for (panel, to) in panels.zip(self.pixels.chunks_mut(columns * outputs)) {
            let (ones, zeros) = (&self.ones, &self.zeros);
            from_panel(panel, to.len() / outputs, columns, ones, zeros, to);
        }
    }
}
