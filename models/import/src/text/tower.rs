//! A text encoder in a checkpoint, independent of its naming scheme.

use std::collections::BTreeMap;

use super::{
    TextError,
    logit::Logit,
    schemes::{SCHEMES, Scheme},
};
use crate::checkpoint::{Checkpoint, listed};
use loftup_onnx::Tensor;

/// A text encoder found in a checkpoint: its naming scheme, and the prefix of its names.
#[derive(Debug)]
pub(super) struct Tower<'a> {
    pub checkpoint: &'a Checkpoint,
    pub scheme: &'static Scheme,
    prefix: String,
    pub depth: usize,
}

impl<'a> Tower<'a> {
    /// Finds the text encoder in a checkpoint.
    ///
    /// # Errors
    /// There is none, or several remain.
    pub fn find(checkpoint: &'a Checkpoint) -> Result<Self, TextError> {
        let mut found: BTreeMap<&str, &'static Scheme> = BTreeMap::new();
        for scheme in &SCHEMES {
            for prefix in checkpoint.prefixes(scheme.embedding) {
                let bare = prefix.strip_suffix("embeddings.").unwrap_or(prefix);
                if !found.contains_key(bare) {
                    found.insert(prefix, scheme);
                }
            }
        }
        let path = || checkpoint.path().to_path_buf();
        let prefixes: Vec<&str> = found.keys().copied().collect();
        match prefixes[..] {
            [prefix] => Self::at(checkpoint, found[prefix], prefix),
            [] => {
                let names: Vec<&str> = checkpoint.names().take(3).collect();
                let found = format!("it contains tensors such as {}", names.join(", "));
                Err(TextError::NotAText {
                    path: path(),
                    found,
                })
            }
            [first, ..] => Err(TextError::Ambiguous {
                path: path(),
                example: first.trim_end_matches('.').into(),
                prefixes: listed(prefixes),
            }),
        }
    }

    fn at(
        checkpoint: &'a Checkpoint,
        scheme: &'static Scheme,
        prefix: &str,
    ) -> Result<Self, TextError> {
        let mut tower = Self {
            checkpoint,
            scheme,
            prefix: prefix.into(),
            depth: 0,
        };
        let stem = tower.full(&format!("{}.", scheme.blocks));
        let known = tower.block_names();
        let mut numbers = std::collections::BTreeSet::new();
        for name in checkpoint.names() {
            let Some((number, rest)) = name.strip_prefix(&stem).and_then(|n| n.split_once('.'))
            else {
                continue;
            };
            match number.parse::<usize>() {
                Ok(number) if known.iter().any(|k| k == rest) => numbers.insert(number),
                _ => return Err(tower.unsupported(format!("the block's tensor {name}"))),
            };
        }
        tower.depth = numbers.len();
        if let Some((i, _)) = numbers.iter().enumerate().find(|(i, n)| i != *n) {
            return Err(tower.unsupported(format!("block {stem}{i} is missing")));
        }
        if tower.depth == 0 {
            return Err(tower.unsupported(format!("there are no blocks {stem}*")));
        }
        // CoCa has one more token.
        let class = tower.full("cls_emb");
        if checkpoint.contains(&class) {
            return Err(tower.unsupported(format!("a text encoder with a class token ({class})")));
        }
        Ok(tower)
    }

    /// Names of the tensors that a block has.
    fn block_names(&self) -> Vec<String> {
        let s = self.scheme;
        let both = |module: &str| [format!("{module}.weight"), format!("{module}.bias")];
        let mut names: Vec<String> = [s.norm1, s.proj, s.norm2, s.fc1, s.fc2]
            .into_iter()
            .flat_map(both)
            .collect();
        match s.qkv {
            [weight, bias] => names.extend([(*weight).into(), (*bias).into()]),
            modules => names.extend(modules.iter().flat_map(|m| both(m))),
        }
        names
    }

    /// Whether this is one of the archives published by OpenAI, which have three numbers next to
    /// CLIP's weights that no other library saves.
    pub fn is_openai_archive(&self) -> bool {
        ["input_resolution", "context_length", "vocab_size"]
            .iter()
            .all(|name| self.checkpoint.contains(name))
    }

    /// Rows and columns of the token embeddings, of the position embeddings, and outputs of the
    /// projection.
    pub fn extents(&self) -> Result<([usize; 2], [usize; 2], usize), TextError> {
        let matrix = |name: &str| match *self.checkpoint.shape(name)? {
            [rows, columns] if rows > 0 && columns > 0 => Ok([rows, columns]),
            ref shape => {
                Err(self.unsupported(format!("{name} has shape {shape:?}, which is not a matrix")))
            }
        };
        let (projection, axis) = self.projection_name()?;
        Ok((
            matrix(&self.full(self.scheme.embedding))?,
            matrix(&self.full(self.scheme.positions))?,
            matrix(&projection)?[axis],
        ))
    }

    /// Full name of the projection, and the index of its output axis.
    pub fn projection_name(&self) -> Result<(String, usize), TextError> {
        let full = |name: &str| match name.strip_prefix("../") {
            None => self.full(name),
            Some(name) => {
                let parent = self.prefix.strip_suffix("text_model.");
                parent.unwrap_or(&self.prefix).to_string() + name
            }
        };
        let names = self.scheme.projections.map(full);
        let found = names.iter().find(|name| self.checkpoint.contains(name));
        match found {
            Some(name) => Ok((name.clone(), usize::from(!name.ends_with("weight")))),
            None => Err(self.unsupported(format!(
                "a text encoder without its projection {}, which leads to the space of the images; save the whole model (transformers: CLIPModel or CLIPTextModelWithProjection)",
                names[0]
            ))),
        }
    }

    /// Name of the projection's bias, which SigLIP has.
    pub fn projection_bias(&self) -> Result<Option<String>, TextError> {
        let (name, _) = self.projection_name()?;
        let bias = name
            .strip_suffix("weight")
            .map(|stem| format!("{stem}bias"));
        Ok(bias.filter(|bias| self.checkpoint.contains(bias)))
    }

    /// SigLIP's scale and bias of cosines, which are next to the text encoder.
    pub fn logit(&self) -> Result<Option<Logit>, TextError> {
        let encoder = self.prefix.trim_end_matches('.');
        let parent = encoder.rfind('.').map_or("", |dot| &encoder[..=dot]);
        let names = ["logit_scale", "logit_bias"].map(|name| format!("{parent}{name}"));
        if !names.iter().all(|name| self.checkpoint.contains(name)) {
            return Ok(None);
        }
        let number = |name: &str| -> Result<f32, TextError> {
            // Libraries store a scalar or a vector of one.
            let shape = self.checkpoint.shape(name)?.to_vec();
            match self.checkpoint.tensor(name, &shape)?.data() {
                [number] => Ok(*number),
                _ => Err(self.unsupported(format!("{name} has shape {shape:?}, not one number"))),
            }
        };
        Ok(Some(Logit {
            scale: number(&names[0])?,
            bias: number(&names[1])?,
        }))
    }

    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor, TextError> {
        Ok(self.checkpoint.tensor(&self.full(name), shape)?)
    }

    pub fn full(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// The error for an unsupported variant.
    pub fn unsupported(&self, what: String) -> TextError {
        TextError::Unsupported {
            path: self.checkpoint.path().into(),
            what,
        }
    }
}
