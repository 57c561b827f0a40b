//! A model and what borrows from it.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use loftup_bundle::{HeadKind, Size};
use loftup_runtime::{
    ColorRange, EncodedFrame, Features, Perceptor, Point, Rect, RuntimeError,
    class_map::ClassMap,
    depth::{Depth, DepthMap},
    heads::Head,
    image::RgbImage,
    jbu::JbuOptions,
    sinks::VecSink,
};
use parking_lot::Mutex;
use pyo3::PyResult;
use self_cell::self_cell;

use crate::{
    args::Upsampler,
    error::{of_runtime, wrong},
};

/// A perceptor, and its heads that were used.
pub struct Model {
    pub path: PathBuf,
    pub perceptor: Perceptor,
    heads: Mutex<HashMap<String, Arc<Head>>>,
}

self_cell!(
    /// A frame with the model that it borrows from.
    pub struct OwnedFrame {
        owner: Arc<Model>,
        #[covariant]
        dependent: EncodedFrame,
    }
);

/// The image and how it is encoded.
pub struct Encoding<'a> {
    pub image: &'a RgbImage,
    pub size: Size,
    pub range: ColorRange,
    pub upsampler: Upsampler,
    /// Instead of those that the backbone computes.
    pub features: Option<Features>,
}

impl Model {
    pub fn new(path: &Path, perceptor: Perceptor) -> Self {
        Self {
            path: path.into(),
            perceptor,
            heads: Mutex::default(),
        }
    }

    /// The head of this name, read from the bundle the first time.
    pub fn head(&self, name: &str) -> PyResult<Arc<Head>> {
        if let Some(head) = self.heads.lock().get(name) {
            return Ok(head.clone());
        }
        let known = self.perceptor.manifest().heads.contains_key(name);
        let head = self.perceptor.head(name).map_err(|error| match known {
            true => of_runtime(error),
            false => wrong(error),
        })?;
        let head = Arc::new(head);
        self.heads.lock().insert(name.into(), head.clone());
        Ok(head)
    }

    /// The only head of a kind.
    pub fn only_head(&self, what: &str, is: impl Fn(&HeadKind) -> bool) -> PyResult<Arc<Head>> {
        let heads = &self.perceptor.manifest().heads;
        let mut names = heads.iter().filter(|(_, h)| is(&h.kind)).map(|(n, _)| n);
        match (names.next(), names.next()) {
            (Some(name), None) => self.head(name),
            (None, _) => Err(wrong(format!(
                "{}: no head with {what}; make one with `loftup head {what}`, or give a Head",
                self.path.display()
            ))),
            _ => Err(wrong(format!(
                "{}: several heads with {what}; give the name of one",
                self.path.display()
            ))),
        }
    }

    /// Size of the output where none is given.
    pub fn default_size(&self, image: &RgbImage) -> Size {
        let backbone = self.perceptor.manifest().backbone.as_ref();
        backbone.map_or(image_size(image), |b| b.size)
    }

    /// Encodes a frame.
    pub fn encode(self: Arc<Self>, request: Encoding<'_>) -> Result<OwnedFrame, RuntimeError> {
        OwnedFrame::try_new(self, |model| {
            let perceptor = &model.perceptor;
            let Encoding {
                image,
                size,
                range,
                upsampler,
                features,
            } = request;
            let (features, guidance) = match features {
                Some(features) => (features, perceptor.to_tensor(image, size)?),
                None => {
                    let inputs = perceptor.preprocess(image, size)?;
                    (perceptor.features(inputs.backbone())?, inputs.guidance)
                }
            };
            match upsampler {
                Upsampler::OfBundle => perceptor.encode_features(&features, &guidance, range),
                Upsampler::Jbu => {
                    let options = JbuOptions::default();
                    Ok(perceptor.encode_jbu(features, &guidance, options))
                }
            }
        })
    }
}

pub fn image_size(image: &RgbImage) -> Size {
    Size {
        width: image.width(),
        height: image.height(),
    }
}

/// Values of pixels.
pub struct Values {
    pub rect: Rect,
    pub dim: usize,
    pub values: Vec<f32>,
}

impl OwnedFrame {
    fn view(&self) -> &EncodedFrame<'_> {
        self.borrow_dependent()
    }

    pub fn model(&self) -> &Arc<Model> {
        self.borrow_owner()
    }

    /// Size of the whole output.
    pub fn size(&self) -> Size {
        self.view().size()
    }

    /// Channels of the features.
    pub fn dim(&self) -> usize {
        self.view().dim()
    }

    /// Calls `work` with the frame, to which the head is applied.
    pub fn with<T>(
        &self,
        head: Option<&Head>,
        work: impl FnOnce(&EncodedFrame<'_>) -> Result<T, RuntimeError>,
    ) -> Result<T, RuntimeError> {
        match head {
            None => work(self.view()),
            Some(head) => work(&self.view().clone().with_head(head)?),
        }
    }

    /// The features, or outputs of a head, of a region or of all pixels.
    pub fn pixels(
        &self,
        head: Option<&Head>,
        region: Option<Rect>,
    ) -> Result<Values, RuntimeError> {
        self.with(head, |frame| {
            let rect = region.unwrap_or(Rect::whole(frame.size()));
            frame.check_region(rect)?;
            let mut sink = VecSink::new(rect, frame.dim())?;
            // A frame has larger tiles than a region.
            match region {
                None => frame.frame(&mut |tile| sink.push(tile))?,
                Some(rect) => frame.region(rect, &mut |tile| sink.push(tile))?,
            }
            Ok(Values {
                rect,
                dim: frame.dim(),
                values: sink.into_values(),
            })
        })
    }

    /// The features, or outputs of a head, at points.
    pub fn points(
        &self,
        head: Option<&Head>,
        points: &[Point],
    ) -> Result<(usize, Vec<f32>), RuntimeError> {
        self.with(head, |frame| Ok((frame.dim(), frame.points(points)?)))
    }

    /// The class of each pixel.
    pub fn classes(&self, head: &Head) -> Result<Vec<u8>, RuntimeError> {
        self.with(Some(head), |frame| {
            let mut map = ClassMap::new(Rect::whole(frame.size()));
            frame.frame(&mut |tile| map.push(tile))?;
            Ok(map.into_classes())
        })
    }

    /// The depth of each pixel in meters.
    pub fn depth(&self, head: &Head, depth: Depth) -> Result<Vec<f32>, RuntimeError> {
        self.with(Some(head), |frame| {
            let mut map = DepthMap::new(Rect::whole(frame.size()), depth);
            frame.frame(&mut |tile| map.push(tile))?;
            Ok(map.into_meters())
        })
    }
}
