//! SigLIP's tokenizers, from the `tokenizer.json` next to its weights.
//!
//! As in its training (`big_vision`), a text is converted to lower case, the end token is appended, and the
//! rest is padding, to which the text encoder attends. SigLIP (SentencePiece unigrams) removes punctuation
//! and pads with the end token; SigLIP 2 (Gemma's tokenizer) pads with `<pad>`.

use std::path::Path;

use crate::{WordsError, tokenizer_file::TokenizerFile};

/// A tokenizer of SigLIP or SigLIP 2.
pub struct SiglipTokenizer {
    file: TokenizerFile,
    end: u32,
    padding: u32,
    /// Whether punctuation is kept, as in SigLIP 2.
    punctuation: bool,
}

impl SiglipTokenizer {
    /// Reads `tokenizer.json`. SigLIP and SigLIP 2 are distinguished by the end token: `</s>` or
    /// `<eos>`.
    ///
    /// # Errors
    /// The file cannot be read or has neither, or this crate was built without the feature
    /// `tokenizers`.
    pub fn open(path: &Path) -> Result<Self, WordsError> {
        let file = TokenizerFile::open(path)?;
        // Gemma also has `</s>`, as an HTML tag.
        let ids = ["<eos>", "<pad>", "</s>"].map(|token| file.id(token));
        let (end, padding, punctuation) = match ids {
            [Some(end), Some(padding), _] => (end, padding, true),
            [None, _, Some(end)] => (end, end, false),
            _ => {
                return Err(WordsError::File {
                    path: path.into(),
                    what: "has neither <eos> and <pad>, as SigLIP 2's tokenizer, nor </s>, as SigLIP's; use the tokenizer.json of the same model".into(),
                });
            }
        };
        Ok(Self {
            file,
            end,
            padding,
            punctuation,
        })
    }

    /// The token after a text.
    pub fn end(&self) -> u32 {
        self.end
    }

    /// The padding token, which fills up to the length that the text encoder expects.
    pub fn padding(&self) -> u32 {
        self.padding
    }

    /// Returns the `length` tokens of a text, with the end token and padding.
    ///
    /// # Errors
    /// The text has more tokens, or the tokenizer fails.
    pub fn encode(&self, text: &str, length: usize) -> Result<Vec<u32>, WordsError> {
        let mut ids = self.file.tokens(&cleaned(text, self.punctuation))?;
        ids.push(self.end);
        WordsError::check_length(text, ids.len(), length)?;
        ids.resize(length, self.padding);
        Ok(ids)
    }
}

/// Converts a text to lower case; unless punctuation is kept, removes ASCII punctuation and superfluous
/// white space.
fn cleaned(text: &str, punctuation: bool) -> String {
    if punctuation {
        return text.to_lowercase();
    }
    let kept = text.replace('_', " ");
    let kept: String = kept.chars().filter(|c| !c.is_ascii_punctuation()).collect();
    let words: Vec<&str> = kept.split_whitespace().collect();
    words.join(" ").to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn punctuation_and_spaces_are_removed_or_kept() {
        let text = "  A photo_of the\tMug's (handle).\n";
        assert_eq!(cleaned(text, false), "a photo of the mugs handle");
        assert_eq!(cleaned(text, true), "  a photo_of the\tmug's (handle).\n");
        assert_eq!(cleaned("Ünïcode – “x”", false), "ünïcode – “x”");
        assert_eq!(cleaned("?!", false), "");
    }
}
