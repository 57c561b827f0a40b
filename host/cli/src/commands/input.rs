//! Reads the inputs given on the command line.

use std::path::Path;

use anyhow::{Context, Result};
use loftup_bundle::Size;
use loftup_runtime::{
    Features, FrameInputs, ImageTensor, Perceptor,
    image::{self, Orientation, RgbImage},
    npy,
};

use crate::args::InputArgs;

/// The inputs of the upsampler.
pub struct Input {
    /// Features of the backbone.
    pub features: Features,
    /// The image at the resolution of the output; `None` if nothing upsamples.
    pub guidance: Option<ImageTensor>,
    /// The image for visualizations.
    pub photo: RgbImage,
    /// Seconds spent in the backbone, if it ran.
    pub backbone_seconds: Option<f64>,
}

/// An image file, or an array that is already normalized.
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
            let image = ImageTensor::from_array(npy::read(path)?);
            return Ok(Self::Exact(
                image.with_context(|| path.display().to_string())?,
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

    /// Normalized, at `size`. An array is used as it is.
    fn at(&self, size: Size, perceptor: &Perceptor) -> Result<ImageTensor> {
        match self {
            Self::Photo(photo) => Ok(perceptor.to_tensor(photo, size)?),
            Self::Exact(image) => Ok(image.clone()),
        }
    }

    /// As an RGB image.
    fn photo(&self, perceptor: &Perceptor) -> Result<RgbImage> {
        match self {
            Self::Photo(photo) => Ok(photo.clone()),
            Self::Exact(image) => {
                let rgb = image.to_rgb(&perceptor.manifest().normalization);
                Ok(RgbImage::new(image.size.width, image.size.height, rgb)?)
            }
        }
    }
}

impl Input {
    /// Reads the files and runs the backbone. With `jbu`, the bundle needs no upsampler.
    pub fn read(args: &InputArgs, perceptor: &Perceptor, jbu: bool) -> Result<Self> {
        match (&args.features, &args.guidance, &args.image) {
            (Some(features), Some(guidance), _) => {
                Self::features(features, guidance, args, perceptor, jbu)
            }
            (_, _, Some(image)) => Self::image(image, args, perceptor, jbu),
            _ => anyhow::bail!("give --image, or --features with --guidance"),
        }
    }

    fn features(
        path: &Path,
        guidance: &Path,
        args: &InputArgs,
        perceptor: &Perceptor,
        jbu: bool,
    ) -> Result<Self> {
        let manifest = perceptor.manifest();
        let dim = match (&manifest.upsampler, &manifest.backbone) {
            (Some(upsampler), _) => upsampler.dim,
            (None, Some(backbone)) if jbu => backbone.dim,
            _ => anyhow::bail!(
                "--features needs a bundle with an upsampler, and this one has none; convert it with --upsampler-weights"
            ),
        };
        let array = npy::read(path)?;
        let features = Features::from_map(&array.shape, &array.data, dim)
            .with_context(|| path.display().to_string())?;
        let source = Source::open(guidance, args.orientation())?;
        let size = output_size(&source, args.size, source.size(), guidance)?;
        Ok(Self {
            features,
            guidance: Some(source.at(size, perceptor)?),
            photo: source.photo(perceptor)?,
            backbone_seconds: None,
        })
    }

    fn image(path: &Path, args: &InputArgs, perceptor: &Perceptor, jbu: bool) -> Result<Self> {
        let source = Source::open(path, args.orientation())?;
        Self::of(source, path, args, perceptor, jbu)
    }

    /// Runs the backbone on a frame of a video; `shown` names it in messages.
    pub fn frame(
        photo: RgbImage,
        shown: &str,
        args: &InputArgs,
        perceptor: &Perceptor,
        jbu: bool,
    ) -> Result<Self> {
        Self::of(Source::Photo(photo), shown.as_ref(), args, perceptor, jbu)
    }

    fn of(
        source: Source,
        path: &Path,
        args: &InputArgs,
        perceptor: &Perceptor,
        jbu: bool,
    ) -> Result<Self> {
        let manifest = perceptor.manifest();
        let upsampled = jbu || manifest.upsampler.is_some();
        let own = manifest.backbone.as_ref().map_or(source.size(), |b| b.size);
        let size = output_size(&source, args.size, own, path)?;
        let input_size = match &source {
            Source::Photo(_) => perceptor.backbone_size(size)?,
            // Never resampled: used as it is, or refused.
            Source::Exact(image) => image.size,
        };
        if input_size != size && args.size.is_some() && upsampled {
            log::info!("the backbone runs at {input_size}, the output is {size}");
        }
        if let (Some(backbone), Some(_)) = (&manifest.backbone, args.size)
            && size.rounded_to(backbone.patch) != size
        {
            log::warn!(
                "{size} is not a multiple of the patch {}: the backbone runs at {input_size}, {}",
                backbone.patch,
                if upsampled {
                    format!("the output is {size}")
                } else {
                    "and so is the output".into()
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
        let guidance = upsampled.then_some(inputs.guidance);
        Ok(Self {
            features,
            guidance,
            photo: source.photo(perceptor)?,
            backbone_seconds,
        })
    }
}

/// Size of the output: as requested, or `own`.
fn output_size(source: &Source, requested: Option<Size>, own: Size, path: &Path) -> Result<Size> {
    match (source, requested) {
        (Source::Exact(image), Some(requested)) if requested != image.size => anyhow::bail!(
            "{}: a normalized array of {} is not resampled; omit --size, or give an image file",
            path.display(),
            image.size
        ),
        (Source::Exact(image), _) => Ok(image.size),
        (Source::Photo(_), requested) => Ok(requested.unwrap_or(own)),
    }
}
