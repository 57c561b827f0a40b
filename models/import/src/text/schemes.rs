//! The naming schemes of text encoders.

/// The libraries whose names are supported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Library {
    /// OpenAI's CLIP and open_clip.
    OpenClip,
    /// Hugging Face transformers.
    Transformers,
}

/// A naming scheme. Names are relative to the encoder; names after `blocks` are relative to a block.
#[derive(Debug)]
pub(super) struct Scheme {
    pub library: Library,
    /// The token embeddings, which identify the scheme.
    pub embedding: &'static str,
    pub positions: &'static str,
    pub blocks: &'static str,
    pub norm1: &'static str,
    /// Queries, keys and values: one matrix and its bias, or three modules.
    pub qkv: &'static [&'static str],
    pub proj: &'static str,
    pub norm2: &'static str,
    pub fc1: &'static str,
    pub fc2: &'static str,
    pub norm: &'static str,
    /// Possible names of the projection into the common space; `..` is the encoder's parent. A name
    /// that ends in `weight` is a linear layer `[dim, width]`, any other a matrix `[width, dim]`.
    pub projections: [&'static str; 2],
}

/// If both match, the first one is used: the name of its embeddings ends with that of the second.
pub(super) static SCHEMES: [Scheme; 2] = [
    Scheme {
        library: Library::Transformers,
        embedding: "embeddings.token_embedding.weight",
        positions: "embeddings.position_embedding.weight",
        blocks: "encoder.layers",
        norm1: "layer_norm1",
        qkv: &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
        proj: "self_attn.out_proj",
        norm2: "layer_norm2",
        fc1: "mlp.fc1",
        fc2: "mlp.fc2",
        norm: "final_layer_norm",
        projections: ["../text_projection.weight", "head.weight"],
    },
    Scheme {
        library: Library::OpenClip,
        embedding: "token_embedding.weight",
        positions: "positional_embedding",
        blocks: "transformer.resblocks",
        norm1: "ln_1",
        qkv: &["attn.in_proj_weight", "attn.in_proj_bias"],
        proj: "attn.out_proj",
        norm2: "ln_2",
        fc1: "mlp.c_fc",
        fc2: "mlp.c_proj",
        norm: "ln_final",
        projections: ["text_projection", "text_projection.weight"],
    },
];
