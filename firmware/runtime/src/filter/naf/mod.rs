//! NAF (and DiveUp) in an encoded frame: with the CPU kernels, or as graphs of the bundle on the engine of
//! another device.

mod graphs;
mod statistics;
mod worker;

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use loftup_bundle::{Bundle, Normalization, Precision, Size};
use loftup_kernels::naf::{Area, EncodedImage, Image, Naf, Values};
use loftup_spec::naf::NafWeights;
use parking_lot::Mutex;

pub use self::statistics::NafStatistics;
use self::{
    graphs::{Axes, GraphFrame, MOST_PIXELS, NafGraphs},
    worker::NafWorker,
};
use super::{FilterFrame, FilterWorker, TILE};
use crate::{
    ExecutionOptions, Features, ImageTensor, Rect, RuntimeError,
    backend::{self, Backend},
    guidance::bit_eq,
    heads::Head,
    threads::on_threads,
};

/// The NAF of a bundle.
pub(crate) struct NafUpsampler {
    naf: Arc<Naf>,
    /// The bundle's graphs, if it has any and the engine does not run on the CPU.
    graphs: Option<Arc<NafGraphs>>,
    /// Number of channels of the bundle's features.
    dim: usize,
    /// The bundle's image normalization.
    normalization: Normalization,
    pub options: ExecutionOptions,
    /// Whether the warning about large images being computed on the CPU has been logged.
    said: AtomicBool,
}

impl NafUpsampler {
    /// Reads the weights.
    pub fn new(
        bundle: &Arc<Bundle>,
        backend: &Arc<dyn Backend>,
        manifest: &loftup_bundle::Upsampler,
        options: ExecutionOptions,
    ) -> Result<Self, RuntimeError> {
        let weights = weights(bundle, manifest)?;
        let files = manifest.graphs.get(&Precision::Fp32);
        let device = backend.fuses_heads();
        if device && files.is_none() {
            log::info!(
                "{}: has no graphs of NAF, which runs on the CPU; convert it again to run it on {}",
                bundle.path().display(),
                backend.name()
            );
        }
        let graphs = files.filter(|_| device).map(|files| {
            let fixed = (weights.periods.clone(), manifest.dim);
            Arc::new(NafGraphs::new(bundle, backend, files, fixed))
        });
        Ok(Self {
            naf: Arc::new(Naf::new(backend::kernels(), &weights)?),
            graphs,
            dim: manifest.dim,
            normalization: bundle.manifest().normalization,
            options,
            said: AtomicBool::new(false),
        })
    }

    /// Returns the graphs and the output's axes, if the graphs can run for this output.
    fn usable(&self, grid: (usize, usize), output: Size) -> Option<(&Arc<NafGraphs>, Axes)> {
        let graphs = self.graphs.as_ref().filter(|graphs| graphs.usable())?;
        if output.area() > MOST_PIXELS {
            if !self.said.swap(true, Ordering::Relaxed) {
                log::warn!(
                    "NAF computes outputs of more than {MOST_PIXELS} pixels, such as {output}, on the CPU"
                );
            }
            return None;
        }
        Some((graphs, graphs.axes(grid, output)?))
    }

    /// Whether NAF runs as graphs on the engine.
    pub fn has_graphs(&self) -> bool {
        self.graphs.as_ref().is_some_and(|graphs| graphs.usable())
    }

    /// Compiles for an output of this size from features of `(rows, columns)`.
    pub fn compile(&self, output: Size, grid: (usize, usize)) -> Result<(), RuntimeError> {
        match self.usable(grid, output) {
            Some((graphs, axes)) => graphs.compile(&axes, self.options.tile),
            None => Ok(()),
        }
    }

    /// Encodes a frame.
    pub fn encode(
        &self,
        features: &Features,
        guidance: &ImageTensor,
        statistics: &mut NafStatistics,
    ) -> Result<NafFrame, RuntimeError> {
        if features.dim != self.dim {
            return Err(RuntimeError::FeatureShape {
                found: vec![1, features.dim, features.height, features.width],
                dim: self.dim,
            });
        }
        let Size { width, height } = guidance.size;
        let image = Image {
            data: imagenet(guidance, &self.normalization),
            height,
            width,
        };
        let frame = NafFrame {
            naf: self.naf.clone(),
            kernels: Arc::default(),
            graphs: None,
            values: Arc::new(Values::features(features.tokens.clone(), self.dim)?),
            features: Arc::new(features.clone()),
            image: Arc::new(image),
            options: self.options,
        };
        let Some((graphs, axes)) = self.usable(frame.grid(), guidance.size) else {
            frame.encode(statistics)?;
            return Ok(frame);
        };
        statistics.reset();
        let encoded = graphs.encode(axes, &frame.image.data, self.options.tile)?;
        Ok(NafFrame {
            graphs: Some(Arc::new((graphs.clone(), encoded))),
            ..frame
        })
    }
}

/// Reads the weights of the bundle's NAF.
pub(crate) fn weights(
    bundle: &Bundle,
    manifest: &loftup_bundle::Upsampler,
) -> Result<NafWeights, RuntimeError> {
    let file = bundle
        .upsampler_weights()?
        .ok_or_else(|| bundle.lacks("weights of its upsampler", "convert it again"))?;
    let weights = NafWeights::read(|name, shape| file.read(name, shape));
    Ok(weights.map_err(|what| {
        let path = bundle
            .path()
            .join(manifest.weights.as_deref().unwrap_or_default());
        loftup_bundle::BundleError::Damaged { path, what }
    })?)
}

/// Converts an image from the backbone's normalization to ImageNet's, which NAF expects.
fn imagenet(image: &ImageTensor, own: &Normalization) -> Vec<f32> {
    let wanted = Normalization::IMAGENET;
    if *own == wanted {
        return image.data.clone();
    }
    let mut data = image.data.clone();
    for (c, plane) in data.chunks_exact_mut(image.size.area()).enumerate() {
        let scale = own.std[c] / wanted.std[c];
        let shift = (own.mean[c] - wanted.mean[c]) / wanted.std[c];
        plane.iter_mut().for_each(|x| *x = *x * scale + shift);
    }
    data
}

fn area(rect: Rect) -> Area {
    Area {
        x: rect.x,
        y: rect.y,
        width: rect.width,
        height: rect.height,
    }
}

/// A frame for NAF.
#[derive(Clone)]
pub(crate) struct NafFrame {
    naf: Arc<Naf>,
    /// The image as encoded by the kernels, on first use.
    kernels: Arc<Mutex<Option<Arc<EncodedImage>>>>,
    /// The graphs, and the outputs of the keys graph for the image.
    graphs: Option<Arc<(Arc<NafGraphs>, GraphFrame)>>,
    image: Arc<Image>,
    features: Arc<Features>,
    /// The features, or the outputs of a linear head on them.
    values: Arc<Values>,
    options: ExecutionOptions,
}

impl NafFrame {
    fn grid(&self) -> (usize, usize) {
        (self.features.height, self.features.width)
    }

    /// Encodes the image with the kernels.
    fn encode(&self, statistics: &mut NafStatistics) -> Result<(), RuntimeError> {
        let last = statistics.last(&self.naf, self.size()).cloned();
        if let Some(last) = &last {
            let next = last.encode_next(self.image.clone(), self.grid())?;
            *self.kernels.lock() = Some(Arc::new(next));
        }
        statistics.keep(&self.on_kernels()?, last.is_none());
        Ok(())
    }

    /// Whether the outputs in `rect` are those of `last` for the same head.
    pub fn same_tile(&self, last: &Self, rect: Rect) -> bool {
        if Arc::ptr_eq(&self.kernels, &last.kernels) {
            return true;
        }
        let encoded = self.kernels.lock().clone();
        let others = last.kernels.lock().clone();
        let shares = |(a, b): (Arc<EncodedImage>, Arc<EncodedImage>)| a.shares(&b, area(rect));
        encoded.zip(others).is_some_and(shares)
    }

    /// Whether the features are the same as those of `last`, and both frames run on the kernels.
    pub fn follows(&self, last: &Self) -> bool {
        self.graphs.is_none()
            && last.graphs.is_none()
            && self.grid() == last.grid()
            && bit_eq(&self.features.tokens, &last.features.tokens)
    }

    /// Returns the image as encoded by the kernels.
    fn on_kernels(&self) -> Result<Arc<EncodedImage>, RuntimeError> {
        let mut kept = self.kernels.lock();
        if let Some(encoded) = &*kept {
            return Ok(encoded.clone());
        }
        let threads = self.options.threads;
        let jobs = |count: usize, job: &(dyn Fn(usize) + Sync)| {
            let next = AtomicUsize::new(0);
            let done: Result<(), Infallible> = on_threads(threads.min(count), || {
                loop {
                    match next.fetch_add(1, Ordering::Relaxed) {
                        i if i < count => job(i),
                        _ => return Ok(()),
                    }
                }
            });
            match done {
                Ok(()) => {}
                Err(never) => match never {},
            }
        };
        let image = self.image.clone();
        let encoded = Arc::new(self.naf.encode(image, self.grid(), &jobs)?);
        *kept = Some(encoded.clone());
        Ok(encoded)
    }
}

impl FilterFrame for NafFrame {
    fn boxed_clone(&self) -> Box<dyn FilterFrame> {
        Box::new(self.clone())
    }

    fn as_naf(&self) -> Option<&NafFrame> {
        Some(self)
    }

    fn size(&self) -> Size {
        Size {
            width: self.image.width,
            height: self.image.height,
        }
    }

    fn dim(&self) -> usize {
        self.features.dim
    }

    fn options(&self) -> ExecutionOptions {
        self.options
    }

    fn tile(&self) -> usize {
        match &self.graphs {
            Some(graphs) => graphs.1.tile,
            None => self.options.tile.unwrap_or(TILE),
        }
    }

    fn threads(&self) -> usize {
        let sessions = (self.graphs.as_ref()).map(|g| g.0.backend.tiling_hint().sessions);
        self.options.threads.min(sessions.unwrap_or(usize::MAX))
    }

    fn set_head(&mut self, head: &Head) -> Result<(), RuntimeError> {
        let Features { tokens, dim, .. } = &*self.features;
        let values = if head.is_words() {
            // A cosine is not linear, so it needs upsampled features.
            Values::features(tokens.clone(), *dim)?
        } else {
            let linear = head.linear();
            Values::linear(
                backend::kernels(),
                (tokens, *dim),
                &linear.weight,
                &linear.bias,
            )?
        };
        self.values = Arc::new(values);
        Ok(())
    }

    fn worker<'a>(&'a self, head: Option<&'a Head>) -> Box<dyn FilterWorker + 'a> {
        let words = head.filter(|head| head.is_words());
        Box::new(NafWorker::new(self, words))
    }
}
