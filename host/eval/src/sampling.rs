//! Upsampling methods, and labeled features sampled from a data set.

use std::path::Path;

use loftup_bundle::{Manifest, Size, UpsamplerKind};
use loftup_runtime::{
    ColorRange, EncodedFrame, Features, ImageTensor, Perceptor, Point,
    image::{self, Orientation, RgbImage},
    jbu::{Jbu, JbuOptions},
};
use serde::Serialize;

use crate::{
    EvalError, Progress,
    data::{Classes, Pair},
    error::or_skip,
    labels::{Labels, UNLABELED},
    probe::Samples,
    random::Random,
    resize::{Kernel, Resizer},
};

/// A method to upsample the backbone's features to one feature per pixel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Nearest neighbor: every pixel gets the features of its cell.
    Nearest,
    /// Bilinear interpolation.
    Bilinear,
    /// Bicubic interpolation.
    Bicubic,
    /// Joint bilateral upsampling.
    Jbu,
    /// LoftUp. In a request, it stands for the bundle's upsampler of any kind.
    LoftUp,
    /// The bundle's NAF.
    Naf,
}

impl Method {
    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nearest => "nearest",
            Self::Bilinear => "bilinear",
            Self::Bicubic => "bicubic",
            Self::Jbu => "JBU",
            Self::LoftUp => UpsamplerKind::LoftUp.name(),
            Self::Naf => UpsamplerKind::Naf.name(),
        }
    }

    /// The name in files.
    pub fn key(self) -> &'static str {
        match self {
            Self::Nearest => "nearest",
            Self::Bilinear => "bilinear",
            Self::Bicubic => "bicubic",
            Self::Jbu => "jbu",
            Self::LoftUp => UpsamplerKind::LoftUp.key(),
            Self::Naf => UpsamplerKind::Naf.key(),
        }
    }

    /// All methods that a bundle supports: its own upsampler, and those that need no training.
    pub fn of(manifest: &Manifest) -> Vec<Self> {
        let mut all = vec![Self::Nearest, Self::Bilinear, Self::Bicubic, Self::Jbu];
        all.extend(
            manifest
                .upsampler
                .is_some()
                .then(|| Self::LoftUp.for_bundle(manifest)),
        );
        all
    }

    /// Returns this method, with LoftUp replaced by the bundle's upsampler.
    pub fn for_bundle(self, manifest: &Manifest) -> Self {
        match (self, manifest.upsampler.as_ref().map(|u| u.kind)) {
            (Self::LoftUp, Some(UpsamplerKind::Naf)) => Self::Naf,
            _ => self,
        }
    }

    /// Returns these methods, or all that the bundle supports if there are none.
    pub(crate) fn checked(manifest: &Manifest, methods: Vec<Self>) -> Result<Vec<Self>, EvalError> {
        let able = Self::of(manifest);
        if methods.is_empty() {
            return Ok(able);
        }
        let methods: Vec<Self> = methods
            .into_iter()
            .map(|m| m.for_bundle(manifest))
            .collect();
        match methods.iter().find(|m| !able.contains(m)) {
            Some(method) => Err(EvalError::Request(format!(
                "the bundle has no upsampler for {}; convert it with --upsampler-weights",
                method.name()
            ))),
            None => Ok(methods),
        }
    }
}

/// An image after the backbone.
pub(crate) struct Encoded {
    pub features: Features,
    pub guidance: ImageTensor,
    /// The image at the size of the output.
    image: RgbImage,
}

/// An image and the backbone's features of it.
#[derive(Debug, Clone, Copy)]
pub struct Photo<'a> {
    /// The image file.
    pub path: &'a Path,
    /// The image at the size of the maps.
    pub image: &'a RgbImage,
    /// Rows and columns of the image in the file.
    pub size: (usize, usize),
    /// `[height * width, dim]`.
    pub tokens: &'a [f32],
    /// Width and height of the grid.
    pub grid: (usize, usize),
    /// Number of channels.
    pub dim: usize,
}

impl Encoded {
    /// Describes the image `photo` in file `path`, for [`crate::maps`].
    pub fn photo<'a>(&'a self, path: &'a Path, photo: &RgbImage) -> Photo<'a> {
        Photo {
            path,
            image: &self.image,
            size: (photo.height(), photo.width()),
            tokens: &self.features.tokens,
            grid: (self.features.width, self.features.height),
            dim: self.features.dim,
        }
    }
}

/// Upsampling of one image with weights that do not depend on the features.
pub(crate) enum Weights<'a> {
    Resizer(Resizer),
    Jbu(Jbu<'a>),
}

impl Weights<'_> {
    /// Computes row `y`, `[width, d]`, from cells `[h * w, d]`. Buffers are reused.
    pub fn row(
        &self,
        tokens: &[f32],
        dim: usize,
        y: usize,
        scratch: &mut Vec<f32>,
        out: &mut Vec<f32>,
    ) {
        match self {
            Self::Resizer(resizer) => resizer.row(tokens, dim, y, scratch, out),
            Self::Jbu(jbu) => {
                out.clear();
                jbu.row(tokens, dim, y, out);
            }
        }
    }

    /// Appends the features of one pixel, bit-identical to [`Self::row`].
    fn pixel(&self, tokens: &[f32], dim: usize, at: (usize, usize), out: &mut Vec<f32>) {
        match self {
            Self::Resizer(resizer) => resizer.pixel(tokens, dim, at, out),
            Self::Jbu(jbu) => jbu.pixel(tokens, dim, at, out),
        }
    }
}

/// Encodes images.
#[derive(Clone, Copy)]
pub(crate) struct Encoder<'a> {
    pub perceptor: &'a Perceptor,
    /// Size of the output.
    pub size: Size,
    pub range: ColorRange,
    /// Whether EXIF orientation is applied to images.
    pub orientation: Orientation,
}

impl<'a> Encoder<'a> {
    /// Creates an encoder for outputs at `size`, or at the backbone's default size.
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

    /// Opens an image and its mask at the size of the output. If they cannot be used, the reason is
    /// logged and added to `skipped`.
    pub fn open_or_skip(
        &self,
        pair: &Pair,
        classes: &Classes,
        skipped: &mut Vec<String>,
    ) -> Option<(RgbImage, Labels)> {
        or_skip(open(pair, classes, self.size, self.orientation), skipped)
    }

    /// Runs the backbone, at the size of the output if it accepts any size.
    pub fn encode(&self, photo: &RgbImage) -> Result<Encoded, EvalError> {
        let inputs = self.perceptor.preprocess(photo, self.size)?;
        let features = self.perceptor.features(inputs.backbone())?;
        self.encoded(features, inputs.guidance)
    }

    /// Runs the backbone at its default size.
    pub fn encode_at_own_size(&self, image: &RgbImage) -> Result<Encoded, EvalError> {
        let backbone = self.perceptor.manifest().backbone.as_ref();
        let own = backbone.map_or(self.size, |b| b.size);
        let input = self.perceptor.to_tensor(image, own)?;
        let features = self.perceptor.features(&input)?;
        self.encoded(features, self.perceptor.to_tensor(image, self.size)?)
    }

    fn encoded(&self, features: Features, guidance: ImageTensor) -> Result<Encoded, EvalError> {
        // Exact: the guidance was made from 8-bit values.
        let rgb = guidance.to_rgb(&self.perceptor.manifest().normalization);
        Ok(Encoded {
            features,
            guidance,
            image: RgbImage::new(self.size.width, self.size.height, rgb)?,
        })
    }

    /// Encodes an image for the bundle's upsampler.
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

    /// Returns the weights of a method for an image; `None` for the bundle's upsampler.
    pub fn weights<'e>(&self, method: Method, encoded: &'e Encoded) -> Option<Weights<'e>> {
        let resizer = |kernel| Some(Weights::Resizer(self.resizer(kernel, encoded)));
        match method {
            Method::Nearest => resizer(Kernel::Nearest),
            Method::Bilinear => resizer(Kernel::Bilinear),
            Method::Bicubic => resizer(Kernel::Bicubic),
            Method::Jbu => {
                let from = (encoded.features.width, encoded.features.height);
                let to = (self.size.width, self.size.height);
                let options = JbuOptions::default();
                Some(Weights::Jbu(Jbu::new(
                    options,
                    from,
                    encoded.image.data(),
                    to,
                )))
            }
            Method::LoftUp | Method::Naf => None,
        }
    }

    /// Appends the features of the given pixels.
    pub fn pixels(
        &self,
        method: Method,
        encoded: &Encoded,
        places: &[u32],
        out: &mut Vec<f32>,
    ) -> Result<(), EvalError> {
        let width = self.size.width;
        let place = |i: &u32| (*i as usize % width, *i as usize / width);
        match self.weights(method, encoded) {
            Some(weights) => {
                let dim = encoded.features.dim;
                places
                    .iter()
                    .for_each(|i| weights.pixel(&encoded.features.tokens, dim, place(i), out));
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

/// Opens an image and its mask, with the mask resized to `size`. The mask is used as stored.
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

/// Selects at most `each` random labeled pixels of image `i`.
pub(crate) fn places(labels: &Labels, each: usize, seed: u64, i: usize) -> Vec<u32> {
    let labeled = |(i, label): (usize, &u8)| (*label != UNLABELED).then_some(i as u32);
    let all = labels.values.iter().enumerate();
    let mut places: Vec<u32> = all.filter_map(labeled).collect();
    let chosen = Random::new(seed ^ ((i as u64) << 20)).choose(&mut places, each);
    chosen.to_vec()
}

/// Maximum memory for the sampled features of all methods together, in bytes.
const MAX_BYTES: usize = 1 << 30;

/// Returns how many of `each` pixels per image fit into [`MAX_BYTES`], for this many channels, methods
/// and images.
pub(crate) fn samples_in_memory(each: usize, dim: usize, methods: usize, images: usize) -> usize {
    let bytes = 4 * dim.max(1) * methods.max(1) * images.max(1);
    let fit = (MAX_BYTES / bytes).max(1);
    if fit < each {
        log::info!("{fit} instead of {each} pixels per image are used, to stay within 1 GiB");
    }
    each.min(fit)
}

/// Samples labeled features of at most `each` pixels per image, the same pixels for each method. Images
/// and masks that cannot be read are skipped and reported.
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
    let each = samples_in_memory(each, dim, methods.len(), pairs.len());
    let empty = || Samples {
        dim,
        ..Samples::default()
    };
    let mut sampled = Sampled {
        samples: methods.iter().map(|_| empty()).collect(),
        images: 0,
        skipped: Vec::new(),
    };
    for (i, pair) in pairs.iter().enumerate() {
        progress("sampling training images", i, pairs.len());
        let Some((photo, labels)) = encoder.open_or_skip(pair, classes, &mut sampled.skipped)
        else {
            continue;
        };
        let places = &places(&labels, each, seed, i);
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
        sampled.images += 1;
    }
    if sampled.images == 0 {
        let what = match sampled.skipped.first() {
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

/// The result of [`sample`].
pub(crate) struct Sampled {
    /// By method.
    pub samples: Vec<Samples>,
    pub images: usize,
    pub skipped: Vec<String>,
}

/// Returns at most `most` of the items, evenly spaced.
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
