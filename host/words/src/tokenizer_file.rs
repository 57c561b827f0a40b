//! A `tokenizer.json`, as saved by Hugging Face's libraries. Needs the feature `tokenizers`.

#[cfg(feature = "tokenizers")]
pub(crate) use read::TokenizerFile;
#[cfg(not(feature = "tokenizers"))]
pub(crate) use refused::TokenizerFile;

#[cfg(feature = "tokenizers")]
mod read {
    use std::path::Path;

    use tokenizers::Tokenizer;

    use crate::WordsError;

    /// The contents of the file.
    pub(crate) struct TokenizerFile(Box<Tokenizer>);

    impl TokenizerFile {
        pub fn open(path: &Path) -> Result<Self, WordsError> {
            let wrong = |what: String| WordsError::File {
                path: path.into(),
                what,
            };
            let bytes = std::fs::read(path).map_err(|e| wrong(e.to_string()))?;
            let mut tokenizer = Tokenizer::from_bytes(&bytes)
                .map_err(|e| wrong(format!("not a tokenizer.json that can be read: {e}")))?;
            // Truncation and padding are done in this crate; some files enable them.
            tokenizer.with_padding(None);
            tokenizer
                .with_truncation(None)
                .map_err(|e| wrong(e.to_string()))?;
            Ok(Self(Box::new(tokenizer)))
        }

        /// The token with this text.
        pub fn id(&self, token: &str) -> Option<u32> {
            self.0.token_to_id(token)
        }

        /// Returns the tokens of a text, without special tokens.
        pub fn tokens(&self, text: &str) -> Result<Vec<u32>, WordsError> {
            let encoding = self.0.encode_fast(text, false);
            let encoding = encoding.map_err(|e| WordsError::Words(format!("{text:?}: {e}")))?;
            Ok(encoding.get_ids().to_vec())
        }
    }
}

#[cfg(not(feature = "tokenizers"))]
mod refused {
    use std::path::Path;

    use crate::WordsError;

    /// Not available in this build.
    pub(crate) enum TokenizerFile {}

    impl TokenizerFile {
        pub fn open(path: &Path) -> Result<Self, WordsError> {
            Err(WordsError::File {
                path: path.into(),
                what: "this program was built without reading of tokenizer.json, which SigLIP needs; build it with `cargo build -p loftup --features tokenizers`".into(),
            })
        }

        pub fn id(&self, _: &str) -> Option<u32> {
            match *self {}
        }

        pub fn tokens(&self, _: &str) -> Result<Vec<u32>, WordsError> {
            match *self {}
        }
    }
}
