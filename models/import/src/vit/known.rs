//! Settings of a backbone that are not in its weights, from the options, the config files or the
//! published models.

use loftup_bundle::Normalization;

use super::{
    Activation, Dimensions, Family, Origin, Setting, Undecided, VitError, VitOptions,
    config_file::ConfigFiles,
    model_config::ModelConfig,
    names::Tower,
    published,
    schemes::{Library, Position},
};
use crate::transformer::HEAD_MULTIPLE;

/// The key for looking up heads, activation and colors.
pub(super) struct Known<'a> {
    pub tower: &'a Tower<'a>,
    pub family: Family,
    pub dimensions: Dimensions,
    /// Side of the grid of learned position embeddings.
    pub grid: Option<usize>,
    pub config: Option<&'a ModelConfig>,
}

impl Known<'_> {
    pub fn heads(&self, given: Option<usize>) -> Result<Setting<usize>, VitError> {
        let config = self.config.and_then(|c| Some((c.heads?, c.origin)));
        let published = published::heads(self.family, self.dimensions);
        let stored = self.tower.stored_periods()?.map(|n| 4 * n);
        let width = self.dimensions.width;
        let wrong = |what| VitError::Heads {
            path: self.tower.path(),
            width,
            what,
        };
        let given = given.map(|heads| (heads, Origin::CommandLine)).or(config);
        let (heads, from) = match (stored, given) {
            (Some(head), Some((heads, from))) if heads.checked_mul(head) != Some(width) => {
                return Err(wrong(format!(
                    "{heads} attention heads ({from}) contradict the periods of the rotary positions, which are for heads of {head} channels,"
                )));
            }
            (Some(head), _) => (width / head, Origin::Weights),
            (None, given) => given
                .or(published.map(|heads| (heads, Origin::PublishedModel)))
                .ok_or_else(|| self.undecided("number of attention heads", self.likely_heads()))?,
        };
        if heads == 0 || !width.is_multiple_of(heads) {
            return Err(wrong(format!(
                "{heads} attention heads ({from}) are impossible"
            )));
        }
        let head = width / heads;
        let rotary = matches!(self.tower.scheme.position, Position::Rotary(_));
        if rotary && !head.is_multiple_of(HEAD_MULTIPLE) {
            return Err(wrong(format!(
                "{heads} attention heads ({from}) of {head} channels, which rotary positions support only in multiples of {HEAD_MULTIPLE}, are impossible"
            )));
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

    pub fn activation(
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

    /// Mean and standard deviation of the colors.
    pub fn colors(
        &self,
        options: &VitOptions,
        files: &ConfigFiles,
    ) -> Result<Setting<Normalization>, VitError> {
        let usual = usual_colors(self.family);
        let file = files.normalization(self.tower.scheme.library);
        if let Some(given) = file
            && given.colors != usual
        {
            log::info!(
                "{}: mean {:?} and standard deviation {:?}, instead of the usual {:?} and {:?} of {}",
                given.path.display(),
                given.colors.mean,
                given.colors.std,
                usual.mean,
                usual.std,
                self.family
            );
        }
        let known = file.map(|given| {
            let own = self.config.filter(|c| c.path == given.path);
            let from = own.map_or(Origin::ConfigJson, |c| c.origin);
            Setting::new(given.colors, from)
        });
        if options.mean.is_some() || options.std.is_some() {
            let rest = known.map_or(usual, |known| known.value);
            let colors = rest.with(options.mean, options.std);
            return Ok(Setting::new(colors, Origin::CommandLine));
        }
        // Of the published models that fit into a file, only those of satellite images have it.
        if known.is_none()
            && self.family == Family::DinoV3
            && self.tower.has("local_cls_norm.weight")
        {
            let option = "--mean 0.430,0.411,0.296 --std 0.213,0.156,0.143 for the weights trained on satellite images (SAT-493M), which have local_cls_norm as this file does, or --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 for others";
            return Err(self.undecided("color normalization", option.into()));
        }
        Ok(known.unwrap_or(Setting::new(usual, Origin::PublishedModel)))
    }

    fn undecided(&self, name: &'static str, option: String) -> VitError {
        VitError::Undecided {
            path: self.tower.path(),
            model: format!("{} with {}", self.family, self.dimensions),
            settings: vec![Undecided { name, option }],
        }
    }
}

/// Mean and standard deviation of a family's training images.
fn usual_colors(family: Family) -> Normalization {
    match family {
        Family::DinoV2 | Family::DinoV3 => Normalization::IMAGENET,
        // OpenAI's.
        Family::Clip => Normalization {
            mean: [0.481_454_66, 0.457_827_5, 0.408_210_73],
            std: [0.268_629_54, 0.261_302_6, 0.275_777_1],
        },
        Family::SigLip => Normalization {
            mean: [0.5; 3],
            std: [0.5; 3],
        },
    }
}
