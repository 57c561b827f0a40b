//! The tiles of a frame, by the graphs or the kernels.

use super::{NafFrame, area, graphs::GraphBuffers};
use crate::{Rect, RuntimeError, filter::FilterWorker, heads::Head};

/// Computes tiles of a frame in one thread.
pub(super) struct NafWorker<'a> {
    frame: &'a NafFrame,
    /// A text head, which is applied to upsampled features.
    words: Option<&'a Head>,
    tiles: Vec<Rect>,
    buffers: GraphBuffers,
    attended: Vec<f32>,
    output: Vec<f32>,
}

impl<'a> NafWorker<'a> {
    /// A worker that applies a text head, if any, to upsampled features.
    pub fn new(frame: &'a NafFrame, words: Option<&'a Head>) -> Self {
        Self {
            frame,
            words,
            tiles: Vec::new(),
            buffers: GraphBuffers::default(),
            attended: Vec::new(),
            output: Vec::new(),
        }
    }
}

impl NafWorker<'_> {
    /// Writes the outputs of the tiles to `attended` and returns the number of values.
    fn attend(&mut self) -> Result<usize, RuntimeError> {
        let NafFrame { image, values, .. } = self.frame;
        let graphs = self.frame.graphs.as_deref();
        if let Some((graphs, frame)) = graphs.filter(|(graphs, _)| graphs.usable()) {
            let inputs = (&image.data[..], &**values);
            let (buffers, out) = (&mut self.buffers, &mut self.attended);
            out.clear();
            graphs.run(frame, inputs, &self.tiles, buffers, out)?;
            return Ok(out.len());
        }
        let encoded = self.frame.on_kernels()?;
        let mut filled = 0;
        for rect in &self.tiles {
            let area = area(*rect);
            let end = filled + area.pixels() * values.outputs();
            if self.attended.len() < end {
                self.attended.resize(end, 0.0);
            }
            encoded.attend(values, area, &mut self.attended[filled..end])?;
            filled = end;
        }
        Ok(filled)
    }
}

impl FilterWorker for NafWorker<'_> {
    fn run(&mut self, tiles: &mut dyn Iterator<Item = Rect>) -> Result<&[f32], RuntimeError> {
        self.tiles.clear();
        self.tiles.extend(tiles);
        let filled = self.attend()?;
        let attended = &self.attended[..filled];
        Ok(match self.words {
            Some(head) => {
                self.output.clear();
                head.apply(attended, &mut self.output);
                &self.output
            }
            None => attended,
        })
    }
}
