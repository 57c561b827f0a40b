//! Joint bilateral upsampling in an encoded frame.

use loftup_bundle::Size;

use super::{FilterFrame, FilterWorker};
use crate::{ExecutionOptions, Features, Rect, RuntimeError, heads::Head, jbu::Jbu, words};

/// A frame for joint bilateral upsampling.
#[derive(Clone)]
pub(crate) struct JbuFrame {
    pub jbu: Jbu<'static>,
    pub size: Size,
    pub features: Features,
    /// `features` after the head. A weighted mean commutes with a linear head, so the head is applied
    /// to tokens instead of pixels. For a text head, similarities are upsampled.
    pub projected: Option<Vec<f32>>,
    pub options: ExecutionOptions,
}

impl FilterFrame for JbuFrame {
    fn boxed_clone(&self) -> Box<dyn FilterFrame> {
        Box::new(self.clone())
    }

    fn size(&self) -> Size {
        self.size
    }

    fn dim(&self) -> usize {
        self.features.dim
    }

    fn options(&self) -> ExecutionOptions {
        self.options
    }

    fn set_head(&mut self, head: &Head) -> Result<(), RuntimeError> {
        let mut projected = Vec::new();
        head.scores(&self.features.tokens, &mut projected);
        self.projected = Some(projected);
        Ok(())
    }

    fn worker<'a>(&'a self, head: Option<&'a Head>) -> Box<dyn FilterWorker + 'a> {
        Box::new(JbuWorker {
            jbu: &self.jbu,
            values: self.projected.as_ref().unwrap_or(&self.features.tokens),
            dim: head.map_or(self.features.dim, |head| head.kind().rows()),
            head,
            output: Vec::new(),
        })
    }
}

struct JbuWorker<'a> {
    jbu: &'a Jbu<'static>,
    /// `[tokens, dim]`.
    values: &'a [f32],
    dim: usize,
    head: Option<&'a Head>,
    output: Vec<f32>,
}

impl FilterWorker for JbuWorker<'_> {
    fn run(&mut self, tiles: &mut dyn Iterator<Item = Rect>) -> Result<&[f32], RuntimeError> {
        self.output.clear();
        for rect in tiles {
            (self.jbu).region(self.values, self.dim, rect, &mut self.output);
        }
        if let Some(head) = self.head {
            words::decide(head.kind(), &mut self.output, 0);
        }
        Ok(&self.output)
    }
}
