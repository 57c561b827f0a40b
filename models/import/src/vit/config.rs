//! What a backbone is, read off its weights.

use super::{Dimensions, Family, Preset, VitError, names::Tower};

/// The nonlinearity of the MLPs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// The exact GELU, `x Φ(x)`.
    Gelu,
    /// GELU through tanh, as JAX models have it.
    GeluTanh,
    /// `x sigmoid(1.702 x)`, as OpenAI's CLIP has it.
    QuickGelu,
}

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
    pub heads: usize,
    /// Register tokens.
    pub registers: usize,
    /// Side of the (square) grid of patches that the position embeddings were trained on.
    pub grid: usize,
    /// The epsilon of every layer norm.
    pub eps: f32,
    /// The nonlinearity of the MLPs.
    pub activation: Activation,
    /// Mean of each colour (red, green, blue; 0 to 1) that is subtracted from the picture.
    pub mean: [f32; 3],
    /// Standard deviation that each colour is then divided by.
    pub std: [f32; 3],
}

impl VitConfig {
    /// The most patches that a picture may have: attention grows with their square.
    pub const MAX_PATCHES: usize = 1 << 16;

    /// The kind of transformer.
    pub fn family(&self) -> Family {
        self.preset.family()
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
        self.width / self.heads
    }

    /// Reads the dimensions off the weights and holds them against the name.
    pub(super) fn read(
        tower: &Tower<'_>,
        preset: Preset,
        heads: Option<usize>,
    ) -> Result<Self, VitError> {
        let family = tower.family()?;
        let (width, patch) = tower.patch_shape()?;
        let found = Dimensions {
            patch,
            width,
            depth: tower.depth(),
        };
        let registers = tower.registers(width)?;
        let fitting = Preset::fitting(family, registers > 0, found);
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
        if heads.is_none() && preset.dimensions().is_some_and(|d| d != found) {
            return Err(wrong_size(tower, preset, found, &fitting));
        }
        if registers > 0 && !preset.registers() {
            let (path, name) = (tower.path(), preset.name());
            log::info!(
                "{}: has {registers} register tokens; using them with {name}",
                path.display()
            );
        }
        let grid = tower.grid(width)?;
        let (mean, std) = normalisation(family);
        Ok(Self {
            preset,
            patch,
            width,
            dim: tower.output_dim(width)?,
            depth: found.depth,
            heads: match heads {
                Some(heads) => given_heads(tower, width, heads)?,
                None => customary_heads(tower, family, width)?,
            },
            registers,
            grid,
            eps: if family == Family::Clip { 1e-5 } else { 1e-6 },
            activation: activation(family, found, grid),
            mean,
            std,
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
            "use the backbone name {} and give its number of heads",
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

fn given_heads(tower: &Tower<'_>, width: usize, heads: usize) -> Result<usize, VitError> {
    if heads == 0 || !width.is_multiple_of(heads) {
        let what = format!("{heads} attention heads are impossible");
        return Err(VitError::Heads {
            path: tower.path(),
            width,
            what,
        });
    }
    Ok(heads)
}

/// Heads of 64 channels, but for the two largest SigLIPs, which have 16 of any size.
fn customary_heads(tower: &Tower<'_>, family: Family, width: usize) -> Result<usize, VitError> {
    if family == Family::SigLip && matches!(width, 1152 | 1536) {
        return Ok(16);
    }
    if width == 0 || !width.is_multiple_of(64) {
        let what = "the number of attention heads is not known".into();
        return Err(VitError::Heads {
            path: tower.path(),
            width,
            what,
        });
    }
    Ok(width / 64)
}

/// The nonlinearity that a model's reference implementation runs with.
///
/// All SigLIPs were trained with the tanh form; timm and open_clip, whose features the LoftUp
/// checkpoints were trained on, run some sizes with it and others with the exact one.
fn activation(family: Family, size: Dimensions, grid: usize) -> Activation {
    match (family, size.width, size.patch, grid) {
        (Family::Clip, ..) => Activation::QuickGelu,
        (Family::SigLip, _, 32, _) => Activation::GeluTanh,
        (Family::SigLip, 1024, 16, 32) => Activation::GeluTanh,
        (Family::SigLip, 1152, 16, _) | (Family::SigLip, 1536, ..) => Activation::GeluTanh,
        (Family::SigLip | Family::DinoV2, ..) => Activation::Gelu,
    }
}

/// Mean and standard deviation of the pictures that a family was trained on.
fn normalisation(family: Family) -> ([f32; 3], [f32; 3]) {
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
