//! The tokenizer of a text encoder, whatever its family.

use std::path::Path;

use loftup_import::{
    text::{TextConfig, TextError},
    vit::Family,
};

use crate::{SiglipTokenizer, Tokenizer, WordsError};

/// The tokenizer of a text encoder.
pub(crate) enum TextTokenizer {
    Clip(Tokenizer),
    SigLip(SiglipTokenizer),
}

impl TextTokenizer {
    /// CLIP's, which is built in, or SigLIP's from `file`. `weights` are those of the text encoder.
    pub fn of(
        config: &TextConfig,
        weights: &Path,
        file: Option<&Path>,
    ) -> Result<Self, WordsError> {
        let unsupported = |what: String| TextError::Unsupported {
            path: weights.into(),
            what,
        };
        let tokenizer = match (config.family, file) {
            (Family::SigLip, Some(file)) => Self::SigLip(SiglipTokenizer::open(file)?),
            (Family::SigLip, None) => {
                return Err(unsupported(
                    "SigLIP's text encoder without its tokenizer, which is not built in; give the tokenizer.json of the model (--tokenizer)".into(),
                )
                .into());
            }
            (_, Some(_)) => {
                return Err(unsupported(
                    "another tokenizer than CLIP's, which is built in, for a CLIP text encoder; omit --tokenizer".into(),
                )
                .into());
            }
            (_, None) => Self::Clip(Tokenizer::clip()),
        };
        let found = config.vocabulary;
        match &tokenizer {
            Self::Clip(clip) if clip.end() as usize + 1 != found => Err(unsupported(format!(
                "a text encoder with {found} tokens; CLIP's tokenizer has {}",
                clip.end() + 1
            ))
            .into()),
            _ => Ok(tokenizer),
        }
    }

    /// The tokens of a text, at most `context`; exactly so many if padding is seen.
    pub fn encode(&self, text: &str, context: usize) -> Result<Vec<u32>, WordsError> {
        let clip = match self {
            Self::SigLip(siglip) => return siglip.encode(text, context),
            Self::Clip(clip) => clip,
        };
        let ids = clip.encode(text);
        match ids.len() > context {
            true => Err(WordsError::TooLong {
                text: text.into(),
                tokens: ids.len(),
                most: context,
            }),
            false => Ok(ids),
        }
    }
}
