//! Neighborhood attention of pixels over the cells around them.

use loftup_spec::naf::{CHANNELS, HEAD_WIDTH, HEADS, TAPS, WIDTH};

use super::{
    Workspace,
    encoded::{EncodedImage, Encodings},
    frame::{Area, Patch},
    values::Values,
};
use crate::{
    KernelError,
    gemm::{Epilogue, PackedA, gemm, nr},
    simd::SupportedIsa,
    tokens::{from_panel, scale_columns, to_panel, unnormalized_softmax},
};

/// Maximum number of pixels per block: as many as a cell of 16x16 pixels, so that their scores stay
/// in the L2 cache.
const BLOCK: usize = 256;

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
        self.frame.check_area(area)?;
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
        self.frame.naf.with_workspace(|workspace| {
            let Workspace { pixels, attention } = workspace;
            attention.prepare(self.frame.naf.isa, values);
            match &self.encodings {
                Encodings::Whole { encodings, keys } => {
                    let patches = encodings.each_ref().map(|data| Patch {
                        area: self.frame.image.whole(),
                        data,
                    });
                    let key = |cell: usize| &keys[cell * CHANNELS..][..CHANNELS];
                    self.runs(area, patches, &key, values, attention, (area, out));
                }
                Encodings::Blocks(blocks) => {
                    blocks.need_keys(&self.frame, area, pixels);
                    for part in blocks.parts(area) {
                        let encodings = blocks.encodings(&self.frame, part.block, pixels);
                        let key = |cell| blocks.key(cell);
                        let to = (area, &mut *out);
                        self.runs(part.area, encodings.patches(), &key, values, attention, to);
                    }
                }
            }
        });
        Ok(())
    }

    /// Computes attention for the pixels of `part`, a part of `area`.
    fn runs<'k>(
        &self,
        part: Area,
        patches: [Patch<'_>; 2],
        key: &dyn Fn(usize) -> &'k [f32],
        values: &Values,
        attention: &mut Attention,
        (area, out): (Area, &mut [f32]),
    ) {
        for rows in self.frame.rows.runs(part.y, part.height) {
            for columns in self.frame.columns.runs(part.x, part.width) {
                let block = Area {
                    x: columns.0,
                    y: rows.0,
                    width: columns.1,
                    height: rows.1,
                };
                self.block(block, patches, key, values, attention, (area, &mut *out));
            }
        }
    }

    /// Computes attention for pixels that attend to the same cells.
    fn block<'k>(
        &self,
        block: Area,
        patches: [Patch<'_>; 2],
        key: &dyn Fn(usize) -> &'k [f32],
        values: &Values,
        attention: &mut Attention,
        (area, out): (Area, &mut [f32]),
    ) {
        let cells: [usize; TAPS] = {
            let (rows, columns) = (
                self.frame.rows.windows[block.y],
                self.frame.columns.windows[block.x],
            );
            let (across, side) = (self.frame.columns.cells, columns.len());
            std::array::from_fn(|t| rows[t / side] * across + columns[t % side])
        };
        attention.fill(&cells, &cells.map(key), values);
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
            attention.run(self.frame.naf.isa, count, values);
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
    fn fill(&mut self, cells: &[usize; TAPS], keys: &[&[f32]; TAPS], values: &Values) {
        for (head, packed) in self.keys.iter_mut().enumerate() {
            packed.fill(|t, k| keys[t][head * HEAD_WIDTH + k]);
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
