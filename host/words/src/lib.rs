//! Open vocabulary: converts words to directions in the feature space of CLIP or SigLIP.
//!
//! Each word is inserted into prompt templates ([`Templates`]), tokenized ([`Tokenizer`],
//! [`SiglipTokenizer`]), and encoded by the text encoder of the model whose image encoder is the backbone
//! ([`Encoder`]). The mean of the normalized embeddings, normalized again, is compared with the feature of
//! every pixel. No training and no images are needed. See `docs/words.md`.

#![forbid(unsafe_code)]

mod encoder;
mod error;
mod siglip;
mod templates;
mod text_tokenizer;
mod tokenizer;
mod tokenizer_file;

pub use encoder::{Encoder, Progress};
pub use error::WordsError;
pub use siglip::SiglipTokenizer;
pub use templates::Templates;
pub use tokenizer::Tokenizer;
