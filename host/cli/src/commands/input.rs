//! From files on the command line to features and guidance.

use std::path::Path;

use anyhow::{Context, Result};
use loftup_bundle::Size;
use loftup_runtime::{
    Features, FrameInputs, ImageTensor, Perceptor,
    image::{self, Orientation, RgbImage},
    npy,
};

use crate::args::InputArgs;

/// What a bundle is asked about.
pub struct Input {
    /// Features of the backbone.
    pub features: Features,
    /// The picture at the resolution of the answer; `None` where only features are wanted.
    pub guidance: Option<ImageTensor>,
    /// The picture to show beside the features.
    pub photo: RgbImage,
    /// Seconds spent in the backbone, where one ran.
    pub backbone_seconds: Option<f64>,
}

/// A picture file or an exact, already normalized one.
enum Source {
    Photo(RgbImage),
    Exact(ImageTensor),
}

impl Source {
    fn open(path: &Path, orientation: Orientation) -> Result<Self> {
        if path
            .extension()
            .is_some_and(|e| e.eq_ignore_ascii_case("npy"))
        {
            let picture = ImageTensor::from_array(npy::read(path)?);
            return Ok(Self::Exact(
                picture.with_context(|| path.display().to_string())?,
            ));
        }
        Ok(Self::Photo(image::open_with(path, orientation)?.image))
    }

    fn size(&self) -> Size {
        match self {
            Self::Photo(p) => Size {
                width: p.width(),
                height: p.height(),
            },
            Self::Exact(p) => p.size,
        }
    }

    /// Normalized, at `size`. An exact picture is what it is.
    fn at(&self, size: Size, perceptor: &Perceptor) -> Result<ImageTensor> {
        match self {
            Self::Photo(photo) => Ok(perceptor.to_tensor(photo, size)?),
            Self::Exact(picture) => Ok(picture.clone()),
        }
    }

    /// To look at.
    fn photo(&self, perceptor: &Perceptor) -> Result<RgbImage> {
        match self {
            Self::Photo(photo) => Ok(photo.clone()),
            Self::Exact(picture) => {
                let n = perceptor.manifest().normalization;
                let area = picture.size.area();
                let level = |i: usize, c: usize| {
                    let x = picture.data[c * area + i] * n.std[c] + n.mean[c];
                    (x * 255.0).round().clamp(0.0, 255.0) as u8
                };
                let data = (0..area)
                    .flat_map(|i| (0..3).map(move |c| level(i, c)))
                    .collect();
                Ok(RgbImage::new(
                    picture.size.width,
                    picture.size.height,
                    data,
                )?)
            }
        }
    }
}

impl Input {
    /// Reads the files and runs the backbone.
    pub fn read(args: &InputArgs, perceptor: &Perceptor) -> Result<Self> {
        match (&args.features, &args.guidance, &args.image) {
            (Some(features), Some(guidance), _) => {
                Self::halves(features, guidance, args, perceptor)
            }
            (_, _, Some(image)) => Self::image(image, args, perceptor),
            _ => anyhow::bail!("give --image, or --features with --guidance"),
        }
    }

    fn halves(
        features: &Path,
        guidance: &Path,
        args: &InputArgs,
        perceptor: &Perceptor,
    ) -> Result<Self> {
        let upsampler = perceptor.manifest().upsampler.as_ref().context(
            "--features are for a bundle with an upsampler, and this has none; convert it with --upsampler-weights",
        )?;
        let array = npy::read(features)?;
        let features_path = features;
        let features = Features::from_map(&array.shape, &array.data, upsampler.dim)
            .with_context(|| features_path.display().to_string())?;
        let source = Source::open(guidance, args.orientation())?;
        let size = answer_size(&source, args.size, source.size(), guidance)?;
        Ok(Self {
            features,
            guidance: Some(source.at(size, perceptor)?),
            photo: source.photo(perceptor)?,
            backbone_seconds: None,
        })
    }

    fn image(path: &Path, args: &InputArgs, perceptor: &Perceptor) -> Result<Self> {
        let source = Source::open(path, args.orientation())?;
        let manifest = perceptor.manifest();
        let own = manifest.backbone.as_ref().map_or(source.size(), |b| b.size);
        let size = answer_size(&source, args.size, own, path)?;
        let looked_at = match &source {
            Source::Photo(_) => perceptor.backbone_size(size)?,
            // Fed as it is, or refused: an exact picture is never resampled.
            Source::Exact(picture) => picture.size,
        };
        if looked_at != size && args.size.is_some() && manifest.upsampler.is_some() {
            log::info!("the backbone looks at {looked_at}, the answer is {size}");
        }
        if let (Some(backbone), Some(_)) = (&manifest.backbone, args.size)
            && size.rounded_to(backbone.patch) != size
        {
            log::warn!(
                "{size} is not a multiple of the patch {}: the backbone looks at {looked_at}, {}",
                backbone.patch,
                if manifest.upsampler.is_some() {
                    format!("the answer is {size}")
                } else {
                    "and so is the answer".into()
                },
            );
        }
        let inputs = match &source {
            Source::Photo(photo) => perceptor.preprocess(photo, size)?,
            Source::Exact(image) => FrameInputs::same_size(image.clone()),
        };
        let start = std::time::Instant::now();
        let features = perceptor
            .features(inputs.backbone())
            .with_context(|| path.display().to_string())?;
        let backbone_seconds = Some(start.elapsed().as_secs_f64());
        let guidance = manifest.upsampler.is_some().then_some(inputs.guidance);
        Ok(Self {
            features,
            guidance,
            photo: source.photo(perceptor)?,
            backbone_seconds,
        })
    }
}

/// Size of the answer: what was asked for, or `own`.
fn answer_size(source: &Source, asked: Option<Size>, own: Size, path: &Path) -> Result<Size> {
    match (source, asked) {
        (Source::Exact(picture), Some(asked)) if asked != picture.size => anyhow::bail!(
            "{}: an exact picture of {} is not resampled; leave --size out or give a picture file",
            path.display(),
            picture.size
        ),
        (Source::Exact(picture), _) => Ok(picture.size),
        (Source::Photo(_), asked) => Ok(asked.unwrap_or(own)),
    }
}
