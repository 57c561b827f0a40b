//! The outline of a vision transformer, known before its weights are read.

use super::{
    Activation, Dimensions, Family, Origin, Positions, Preset, Setting, Undecided, VitError,
    VitOptions,
    config_file::{ConfigFiles, ModelConfig},
    names::{Mlp, Tower},
    published,
    schemes::Library,
};

/// The outline of a vision transformer, known before its weights are read. Heads and activation
/// come from the options, the config files, or the published model with these dimensions, in this
/// order; if none determines them, they are errors.
#[derive(Debug)]
#[non_exhaustive]
pub struct Outline {
    /// The kind of transformer.
    pub family: Family,
    /// Patch, width and depth.
    pub dimensions: Dimensions,
    /// Register tokens.
    pub registers: usize,
    /// Side of the square grid of patches on which the position embeddings were trained.
    pub grid: usize,
    /// Attention heads.
    pub heads: Result<Setting<usize>, VitError>,
    /// Activation of the MLPs.
    pub activation: Result<Setting<Activation>, VitError>,
    /// How position embeddings are resampled for other grids.
    pub positions: Setting<Positions>,
    /// Epsilon of all layer norms.
    pub eps: f32,
    /// Mean, subtracted from colors in 0 to 1.
    pub mean: [f32; 3],
    /// Standard deviation, by which they are then divided.
    pub std: [f32; 3],
    /// Origin of mean and standard deviation.
    pub normalization: Origin,
}

impl Outline {
    /// Backbone names ([`Preset::parse`]) that match these dimensions.
    pub fn names(&self) -> Vec<&'static str> {
        Preset::fitting(self.family, self.registers > 0, self.dimensions)
    }

    pub(super) fn of(
        tower: &Tower<'_>,
        options: &VitOptions,
        files: &ConfigFiles,
    ) -> Result<Self, VitError> {
        let family = tower.family()?;
        let (width, patch) = tower.patch_shape()?;
        let dimensions = Dimensions {
            patch,
            width,
            depth: tower.depth(),
        };
        let registers = tower.registers(width)?;
        let grid = tower.grid(width)?;
        // Missing tensors are reported when the weights are read.
        let swiglu = tower
            .mlp(0)
            .is_ok_and(|(mlp, _)| !matches!(mlp, Mlp::Plain(_)));
        let library = tower.scheme.library;
        let config = files.model(library);
        if let Some(config) = config {
            check(tower, config, family, dimensions, registers, grid, swiglu)?;
        }
        let (mut mean, mut std) = normalization(family);
        let mut normalization = Origin::PublishedModel;
        if let Some(given) = files.normalization(library) {
            if (given.mean, given.std) != (mean, std) {
                log::info!(
                    "{}: mean {:?} and standard deviation {:?}, instead of the usual {mean:?} and {std:?} of {family}",
                    given.path.display(),
                    given.mean,
                    given.std
                );
            }
            (mean, std) = (given.mean, given.std);
            normalization = config
                .filter(|c| c.path == given.path)
                .map_or(Origin::ConfigJson, |c| c.origin);
        }
        let known = Known {
            tower,
            family,
            dimensions,
            grid,
            config,
        };
        Ok(Self {
            family,
            dimensions,
            registers,
            grid,
            heads: known.heads(options.heads),
            activation: known.activation(options.activation, swiglu),
            positions: match options.positions {
                Some(positions) => Setting::new(positions, Origin::CommandLine),
                None => Setting::new(Positions::default(), Origin::Default),
            },
            eps: config
                .and_then(|c| c.eps)
                .unwrap_or(if family == Family::Clip { 1e-5 } else { 1e-6 }),
            mean,
            std,
            normalization,
        })
    }
}

/// The key for looking up heads and activation.
struct Known<'a> {
    tower: &'a Tower<'a>,
    family: Family,
    dimensions: Dimensions,
    grid: usize,
    config: Option<&'a ModelConfig>,
}

impl Known<'_> {
    fn heads(&self, given: Option<usize>) -> Result<Setting<usize>, VitError> {
        let config = self.config.and_then(|c| Some((c.heads?, c.origin)));
        let published = published::heads(self.family, self.dimensions);
        let (heads, from) = given
            .map(|heads| (heads, Origin::CommandLine))
            .or(config)
            .or(published.map(|heads| (heads, Origin::PublishedModel)))
            .ok_or_else(|| self.undecided("number of attention heads", self.likely_heads()))?;
        let width = self.dimensions.width;
        if heads == 0 || !width.is_multiple_of(heads) {
            return Err(VitError::Heads {
                path: self.tower.path(),
                width,
                what: format!("{heads} attention heads ({from}) are impossible"),
            });
        }
        Ok(Setting::new(heads, from))
    }

    fn likely_heads(&self) -> String {
        let width = self.dimensions.width;
        match width.is_multiple_of(64) {
            true => format!(
                "--heads N (most models have heads of 64 channels: {})",
                width / 64
            ),
            false => "--heads N".into(),
        }
    }

    fn activation(
        &self,
        given: Option<Activation>,
        swiglu: bool,
    ) -> Result<Setting<Activation>, VitError> {
        if swiglu {
            if let Some(given) = given {
                let what =
                    format!("its MLPs are SwiGLU, which --activation {given} cannot replace");
                return Err(VitError::Unsupported {
                    path: self.tower.path(),
                    what,
                });
            }
            return Ok(Setting::new(Activation::SwiGlu, Origin::Weights));
        }
        if let Some(given) = given {
            return Ok(Setting::new(given, Origin::CommandLine));
        }
        if let Some((activation, origin)) =
            self.config.and_then(|c| Some((c.activation?, c.origin)))
        {
            return Ok(Setting::new(activation, origin));
        }
        let library = self.tower.scheme.library;
        if self.family == Family::Clip
            && library == Library::OpenAi
            && self.tower.is_openai_archive()
        {
            return Ok(Setting::new(Activation::QuickGelu, Origin::Weights));
        }
        published::activation(self.family, self.dimensions, self.grid, library)
            .map(|activation| Setting::new(activation, Origin::PublishedModel))
            .map_err(|candidates| {
                self.undecided("activation", format!("--activation {candidates}"))
            })
    }

    fn undecided(&self, name: &'static str, option: String) -> VitError {
        VitError::Undecided {
            path: self.tower.path(),
            model: format!("{} with {}", self.family, self.dimensions),
            settings: vec![Undecided { name, option }],
        }
    }
}

/// Rejects a config file that belongs to other weights.
fn check(
    tower: &Tower<'_>,
    config: &ModelConfig,
    family: Family,
    found: Dimensions,
    registers: usize,
    grid: usize,
    swiglu: bool,
) -> Result<(), VitError> {
    let differs = |given: String, found: String| {
        Err(VitError::Contradiction {
            config: config.path.clone(),
            weights: tower.path(),
            given,
            found,
        })
    };
    if config.family != family {
        return differs(config.family.to_string(), family.to_string());
    }
    let numbers = [
        ("width", config.width, found.width),
        ("depth", config.depth, found.depth),
        ("patch", config.patch, found.patch),
        ("register tokens", config.registers, registers),
        (
            "position grid",
            config.image.map(|image| image / found.patch),
            grid,
        ),
    ];
    for (what, given, found) in numbers {
        if let Some(given) = given
            && given != found
        {
            return differs(format!("{what} {given}"), format!("{what} {found}"));
        }
    }
    let mlp = |swiglu| {
        (if swiglu {
            "a SwiGLU MLP"
        } else {
            "a plain MLP"
        })
        .to_string()
    };
    match config.swiglu {
        Some(given) if given != swiglu => differs(mlp(given), mlp(swiglu)),
        _ => Ok(()),
    }
}

/// Mean and standard deviation of a family's training images.
fn normalization(family: Family) -> ([f32; 3], [f32; 3]) {
    match family {
        // ImageNet's.
        Family::DinoV2 => ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        // OpenAI's.
        Family::Clip => (
            [0.481_454_66, 0.457_827_5, 0.408_210_73],
            [0.268_629_54, 0.261_302_6, 0.275_777_1],
        ),
        Family::SigLip => ([0.5; 3], [0.5; 3]),
    }
}
