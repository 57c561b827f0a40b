//! The outline of a vision transformer, known before its weights are read.

use loftup_bundle::Normalization;

use super::{
    Activation, Dimensions, Family, Origin, Positions, Preset, Setting, VitError, VitOptions,
    config_file::ConfigFiles,
    known::Known,
    model_config::ModelConfig,
    names::{MlpForm, Tower},
    preset::Variant,
    schemes::Position,
};

/// How patches get their positions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum PositionEmbedding {
    /// Learned embeddings, added to the patches.
    Learned {
        /// Side of the (square) grid of patches on which they were trained.
        grid: usize,
        /// How they are resampled for other grids.
        resampling: Setting<Positions>,
    },
    /// Rotary embeddings of queries and keys, computed for any grid.
    Rotary {
        /// The base of the periods, `theta^(4 k / head width)`; `None` if the weights have periods.
        theta: Option<f32>,
        /// Origin of the periods.
        from: Origin,
    },
}

impl PositionEmbedding {
    /// Side of the grid of patches of learned embeddings.
    pub fn grid(&self) -> Option<usize> {
        match self {
            Self::Learned { grid, .. } => Some(*grid),
            Self::Rotary { .. } => None,
        }
    }
}

/// The outline of a vision transformer, known before its weights are read. Heads, activation and
/// colors come from the options, the config files, or the published model with these dimensions, in
/// this order; if none determines them, they are errors.
#[derive(Debug)]
#[non_exhaustive]
pub struct Outline {
    /// The kind of transformer.
    pub family: Family,
    /// Patch, width and depth.
    pub dimensions: Dimensions,
    /// Register tokens.
    pub registers: usize,
    /// Attention heads.
    pub heads: Result<Setting<usize>, VitError>,
    /// Activation of the MLPs.
    pub activation: Result<Setting<Activation>, VitError>,
    /// Whether the MLPs are SwiGLU.
    pub swiglu: bool,
    /// How patches get their positions.
    pub position: PositionEmbedding,
    /// Epsilon of all layer norms.
    pub eps: f32,
    /// Mean and standard deviation of the colors.
    pub colors: Result<Setting<Normalization>, VitError>,
}

impl Outline {
    /// Backbone names ([`Preset::parse`]) that match these dimensions.
    pub fn names(&self) -> Vec<&'static str> {
        Preset::fitting(self.family, self.variant(), self.dimensions)
    }

    pub(super) fn variant(&self) -> Variant {
        match self.family {
            Family::DinoV3 if self.swiglu => Variant::Plus,
            Family::DinoV2 if self.registers > 0 => Variant::Registers,
            _ => Variant::Plain,
        }
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
        // Missing tensors are reported when the weights are read.
        let swiglu = tower
            .mlp(0)
            .is_ok_and(|(mlp, _)| !matches!(mlp, MlpForm::Plain(_)));
        let config = files.model(tower.scheme.library);
        let position = position(tower, width, options.positions, config)?;
        if let Some(config) = config {
            let grid = position.grid();
            check(tower, config, family, dimensions, registers, grid, swiglu)?;
        }
        let known = Known {
            tower,
            family,
            dimensions,
            grid: position.grid(),
            config,
        };
        Ok(Self {
            family,
            dimensions,
            registers,
            heads: known.heads(options.heads),
            activation: known.activation(options.activation, swiglu),
            swiglu,
            position,
            eps: config.and_then(|c| c.eps).unwrap_or(match family {
                Family::Clip | Family::DinoV3 => 1e-5,
                Family::DinoV2 | Family::SigLip => 1e-6,
            }),
            colors: known.colors(options, files),
        })
    }
}

fn position(
    tower: &Tower<'_>,
    width: usize,
    given: Option<Positions>,
    config: Option<&ModelConfig>,
) -> Result<PositionEmbedding, VitError> {
    let rotary = matches!(tower.scheme.position, Position::Rotary(_));
    match given {
        Some(positions) if rotary => {
            let what = format!(
                "--positions {positions} selects how learned position embeddings are resampled, and this model has rotary ones, which all libraries compute alike at every size; omit --positions"
            );
            Err(VitError::Unsupported {
                path: tower.path(),
                what,
            })
        }
        _ if rotary => Ok(match config.and_then(|c| Some((c.rope_theta?, c.origin))) {
            _ if tower.stored_periods()?.is_some() => PositionEmbedding::Rotary {
                theta: None,
                from: Origin::Weights,
            },
            Some((theta, from)) => PositionEmbedding::Rotary {
                theta: Some(theta),
                from,
            },
            None => PositionEmbedding::Rotary {
                theta: Some(100.0),
                from: Origin::PublishedModel,
            },
        }),
        _ => Ok(PositionEmbedding::Learned {
            grid: tower.grid(width)?,
            resampling: match given {
                Some(positions) => Setting::new(positions, Origin::CommandLine),
                None => Setting::new(Positions::default(), Origin::Default),
            },
        }),
    }
}

/// Rejects a config file that belongs to other weights.
fn check(
    tower: &Tower<'_>,
    config: &ModelConfig,
    family: Family,
    found: Dimensions,
    registers: usize,
    grid: Option<usize>,
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
    let image = config.image.map(|image| image / found.patch);
    let numbers = [
        ("width", config.width, Some(found.width)),
        ("depth", config.depth, Some(found.depth)),
        ("patch", config.patch, Some(found.patch)),
        ("register tokens", config.registers, Some(registers)),
        ("position grid", image, grid),
    ];
    for (what, given, found) in numbers {
        if let Some((given, found)) = given.zip(found)
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
