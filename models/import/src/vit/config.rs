//! The configuration of a backbone, from its weights, the config files next to them, and the table
//! of published models.

use loftup_bundle::Architecture;

use super::{
    Activation, Dimensions, Family, Origin, PositionEmbedding, Preset, Setting, VitError,
    VitOptions, config_file::ConfigFiles, names::Tower, outline::Outline, preset::Variant,
};
use crate::transformer::Shape;

/// The complete configuration of a backbone.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct VitConfig {
    /// The name under which it was requested.
    pub preset: Preset,
    /// Side of a patch, in pixels.
    pub patch: usize,
    /// Channels of the transformer.
    pub width: usize,
    /// Channels of the feature map.
    pub dim: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Attention heads of a block.
    pub heads: Setting<usize>,
    /// Register tokens.
    pub registers: usize,
    /// Epsilon of all layer norms.
    pub eps: f32,
    /// Activation of the MLPs.
    pub activation: Setting<Activation>,
    /// Whether SigLIP's pooling head is applied to each token.
    pub text_space: bool,
    /// How patches get their positions.
    pub position: PositionEmbedding,
    /// Mean of each color (red, green, blue; 0 to 1), subtracted from the image.
    pub mean: [f32; 3],
    /// Standard deviation of each color, by which it is then divided.
    pub std: [f32; 3],
    /// Origin of mean and standard deviation.
    pub normalization: Origin,
}

impl VitConfig {
    /// Maximum number of patches of an image: the cost of attention is quadratic in it.
    pub const MAX_PATCHES: usize = 1 << 16;

    /// The architecture entry of a bundle's manifest.
    pub fn architecture(&self) -> Architecture {
        let (position_grid, positions, rotary_periods) = match self.position {
            PositionEmbedding::Learned { grid, resampling } => (Some(grid), Some(resampling), None),
            PositionEmbedding::Rotary { from, .. } => (None, None, Some(from)),
        };
        Architecture {
            family: self.family(),
            width: self.width,
            depth: self.depth,
            registers: self.registers,
            position_grid,
            heads: self.heads,
            activation: self.activation,
            positions,
            rotary_periods,
            text_space: self.text_space,
            normalization: self.normalization,
        }
    }

    /// The kind of transformer.
    pub fn family(&self) -> Family {
        self.preset.family()
    }

    /// Patch, width and depth.
    pub fn dimensions(&self) -> Dimensions {
        Dimensions {
            patch: self.patch,
            width: self.width,
            depth: self.depth,
        }
    }

    /// Default width and height in pixels: 224, or the nearest multiple of the patch size.
    pub fn default_size(&self) -> (usize, usize) {
        let side = ((224 + self.patch / 2) / self.patch).max(1) * self.patch;
        (side, side)
    }

    /// Columns and rows of patches of an image of `width` x `height` pixels.
    ///
    /// # Errors
    /// A side is not a positive multiple of the patch size, or there are more than
    /// [`Self::MAX_PATCHES`] patches.
    pub fn grid_of(&self, width: usize, height: usize) -> Result<(usize, usize), VitError> {
        let patch = self.patch;
        if [width, height]
            .iter()
            .any(|&side| side == 0 || !side.is_multiple_of(patch))
        {
            return Err(VitError::Size {
                width,
                height,
                patch,
            });
        }
        let patches = (width / patch).saturating_mul(height / patch);
        if patches > Self::MAX_PATCHES {
            return Err(VitError::TooLarge {
                width,
                height,
                patch,
                patches,
            });
        }
        Ok((width / patch, height / patch))
    }

    /// The shape of its blocks.
    pub(super) fn shape(&self) -> Shape {
        Shape {
            batch: 1,
            width: self.width,
            heads: self.heads.value,
            activation: self.activation.value,
            eps: self.eps,
        }
    }

    /// Reads the configuration from the outline of a checkpoint, for the backbone `preset`.
    pub(super) fn read(
        tower: &Tower<'_>,
        preset: Preset,
        options: &VitOptions,
        files: &ConfigFiles,
    ) -> Result<Self, VitError> {
        let outline = Outline::of(tower, options, files)?;
        let family = outline.family;
        let registers = outline.registers;
        let fitting = outline.names();
        if family != preset.family() {
            return Err(VitError::WrongFamily {
                path: tower.path(),
                found: family,
                asked: preset.family(),
                suggestion: fitting[0],
            });
        }
        if preset.registers() && registers == 0 {
            return Err(VitError::NoRegisters {
                path: tower.path(),
                asked: preset.name(),
                suggestion: fitting[0],
            });
        }
        if options.heads.is_none() && !preset.fits(outline.variant(), outline.dimensions) {
            return Err(wrong_size(tower, preset, outline.dimensions, &fitting));
        }
        if outline.variant() == Variant::Registers && !preset.registers() {
            let (path, name) = (tower.path(), preset.name());
            log::info!(
                "{}: the weights have {registers} register tokens, which {name} does not mention; using them",
                path.display()
            );
        }
        if options.text_space && !matches!(family, Family::Clip | Family::SigLip) {
            return Err(tower.unsupported(format!(
                "features of {family} in the space of texts: it was trained without texts; omit --text-space, or use a SigLIP or CLIP model"
            )));
        }
        let settings = both(outline.heads, outline.activation);
        let ((heads, activation), colors) = both(settings, outline.colors)?;
        Ok(Self {
            preset,
            patch: outline.dimensions.patch,
            width: outline.dimensions.width,
            dim: tower.output_dim(family, outline.dimensions.width)?,
            depth: outline.dimensions.depth,
            heads,
            registers,
            eps: outline.eps,
            activation,
            text_space: options.text_space && family == Family::SigLip,
            position: outline.position,
            mean: colors.value.mean,
            std: colors.value.std,
            normalization: colors.from,
        })
    }
}

/// Both values, or the error for all settings that are unknown.
fn both<A, B>(a: Result<A, VitError>, b: Result<B, VitError>) -> Result<(A, B), VitError> {
    match (a, b) {
        (Ok(a), Ok(b)) => Ok((a, b)),
        (Err(a), Err(b)) => Err(a.and(b)),
        (Err(error), _) | (_, Err(error)) => Err(error),
    }
}

fn wrong_size(
    tower: &Tower<'_>,
    preset: Preset,
    found: Dimensions,
    fitting: &[&'static str],
) -> VitError {
    let family = preset.family();
    let named = Preset::parse(fitting[0]).is_ok_and(|p| p.dimensions().is_some());
    let (found, remedy) = if named {
        let names = fitting.join(" or ");
        (
            format!("{names} ({found})"),
            format!("use the backbone name {}", fitting[0]),
        )
    } else {
        let remedy = format!(
            "use the backbone name {} (with --heads, or a config.json next to the weights)",
            fitting[0]
        );
        (
            format!("a {family} backbone of another size ({found})"),
            remedy,
        )
    };
    VitError::WrongSize {
        path: tower.path(),
        found,
        asked: preset.name(),
        remedy,
    }
}
