//! A text encoder in a checkpoint, independent of its naming scheme.

use std::collections::BTreeMap;

use super::{
    TextConfig, TextError, Weights,
    schemes::{SCHEMES, Scheme},
};
use crate::{
    checkpoint::{Checkpoint, listed},
    transformer::{Block, Linear, norm},
};
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
    fn projection_name(&self) -> Result<(String, usize), TextError> {
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

    /// Reads the weights.
    pub fn weights(&self, config: &TextConfig) -> Result<Weights, TextError> {
        let (s, width) = (self.scheme, config.width);
        let get = |name: &str, shape: &[usize]| self.tensor(name, shape);
        let (projection, axis) = self.projection_name()?;
        let weight = match axis {
            1 => self
                .checkpoint
                .tensor(&projection, &[width, config.dim])?
                .transposed(),
            _ => self.checkpoint.tensor(&projection, &[config.dim, width])?,
        };
        let bias = match self.projection_bias()? {
            Some(bias) => self.checkpoint.tensor(&bias, &[config.dim])?,
            None => Tensor::from_fn([config.dim], |_| 0.0),
        };
        Ok(Weights {
            embedding: get(s.embedding, &[config.vocabulary, width])?,
            positions: get(s.positions, &[config.context, width])?,
            blocks: (0..config.depth)
                .map(|i| self.block(config, i))
                .collect::<Result<_, _>>()?,
            norm: norm(s.norm, width, get)?,
            projection: Linear { weight, bias },
        })
    }

    fn block(&self, config: &TextConfig, block: usize) -> Result<Block, TextError> {
        let (s, width, shape) = (self.scheme, config.width, config.shape(1));
        let stem = format!("{}.{block}.", s.blocks);
        let get = |name: &str, shape: &[usize]| self.tensor(&format!("{stem}{name}"), shape);
        let linear = |name: &str, out: usize, inputs: usize| -> Result<Linear, TextError> {
            Ok(Linear {
                weight: get(&format!("{name}.weight"), &[out, inputs])?,
                bias: get(&format!("{name}.bias"), &[out])?,
            })
        };
        let [q, k, v] = match *s.qkv {
            [q, k, v] => [
                linear(q, width, width)?,
                linear(k, width, width)?,
                linear(v, width, width)?,
            ],
            ref fused => {
                let weight = get(fused[0], &[3 * width, width])?;
                let bias = get(fused[1], &[3 * width])?;
                [0, 1, 2].map(|i| Linear {
                    weight: weight.rows(i * width, width),
                    bias: bias.rows(i * width, width),
                })
            }
        };
        let fc1 = self.full(&format!("{stem}{}.weight", s.fc1));
        let hidden = self.checkpoint.shape(&fc1)?.first().copied().unwrap_or(0);
        if hidden == 0 {
            return Err(self.unsupported(format!("block {block} has an MLP without channels")));
        }
        Ok(Block {
            norm1: norm(s.norm1, width, get)?,
            q: shape.query(q),
            k: shape.padded_rows(k),
            v: shape.padded_rows(v),
            proj: shape.padded_columns(linear(s.proj, width, width)?),
            norm2: norm(s.norm2, width, get)?,
            gate: None,
            fc1: linear(s.fc1, hidden, width)?,
            fc2: linear(s.fc2, width, hidden)?,
        })
    }

    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor, TextError> {
        Ok(self.checkpoint.tensor(&self.full(name), shape)?)
    }

    fn full(&self, name: &str) -> String {
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
