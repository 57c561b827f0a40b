//! From a data set to features with labels.

use std::path::Path;

use loftup_bundle::{Manifest, Size};
use loftup_runtime::{
    ColorRange, EncodedFrame, Features, ImageTensor, Perceptor, Point,
    image::{self, Orientation, RgbImage},
};
use serde::Serialize;

use crate::{
    EvalError, Progress,
    data::{Classes, Pair},
    labels::{Labels, UNLABELED},
    probe::Samples,
    random::Random,
    resize::{Kernel, Resizer},
};

/// A way from the backbone's features to features of every pixel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Every pixel has the features of its cell.
    Nearest,
    /// Bilinear interpolation.
    Bilinear,
    /// Bicubic interpolation.
    Bicubic,
    /// The bundle's upsampler.
    LoftUp,
}

impl Method {
    /// As it is written in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nearest => "nearest",
            Self::Bilinear => "bilinear",
            Self::Bicubic => "bicubic",
            Self::LoftUp => "LoftUp",
        }
    }

    /// The kernel, but for LoftUp.
    pub(crate) fn kernel(self) -> Option<Kernel> {
        match self {
            Self::Nearest => Some(Kernel::Nearest),
            Self::Bilinear => Some(Kernel::Bilinear),
            Self::Bicubic => Some(Kernel::Bicubic),
            Self::LoftUp => None,
        }
    }

    /// All that a bundle can do: all, or all but LoftUp.
    pub fn of(manifest: &Manifest) -> Vec<Self> {
        let mut all = vec![Self::Nearest, Self::Bilinear, Self::Bicubic];
        all.extend(manifest.upsampler.is_some().then_some(Self::LoftUp));
        all
    }
}

/// An image after the backbone.
pub(crate) struct Encoded {
    pub features: Features,
    pub guidance: ImageTensor,
}

/// How images are looked at.
#[derive(Clone, Copy)]
pub(crate) struct Encoder<'a> {
    pub perceptor: &'a Perceptor,
    /// Size of the output.
    pub size: Size,
    pub range: ColorRange,
    /// Which way up images are read.
    pub orientation: Orientation,
}

impl<'a> Encoder<'a> {
    /// At `size`, or at the backbone's own.
    pub fn new(
        perceptor: &'a Perceptor,
        size: Option<Size>,
        range: ColorRange,
        orientation: Orientation,
    ) -> Result<Self, EvalError> {
        let Some(backbone) = &perceptor.manifest().backbone else {
            return Err(EvalError::Request(
                "the bundle has no backbone, which images need; convert it with --backbone or --backbone-onnx".into(),
            ));
        };
        let size = size.unwrap_or(backbone.size);
        let sides = 1..=Size::LONGEST_SIDE;
        if !sides.contains(&size.width) || !sides.contains(&size.height) {
            return Err(EvalError::Request(format!(
                "size {size}: each side is 1 to {}",
                Size::LONGEST_SIDE
            )));
        }
        Ok(Self {
            perceptor,
            size,
            range,
            orientation,
        })
    }

    /// Runs the backbone.
    pub fn encode(&self, photo: &RgbImage) -> Result<Encoded, EvalError> {
        let inputs = self.perceptor.preprocess(photo, self.size)?;
        Ok(Encoded {
            features: self.perceptor.features(inputs.backbone())?,
            guidance: inputs.guidance,
        })
    }

    /// What the upsampler makes of it.
    pub fn view(
        &self,
        encoded: &Encoded,
        range: ColorRange,
    ) -> Result<EncodedFrame<'a>, EvalError> {
        Ok(self
            .perceptor
            .encode_features(&encoded.features, &encoded.guidance, range)?)
    }

    pub fn resizer(&self, kernel: Kernel, encoded: &Encoded) -> Resizer {
        let from = (encoded.features.width, encoded.features.height);
        Resizer::new(kernel, from, (self.size.width, self.size.height))
    }

    /// Appends the features of some pixels.
    fn pixels(
        &self,
        method: Method,
        encoded: &Encoded,
        places: &[u32],
        out: &mut Vec<f32>,
    ) -> Result<(), EvalError> {
        let width = self.size.width;
        let place = |i: &u32| (*i as usize % width, *i as usize / width);
        match method.kernel() {
            Some(kernel) => {
                let resizer = self.resizer(kernel, encoded);
                let dim = encoded.features.dim;
                places
                    .iter()
                    .for_each(|i| resizer.pixel(&encoded.features.tokens, dim, place(i), out));
            }
            None => {
                let points: Vec<Point> = places
                    .iter()
                    .map(|i| Point {
                        x: place(i).0,
                        y: place(i).1,
                    })
                    .collect();
                out.extend(self.view(encoded, self.range)?.points(&points)?);
            }
        }
        Ok(())
    }
}

/// Opens an image and its mask, the mask at `size`. The mask is taken as it is stored.
pub(crate) fn open(
    pair: &Pair,
    classes: &Classes,
    size: Size,
    orientation: Orientation,
) -> Result<(RgbImage, Labels), EvalError> {
    let decoded = image::open_with(&pair.image, orientation)?;
    let photo = &decoded.image;
    let labels = classes.read(&pair.labels)?;
    let found = Size {
        width: photo.width(),
        height: photo.height(),
    };
    if labels.size != found {
        let what = format!(
            "a mask of {} for {} of {found}{}",
            labels.size,
            pair.image.display(),
            decoded.why_labels_differ((labels.size.width, labels.size.height))
        );
        return Err(EvalError::Labels {
            path: pair.labels.clone(),
            what,
        });
    }
    Ok((decoded.image, labels.resized(size)))
}

/// Memory for features of all methods together.
const MOST_BYTES: usize = 1 << 30;

/// Labeled features, method by method, of at most `each` pixels of each image, the same pixels
/// for each method. Images and masks that cannot be read are left out and named.
pub(crate) fn sample(
    encoder: &Encoder<'_>,
    (dir, pairs, classes): (&Path, &[Pair], &Classes),
    methods: &[Method],
    (each, seed): (usize, u64),
    progress: Progress<'_>,
) -> Result<Sampled, EvalError> {
    let dim = encoder
        .perceptor
        .manifest()
        .backbone
        .as_ref()
        .map_or(0, |b| b.dim);
    let bytes = 4 * dim.max(1) * methods.len().max(1) * pairs.len().max(1);
    let fit = (MOST_BYTES / bytes).max(1);
    if fit < each {
        log::info!("{fit} instead of {each} pixels per image are used, to stay within 1 GiB");
    }
    let each = each.min(fit);
    let empty = || Samples {
        dim,
        ..Samples::default()
    };
    let mut sampled = Sampled {
        samples: methods.iter().map(|_| empty()).collect(),
        pictures: 0,
        left_out: Vec::new(),
    };
    for (i, pair) in pairs.iter().enumerate() {
        progress("sampling training images", i, pairs.len());
        let (photo, labels) = match open(pair, classes, encoder.size, encoder.orientation) {
            Ok(opened) => opened,
            Err(e) => {
                log::warn!("skipped: {e}");
                sampled.left_out.push(e.to_string());
                continue;
            }
        };
        let labeled = |(i, label): (usize, &u8)| (*label != UNLABELED).then_some(i as u32);
        let mut places: Vec<u32> = labels
            .values
            .iter()
            .enumerate()
            .filter_map(labeled)
            .collect();
        let places = Random::new(seed ^ ((i as u64) << 20)).choose(&mut places, each);
        if places.is_empty() {
            continue;
        }
        let encoded = encoder.encode(&photo)?;
        for (method, samples) in methods.iter().zip(&mut sampled.samples) {
            encoder.pixels(*method, &encoded, places, &mut samples.features)?;
            samples
                .labels
                .extend(places.iter().map(|i| labels.values[*i as usize]));
        }
        sampled.pictures += 1;
    }
    if sampled.pictures == 0 {
        let what = match sampled.left_out.first() {
            Some(first) => format!("no usable image; the first: {first}"),
            None => "no mask has a labeled pixel".into(),
        };
        return Err(EvalError::Data {
            path: dir.into(),
            what,
        });
    }
    Ok(sampled)
}

/// What [`sample`] found.
pub(crate) struct Sampled {
    /// By method.
    pub samples: Vec<Samples>,
    pub pictures: usize,
    pub left_out: Vec<String>,
}

/// At most `most` of the items, evenly spread.
pub(crate) fn subsample<T>(items: Vec<T>, most: Option<usize>) -> Vec<T> {
    let (have, most) = (items.len(), most.unwrap_or(usize::MAX).max(1));
    if have <= most {
        return items;
    }
    let keep = |i: usize| (i + 1) * most / have > i * most / have;
    items
        .into_iter()
        .enumerate()
        .filter_map(|(i, item)| keep(i).then_some(item))
        .collect()
}
