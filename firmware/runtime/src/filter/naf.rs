//! NAF (and DiveUp) in an encoded frame. It runs on the CPU, whatever the engine of the backbone.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use loftup_bundle::{Bundle, Normalization, Size};
use loftup_kernels::naf::{Area, EncodedImage, Image, Naf, Values};
use loftup_spec::naf::NafWeights;

use super::{FilterFrame, FilterWorker};
use crate::{
    ExecutionOptions, Features, ImageTensor, Rect, RuntimeError, backend, heads::Head,
    threads::on_threads,
};

/// The NAF of a bundle.
pub(crate) struct NafUpsampler {
    naf: Arc<Naf>,
    /// Channels of the features that the bundle is for.
    dim: usize,
    /// Normalization of images by the bundle.
    normalization: Normalization,
    pub options: ExecutionOptions,
}

impl NafUpsampler {
    /// Reads the weights.
    pub fn new(
        bundle: &Bundle,
        manifest: &loftup_bundle::Upsampler,
        options: ExecutionOptions,
    ) -> Result<Self, RuntimeError> {
        let file = bundle
            .upsampler_weights()?
            .ok_or_else(|| bundle.lacks("weights of its upsampler", "convert it again"))?;
        let weights = NafWeights::read(|name, shape| file.read(name, shape));
        let weights = weights.map_err(|what| {
            let path = bundle
                .path()
                .join(manifest.weights.as_deref().unwrap_or_default());
            loftup_bundle::BundleError::Damaged { path, what }
        })?;
        Ok(Self {
            naf: Arc::new(Naf::new(backend::kernels(), &weights)?),
            dim: manifest.dim,
            normalization: bundle.manifest().normalization,
            options,
        })
    }

    /// Encodes a frame.
    pub fn encode(
        &self,
        features: &Features,
        guidance: &ImageTensor,
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
        let grid = (features.height, features.width);
        Ok(NafFrame {
            image: Arc::new(self.naf.encode(image, grid, &jobs)?),
            values: Values::features(features.tokens.clone(), self.dim)?,
            features: features.clone(),
            size: guidance.size,
            options: self.options,
        })
    }
}

/// An image with ImageNet's normalization, which NAF takes, from that of the backbone.
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

/// A frame for NAF.
#[derive(Clone)]
pub(crate) struct NafFrame {
    image: Arc<EncodedImage>,
    features: Features,
    /// The features, or what a linear head makes of them.
    values: Values,
    size: Size,
    options: ExecutionOptions,
}

impl FilterFrame for NafFrame {
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
        let Features { tokens, dim, .. } = &self.features;
        self.values = if head.is_words() {
            // A cosine is not linear: it takes upsampled features.
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
        Ok(())
    }

    fn worker<'a>(&'a self, head: Option<&'a Head>) -> Box<dyn FilterWorker + 'a> {
        Box::new(NafWorker {
            frame: self,
            words: head.filter(|head| head.is_words()),
            attended: Vec::new(),
            output: Vec::new(),
        })
    }
}

struct NafWorker<'a> {
    frame: &'a NafFrame,
    /// A head that is applied to upsampled features.
    words: Option<&'a Head>,
    attended: Vec<f32>,
    output: Vec<f32>,
}

impl FilterWorker for NafWorker<'_> {
    fn run(&mut self, tiles: &mut dyn Iterator<Item = Rect>) -> Result<&[f32], RuntimeError> {
        let NafFrame { image, values, .. } = self.frame;
        let mut filled = 0;
        for rect in tiles {
            let area = Area {
                x: rect.x,
                y: rect.y,
                width: rect.width,
                height: rect.height,
            };
            let end = filled + area.pixels() * values.outputs();
            if self.attended.len() < end {
                self.attended.resize(end, 0.0);
            }
            image.attend(values, area, &mut self.attended[filled..end])?;
            filled = end;
        }
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
