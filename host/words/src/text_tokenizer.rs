//! The tokenizer of a text encoder of any family.

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
    /// Returns CLIP's tokenizer, which is built in, or SigLIP's from `file`. `weights` is the file of the text
    /// encoder.
    pub fn of(
        config: &TextConfig,
        weights: &Path,
        file: Option<&Path>,
    ) -> Result<Self, WordsError> {
        let unsupported = |what: String| {
            let path = weights.into();
            Err(TextError::Unsupported { path, what }.into())
        };
        match (config.family, file) {
            (Family::SigLip, Some(file)) => Ok(Self::SigLip(SiglipTokenizer::open(file)?)),
            (Family::SigLip, None) => unsupported(
                "SigLIP's text encoder without its tokenizer, which is not built in; give the tokenizer.json of the model (--tokenizer)".into(),
            ),
            (_, Some(_)) => unsupported(
                "another tokenizer than CLIP's, which is built in, for a CLIP text encoder; omit --tokenizer".into(),
            ),
            (_, None) => {
                let clip = Tokenizer::clip();
                let (found, expected) = (config.vocabulary, clip.end() as usize + 1);
                match found == expected {
                    true => Ok(Self::Clip(clip)),
                    false => unsupported(format!(
                        "a text encoder with {found} tokens; CLIP's tokenizer has {expected}"
                    )),
                }
            }
        }
    }

    /// Returns the tokens of a text, at most `context`; exactly `context` for SigLIP, whose text encoder attends
    /// to padding.
    pub fn encode(&self, text: &str, context: usize) -> Result<Vec<u32>, WordsError> {
        match self {
            Self::SigLip(siglip) => siglip.encode(text, context),
            Self::Clip(clip) => {
                let ids = clip.encode(text);
                WordsError::check_length(text, ids.len(), context)?;
                Ok(ids)
            }
        }
    }
}
