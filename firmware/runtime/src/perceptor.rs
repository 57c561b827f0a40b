//! A bundle loaded into an engine.

use std::{path::Path, sync::Arc};

use loftup_bundle::{Bundle, Linear, Manifest, Normalization, Precision, Size, UpsamplerKind};

use crate::{
    ColorRange, EncodedFrame, ExecutionOptions, Features, FrameInputs, Guidance, ImageTensor,
    NafStatistics, RuntimeError,
    backbone::Backbone,
    backend::{self, Backend, Choice, CpuBackend, Health, Settings},
    encoded_frame::{LoftUpFrame, Upsampling},
    filter::{jbu::JbuFrame, naf::NafUpsampler},
    fused,
    heads::Head,
    image::RgbImage,
    jbu::{Jbu, JbuOptions},
    self_test::{Part, SelfTest},
    upsampler::Upsampler,
    words::ChannelNorm,
};

/// A bundle loaded into an engine. It can be shared between threads.
///
/// Before an engine other than the CPU's returns its first output, it is compared with the bundle's
/// reference outputs. A wrong engine is an error ([`crate::backend::BackendError::Wrong`]), or is
/// replaced permanently if there is a fallback.
pub struct Perceptor {
    pub(crate) bundle: Arc<Bundle>,
    pub(crate) backend: Arc<dyn Backend>,
    backbone: Option<Backbone>,
    pub(crate) upsampler: Option<Upsampler>,
    /// The upsampler, if it is NAF.
    pub(crate) naf: Option<NafUpsampler>,
    options: ExecutionOptions,
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
    /// If the bundle is damaged, or has no precision that is available for every part.
    pub fn open(path: &Path, options: ExecutionOptions) -> Result<Self, RuntimeError> {
        let bundle = Bundle::open(path)?;
        let backend = backend::open(Choice::Auto, &Settings::default())?;
        Self::with_backend(bundle, backend, options)
    }

    /// Opens the bundle at `path` on the CPU even if TensorRT is installed. Outputs of two runs on the
    /// same machine are then bit-identical.
    ///
    /// # Errors
    /// Same as [`Perceptor::open`].
    pub fn open_on_cpu(path: &Path, options: ExecutionOptions) -> Result<Self, RuntimeError> {
        Self::with_backend(Bundle::open(path)?, Arc::new(CpuBackend), options)
    }

    /// Loads a bundle into an engine, in the engine's preferred precision.
    pub fn with_backend(
        bundle: Bundle,
        backend: Arc<dyn Backend>,
        options: ExecutionOptions,
    ) -> Result<Self, RuntimeError> {
        let there = bundle.manifest().precisions();
        let wanted = backend.precisions();
        let precision = wanted.into_iter().find(|p| there.contains(p));
        let precision = precision.ok_or_else(|| {
            bundle.lacks("precision in which every part is there", "convert it again")
        })?;
        Self::with_precision(bundle, backend, options, precision)
    }

    /// Loads the graphs of one precision of a bundle into an engine.
    pub fn with_precision(
        bundle: Bundle,
        backend: Arc<dyn Backend>,
        options: ExecutionOptions,
        precision: Precision,
    ) -> Result<Self, RuntimeError> {
        let bundle = Arc::new(bundle);
        let manifest = bundle.manifest();
        let backbone = manifest
            .backbone
            .clone()
            .map(|m| Backbone::new(&bundle, &backend, precision, m))
            .transpose()?;
        let of_kind = |kind| manifest.upsampler.as_ref().filter(|m| m.kind == kind);
        let upsampler = of_kind(UpsamplerKind::LoftUp)
            .cloned()
            .map(|m| Upsampler::new(&bundle, &backend, precision, m, options.clamped()))
            .transpose()?;
        let naf = of_kind(UpsamplerKind::Naf)
            .map(|m| NafUpsampler::new(&bundle, &backend, m, options.clamped()))
            .transpose()?;
        Ok(Self {
            backbone,
            upsampler,
            naf,
            backend,
            bundle,
            options,
            precision,
            tests: Default::default(),
        })
    }

    /// Threads and tile size.
    pub fn options(&self) -> ExecutionOptions {
        self.options
    }

    /// Changes threads and tile size.
    pub fn set_execution_options(&mut self, options: ExecutionOptions) {
        self.options = options;
        if let Some(upsampler) = &mut self.upsampler {
            upsampler.options = options.clamped();
            // Tiles of another size may need another engine.
            self.tests[Part::Upsampler as usize].reset();
        }
        if let Some(naf) = &mut self.naf {
            naf.options = options.clamped();
            self.tests[Part::Upsampler as usize].reset();
        }
    }

    /// The bundle's manifest.
    pub fn manifest(&self) -> &Manifest {
        self.bundle.manifest()
    }

    /// Name of the engine.
    pub fn backend(&self) -> &'static str {
        self.backend.name()
    }

    /// Precision of the loaded graphs.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Name, version and device of the engine in use.
    pub fn engine(&self) -> String {
        self.backend.describe()
    }

    /// Health of the engine: which one is in use, and why.
    pub fn health(&self) -> Health {
        self.backend.health()
    }

    /// Compiles everything for outputs of size `output`, so that the first frame is not delayed.
    /// `grid` is the rows and columns of the features; it is used only without a backbone.
    ///
    /// # Errors
    /// If an engine cannot be built, the build is cancelled, or its outputs do not match the
    /// bundle's reference outputs.
    pub fn compile(&self, output: Size, grid: (usize, usize)) -> Result<(), RuntimeError> {
        // First, since the test may switch to another engine, which is then the one to compile for.
        self.self_test(Part::Backbone)?;
        self.self_test(Part::Upsampler)?;
        let mut grid = grid;
        if let Some(backbone) = &self.backbone {
            let size = backbone.input_size(output);
            backbone.plan(size)?;
            grid = backbone.grid(size);
        }
        match (&self.upsampler, &self.naf) {
            (Some(upsampler), _) => upsampler.compile(output, grid),
            (None, Some(naf)) => naf.compile(output, grid),
            (None, None) => Ok(()),
        }
    }

    /// Input size of the backbone for an output of size `output`: its fixed size, or the nearest
    /// multiple of its patch size if it accepts any size.
    pub fn backbone_size(&self, output: Size) -> Result<Size, RuntimeError> {
        Ok(self.with_backbone()?.input_size(output))
    }

    /// Resizes an image and normalizes it with the bundle's mean and standard deviation.
    ///
    /// # Errors
    /// If a side is 0 or too long.
    pub fn to_tensor(&self, image: &RgbImage, size: Size) -> Result<ImageTensor, RuntimeError> {
        let Normalization { mean, std } = self.manifest().normalization;
        let resized = image.resized(size.width, size.height)?;
        Ok(ImageTensor {
            size,
            data: resized.normalized(mean, std),
        })
    }

    /// Preprocesses an image for an output of `size`.
    ///
    /// # Errors
    /// If a side is 0 or too long, or the bundle has no backbone.
    pub fn preprocess(&self, image: &RgbImage, size: Size) -> Result<FrameInputs, RuntimeError> {
        let input = self.backbone_size(size)?;
        let resized = (input != size)
            .then(|| self.to_tensor(image, input))
            .transpose()?;
        Ok(FrameInputs {
            guidance: self.to_tensor(image, size)?,
            resized,
        })
    }

    /// Runs the backbone.
    ///
    /// # Errors
    /// If the backbone does not accept images of this size, or the engine fails.
    pub fn features(&self, image: &ImageTensor) -> Result<Features, RuntimeError> {
        let backbone = self.with_backbone()?;
        self.self_test(Part::Backbone)?;
        backbone.features(&image.data, image.size)
    }

    /// Encodes an image for an output of `size`: resizes it, runs the backbone, and computes the
    /// keys. The cost of each output of the encoded frame is then proportional to its area.
    ///
    /// To run the steps in different threads, or to use features for several frames, see
    /// [`Perceptor::preprocess`], [`Perceptor::features`] and [`Perceptor::encode_features`].
    ///
    /// # Errors
    /// If a side is 0 or too long, the bundle has no backbone or no upsampler, or the engine
    /// fails.
    pub fn encode(
        &self,
        image: &RgbImage,
        size: Size,
        range: ColorRange,
    ) -> Result<EncodedFrame<'_>, RuntimeError> {
        let inputs = self.preprocess(image, size)?;
        let features = self.features(inputs.backbone())?;
        self.encode_features(&features, &inputs.guidance, range)
    }

    /// Encodes a frame from the backbone's features and the image at output resolution. Only LoftUp
    /// uses `range`; NAF normalizes by the statistics of the image.
    ///
    /// # Errors
    /// If the features have the wrong number of channels, the bundle has no upsampler, or the engine
    /// fails.
    pub fn encode_features(
        &self,
        features: &Features,
        guidance: &ImageTensor,
        range: ColorRange,
    ) -> Result<EncodedFrame<'_>, RuntimeError> {
        self.encode_video(features, guidance, range, &mut NafStatistics::every(1))
    }

    /// Same as [`Perceptor::encode_features`] for the next frame of a video, with the `statistics` of an
    /// earlier one if the upsampler is NAF.
    ///
    /// # Errors
    /// Same as [`Perceptor::encode_features`].
    pub fn encode_video(
        &self,
        features: &Features,
        guidance: &ImageTensor,
        range: ColorRange,
        statistics: &mut NafStatistics,
    ) -> Result<EncodedFrame<'_>, RuntimeError> {
        self.self_test(Part::Upsampler)?;
        self.encode_untested(features, guidance, range, statistics)
    }

    /// Encodes a frame for joint bilateral upsampling of the backbone's features, which needs no
    /// trained upsampler. The output is in the backbone's own feature space, so it needs other heads
    /// than LoftUp's output.
    ///
    /// # Panics
    /// If the data of `guidance` is not `[3, H, W]` for its size.
    pub fn encode_jbu(
        &self,
        features: Features,
        guidance: &ImageTensor,
        options: JbuOptions,
    ) -> EncodedFrame<'_> {
        let Size { width, height } = guidance.size;
        let image = guidance.to_rgb(&self.manifest().normalization);
        let grid = (features.width, features.height);
        EncodedFrame {
            upsampling: Upsampling::Filter(Box::new(JbuFrame {
                jbu: Jbu::new(options, grid, image, (width, height)),
                size: guidance.size,
                features,
                projected: None,
                options: self.options.clamped(),
            })),
            head: None,
        }
    }

    /// Same as [`Perceptor::encode_features`], without first comparing the engine with the reference outputs.
    pub(crate) fn encode_untested(
        &self,
        features: &Features,
        guidance: &ImageTensor,
        range: ColorRange,
        statistics: &mut NafStatistics,
    ) -> Result<EncodedFrame<'_>, RuntimeError> {
        if let Some(naf) = &self.naf {
            let frame = naf.encode(features, guidance, statistics)?;
            return Ok(EncodedFrame {
                upsampling: Upsampling::Filter(Box::new(frame)),
                head: None,
            });
        }
        let upsampler = self.upsampler.as_ref().ok_or_else(|| {
            self.bundle
                .lacks("upsampler", "convert again with --upsampler-weights")
        })?;
        let keys = Arc::new(upsampler.keys(features)?);
        let Size { width, height } = guidance.size;
        let guidance = Arc::new(Guidance::new(&guidance.data, width, height, range));
        Ok(EncodedFrame {
            upsampling: Upsampling::LoftUp(LoftUpFrame {
                upsampler,
                keys,
                guidance,
                test: false,
            }),
            head: None,
        })
    }

    /// The head called `name`, for [`EncodedFrame::with_head`].
    ///
    /// # Errors
    /// If the bundle has no such head, or it is damaged.
    pub fn head(&self, name: &str) -> Result<Head, RuntimeError> {
        let (manifest, linear) = self.bundle.head(name)?;
        self.custom_head(manifest, linear)
    }

    /// Reads a head from a separate file, for [`EncodedFrame::with_head`]: use it to change words in a running
    /// program. `loftup head text --out FILE.safetensors` writes such files.
    ///
    /// # Errors
    /// If the file cannot be read, is not a head file, or is for a different number of channels.
    pub fn head_from_file(&self, path: &Path) -> Result<Head, RuntimeError> {
        let wrong = |what: String| RuntimeError::HeadFile {
            path: path.into(),
            what,
        };
        let bytes = std::fs::read(path).map_err(|e| wrong(e.to_string()))?;
        let (manifest, linear) = loftup_bundle::Head::from_file(&bytes).map_err(wrong)?;
        let expected = self.features_dim().unwrap_or(manifest.dim);
        if manifest.dim != expected {
            return Err(wrong(format!(
                "it is for features of {} channels, but this bundle has {expected}",
                manifest.dim
            )));
        }
        self.custom_head(manifest, linear)
    }

    /// Creates a head from its weights, for [`EncodedFrame::with_head`]. A text head also gets the
    /// upsampler's channel norm, which maps the output back to the backbone's space.
    ///
    /// # Errors
    /// If the shape of the weights does not match, or the bundle cannot be read.
    pub fn custom_head(
        &self,
        manifest: loftup_bundle::Head,
        linear: Linear,
    ) -> Result<Head, RuntimeError> {
        let mut head = Head::new(manifest, linear)?;
        if let (true, Some(upsampler)) = (head.is_words(), &self.manifest().upsampler)
            && upsampler.kind == UpsamplerKind::LoftUp
            && let Some(files) = upsampler.graphs.get(&Precision::Fp32)
        {
            let keys = self.bundle.read(&files.keys)?;
            let norm = loftup_onnx::loftup::read_channel_norm(&keys, upsampler.dim);
            // Must be the same epsilon as in the moments.
            let norm = norm.filter(|(_, eps)| *eps == loftup_spec::EPS);
            head.norm = norm.map(|(norm, _)| ChannelNorm::new(&norm));
        }
        Ok(head)
    }

    /// Number of values that the engine returns per pixel for the features or the outputs of `head`,
    /// which a GPU has to copy. 0 without an upsampler.
    pub fn values_per_pixel(&self, head: Option<&Head>) -> usize {
        let Some(manifest) = &self.manifest().upsampler else {
            return 0;
        };
        let fused = self.upsampler.as_ref().and_then(|u| u.fused_heads());
        let graphs = self.naf.as_ref().is_some_and(NafUpsampler::has_graphs);
        match head {
            Some(head) if fused.is_some() => fused::values_per_pixel(head),
            Some(head) if graphs && !head.is_words() => head.kind().rows(),
            _ => manifest.dim,
        }
    }

    /// Number of channels of the features, before and after upsampling.
    fn features_dim(&self) -> Option<usize> {
        let m = self.manifest();
        let upsampler = m.upsampler.as_ref().map(|u| u.dim);
        upsampler.or(m.backbone.as_ref().map(|b| b.dim))
    }

    pub(crate) fn with_backbone(&self) -> Result<&Backbone, RuntimeError> {
        let remedy = "give features instead of an image (--features lr.npy --guidance image)";
        Ok(self
            .backbone
            .as_ref()
            .ok_or_else(|| self.bundle.lacks("backbone", remedy))?)
    }
}
