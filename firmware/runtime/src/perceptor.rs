//! A bundle in an engine, ready to be asked.

use std::{path::Path, sync::Arc};

use loftup_bundle::{Bundle, Manifest, Normalization, Precision, Size};

use crate::{
    ColorRange, Features, Guidance, RuntimeError, View,
    backbone::Backbone,
    backend::{self, Backend, Choice, CpuBackend, Health, Settings},
    error::check_finite,
    heads::Head,
    image::Rgb8,
    npy,
    self_test::{Part, SelfTest},
    upsampler::{Division, Upsampler},
};

/// How a bundle is run.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Threads that compute tiles.
    pub threads: usize,
    /// Longest side of a tile in pixels. `None` chooses by the question.
    pub tile: Option<usize>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            tile: None,
        }
    }
}

/// A bundle in an engine. It can be shared between threads.
///
/// Before the first output of an engine other than the CPU's is handed out, it is compared with
/// the reference outputs of the bundle. An engine that is wrong is an error
/// ([`crate::backend::BackendError::Wrong`]), or is replaced for good where another one stands by.
pub struct Perceptor {
    pub(crate) bundle: Arc<Bundle>,
    pub(crate) backend: Arc<dyn Backend>,
    backbone: Option<Backbone>,
    pub(crate) upsampler: Option<Upsampler>,
    options: Options,
    precision: Precision,
    /// By [`Part`].
    pub(crate) tests: [SelfTest; 2],
}

impl Perceptor {
    /// Opens the bundle at `path` on the best engine of this machine: TensorRT where it is
    /// installed and works, the CPU otherwise ([`Choice::Auto`] with default settings). Every file
    /// of the bundle is checked.
    ///
    /// # Errors
    /// Where the bundle is damaged, or has no precision in which every part is there.
    pub fn open(path: &Path, options: Options) -> Result<Self, RuntimeError> {
        let bundle = Bundle::open(path)?;
        let backend = backend::open(Choice::Auto, &Settings::default())?;
        Self::with_backend(bundle, backend, options)
    }

    /// Opens the bundle at `path` on the CPU, whatever else there is: for outputs that are the same
    /// to the bit as those of another run on this machine.
    ///
    /// # Errors
    /// As [`Perceptor::open`].
    pub fn open_on_cpu(path: &Path, options: Options) -> Result<Self, RuntimeError> {
        Self::with_backend(Bundle::open(path)?, Arc::new(CpuBackend), options)
    }

    /// Puts a bundle into an engine, in the precision that the engine likes best.
    pub fn with_backend(
        bundle: Bundle,
        backend: Arc<dyn Backend>,
        options: Options,
    ) -> Result<Self, RuntimeError> {
        let there = bundle.manifest().precisions();
        let wanted = backend.precisions();
        let precision = wanted.into_iter().find(|p| there.contains(p));
        let precision = precision.ok_or_else(|| {
            bundle.lacks("precision in which every part is there", "convert it again")
        })?;
        Self::with_precision(bundle, backend, options, precision)
    }

    /// Puts the graphs of one precision of a bundle into an engine.
    pub fn with_precision(
        bundle: Bundle,
        backend: Arc<dyn Backend>,
        options: Options,
        precision: Precision,
    ) -> Result<Self, RuntimeError> {
        let bundle = Arc::new(bundle);
        let manifest = bundle.manifest();
        let backbone = manifest
            .backbone
            .clone()
            .map(|m| Backbone::new(&bundle, &backend, precision, m))
            .transpose()?;
        let upsampler = manifest
            .upsampler
            .clone()
            .map(|m| Upsampler::new(&bundle, &backend, precision, m, division(options)))
            .transpose()?;
        Ok(Self {
            backbone,
            upsampler,
            backend,
            bundle,
            options,
            precision,
            tests: Default::default(),
        })
    }

    /// How work is divided.
    pub fn options(&self) -> Options {
        self.options
    }

    /// Divides work in another way from now on.
    pub fn divide(&mut self, options: Options) {
        self.options = options;
        if let Some(upsampler) = &mut self.upsampler {
            upsampler.division = division(options);
            // Tiles of another size may need another engine.
            self.tests[Part::Upsampler as usize].reset();
        }
    }

    /// What the bundle says of itself.
    pub fn manifest(&self) -> &Manifest {
        self.bundle.manifest()
    }

    /// Name of the engine.
    pub fn backend(&self) -> &'static str {
        self.backend.name()
    }

    /// Precision of the graphs that were taken from the bundle.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Name, version and device of the engine that answers now.
    pub fn engine(&self) -> String {
        self.backend.describe()
    }

    /// How the engine is: which one answers now, and why.
    pub fn health(&self) -> Health {
        self.backend.health()
    }

    /// Compiles everything for frames of size `answer`, so that the first of them need not wait.
    /// `grid`, rows and columns, is that of the features where the bundle has no backbone.
    ///
    /// # Errors
    /// Where an engine cannot be built, or the build is cancelled, or what it computes is not as
    /// the bundle's reference outputs.
    pub fn compile(&self, answer: Size, grid: (usize, usize)) -> Result<(), RuntimeError> {
        // First: where another engine takes over, it is the one to compile for.
        self.self_test(Part::Backbone)?;
        self.self_test(Part::Upsampler)?;
        let mut grid = grid;
        if let Some(backbone) = &self.backbone {
            let size = backbone.input_size(answer);
            backbone.plan(size)?;
            grid = backbone.grid(size);
        }
        match &self.upsampler {
            Some(upsampler) => upsampler.compile(answer, grid),
            None => Ok(()),
        }
    }

    /// The size at which the backbone looks at a picture whose answer has size `answer`: its own,
    /// or where it takes any size, the nearest multiple of its patch.
    pub fn backbone_size(&self, answer: Size) -> Result<Size, RuntimeError> {
        Ok(self.with_backbone()?.input_size(answer))
    }

    /// Features of a photograph, which is resized to `size`.
    pub fn features(&self, photo: &Rgb8, size: Size) -> Result<Features, RuntimeError> {
        self.features_of(&self.prepare(photo, size)?)
    }

    /// Features of a prepared picture.
    pub fn features_of(&self, picture: &Picture) -> Result<Features, RuntimeError> {
        let backbone = self.with_backbone()?;
        self.self_test(Part::Backbone)?;
        backbone.features(&picture.data, picture.size)
    }

    /// A photograph resized and normalized as the bundle says.
    pub fn prepare(&self, photo: &Rgb8, size: Size) -> Result<Picture, RuntimeError> {
        let Normalization { mean, std } = self.manifest().normalization;
        let resized = photo.resized(size.width, size.height)?;
        Ok(Picture {
            size,
            data: resized.normalized(mean, std),
        })
    }

    /// A frame that can be asked, from the backbone's features and the picture at the resolution
    /// of the answer.
    pub fn view(
        &self,
        features: &Features,
        guidance: &Picture,
        range: ColorRange,
    ) -> Result<View<'_>, RuntimeError> {
        self.self_test(Part::Upsampler)?;
        self.untested_view(features, guidance, range)
    }

    /// [`Perceptor::view`] on an engine that need not have been compared.
    pub(crate) fn untested_view(
        &self,
        features: &Features,
        guidance: &Picture,
        range: ColorRange,
    ) -> Result<View<'_>, RuntimeError> {
        let upsampler = self.upsampler.as_ref().ok_or_else(|| {
            self.bundle
                .lacks("upsampler", "convert again with --upsampler-weights")
        })?;
        let keys = Arc::new(upsampler.keys(features)?);
        let Size { width, height } = guidance.size;
        let guidance = Arc::new(Guidance::new(&guidance.data, width, height, range));
        Ok(View {
            upsampler,
            keys,
            guidance,
            head: None,
        })
    }

    /// The head called `name`, to see a [`View`] through.
    ///
    /// # Errors
    /// Where the bundle has no such head, or it is damaged.
    pub fn head(&self, name: &str) -> Result<Head, RuntimeError> {
        let (manifest, linear) = self.bundle.head(name)?;
        Head::new(manifest, linear)
    }

    pub(crate) fn with_backbone(&self) -> Result<&Backbone, RuntimeError> {
        let remedy = "give features instead of a picture (--features lr.npy --guidance image)";
        Ok(self
            .backbone
            .as_ref()
            .ok_or_else(|| self.bundle.lacks("backbone", remedy))?)
    }
}

fn division(options: Options) -> Division {
    Division {
        threads: options.threads.max(1),
        // No answer is longer; what is added to it must not overflow.
        tile: options.tile.map(|side| side.min(Size::LONGEST_SIDE)),
    }
}

/// A normalized picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Picture {
    /// Its size.
    pub size: Size,
    /// `[3, H, W]`.
    pub data: Vec<f32>,
}

impl Picture {
    /// Takes an array `[1, 3, H, W]` that is normalized already.
    ///
    /// # Errors
    /// Where it has another shape or holds NaN.
    pub fn from_array(array: npy::Array) -> Result<Self, RuntimeError> {
        match array.shape[..] {
            [1, 3, height, width] if height > 0 && width > 0 => {
                check_finite("the picture's values", &array.data)?;
                Ok(Self {
                    size: Size { width, height },
                    data: array.data,
                })
            }
            _ => Err(RuntimeError::PictureShape { found: array.shape }),
        }
    }
}
