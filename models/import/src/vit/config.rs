//! What a backbone is, read off its weights, the config files next to them, and what is published.

use loftup_bundle::Architecture;

use super::{
    Activation, Dimensions, Family, Origin, Positions, Preset, Setting, VitError, VitOptions,
    config_file::ConfigFiles, names::Tower, outline::Outline,
};

/// Everything about a backbone but its weights.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct VitConfig {
    /// The name it was asked for by.
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
    /// Side of the (square) grid of patches that the position embeddings were trained on.
    pub grid: usize,
    /// The epsilon of every layer norm.
    pub eps: f32,
    /// The nonlinearity of the MLPs.
    pub activation: Setting<Activation>,
    /// How position embeddings are resampled for another grid.
    pub positions: Setting<Positions>,
    /// Mean of each color (red, green, blue; 0 to 1) that is subtracted from the picture.
    pub mean: [f32; 3],
    /// Standard deviation that each color is then divided by.
    pub std: [f32; 3],
    /// Where mean and standard deviation come from.
    pub normalization: Origin,
}

impl VitConfig {
    /// The most patches that a picture may have: attention grows with their square.
    pub const MAX_PATCHES: usize = 1 << 16;

    /// What a bundle's manifest says about it.
    pub fn architecture(&self) -> Architecture {
        Architecture {
            family: self.family(),
            width: self.width,
            depth: self.depth,
            registers: self.registers,
            position_grid: self.grid,
            heads: self.heads,
            activation: self.activation,
            positions: self.positions,
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

    /// Width and height, in pixels, for those who have no wish: 224, or the multiple of the patch
    /// nearest to it.
    pub fn default_size(&self) -> (usize, usize) {
        let side = ((224 + self.patch / 2) / self.patch).max(1) * self.patch;
        (side, side)
    }

    /// Columns and rows of patches of a picture of `width` x `height` pixels.
    ///
    /// # Errors
    /// Where a side is not a positive multiple of the patch, or there are more than
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

    /// Channels of one head.
    pub(super) fn head_dim(&self) -> usize {
        self.width / self.heads.value
    }

    /// Takes the outline of the weights for the backbone of that name.
    pub(super) fn read(
        tower: &Tower<'_>,
        preset: Preset,
        options: &VitOptions,
        files: &ConfigFiles,
    ) -> Result<Self, VitError> {
        let outline = Outline::of(tower, options, files)?;
        let family = outline.family;
        let registers = outline.registers;
        let fitting = Preset::fitting(family, registers > 0, outline.dimensions);
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
        let asked = preset.dimensions();
        if options.heads.is_none() && asked.is_some_and(|d| d != outline.dimensions) {
            return Err(wrong_size(tower, preset, outline.dimensions, &fitting));
        }
        if registers > 0 && !preset.registers() {
            let (path, name) = (tower.path(), preset.name());
            log::info!(
                "{}: has {registers} register tokens; using them with {name}",
                path.display()
            );
        }
        let (heads, activation) = match (outline.heads, outline.activation) {
            (Ok(heads), Ok(activation)) => (heads, activation),
            (Err(heads), Err(activation)) => return Err(heads.and(activation)),
            (Err(error), _) | (_, Err(error)) => return Err(error),
        };
        Ok(Self {
            preset,
            patch: outline.dimensions.patch,
            width: outline.dimensions.width,
            dim: tower.output_dim(family, outline.dimensions.width)?,
            depth: outline.dimensions.depth,
            heads,
            registers,
            grid: outline.grid,
            eps: outline.eps,
            activation,
            positions: outline.positions,
            mean: outline.mean,
            std: outline.std,
            normalization: outline.normalization,
        })
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
