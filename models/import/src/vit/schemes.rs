//! The naming schemes of published vision transformers.

/// Names of the query, key and value projections of a block.
#[derive(Debug, Clone, Copy)]
pub(super) enum Qkv {
    /// One matrix with queries, keys and values: the names of its weight and its bias.
    Fused(&'static str, &'static str),
    /// The same, with a bias that is optional: the names of the weight, of the bias and of a mask,
    /// by which the bias is multiplied.
    Masked(&'static str, [&'static str; 2]),
    /// The same, with optional biases for queries and values: the names of the weight and of both.
    Biased(&'static str, [&'static str; 2]),
    /// Three separate modules, whose biases are optional in models with rotary positions.
    Split([&'static str; 3]),
}

/// How a scheme names the positions of patches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Position {
    /// Learned embeddings.
    Learned(&'static str),
    /// Rotary embeddings: the name of their periods, if the scheme stores them.
    Rotary(&'static str),
}

/// The layers of a SwiGLU MLP, if they are not called `fc1` and `fc2`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Swiglu {
    /// There is no SwiGLU MLP in this scheme.
    None,
    /// One first layer with gate and values, and the second layer.
    Fused([&'static str; 2]),
    /// Gate, values and second layer.
    Split([&'static str; 3]),
}

/// The libraries whose names and config files are supported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Library {
    /// facebookresearch's DINOv2 and DINOv3, and timm, including timm models in open_clip.
    Timm,
    /// OpenAI's CLIP and open_clip.
    OpenAi,
    /// Hugging Face transformers.
    Transformers,
}

/// A naming scheme for the parts of a vision transformer. Names are relative to the tower, those
/// after `blocks` to a block. An empty name means that the scheme does not have the part.
#[derive(Debug)]
pub(super) struct Scheme {
    pub library: Library,
    /// The suffix that identifies the scheme.
    pub marker: &'static str,
    pub patch: &'static str,
    pub class: &'static str,
    pub position: Position,
    pub registers: [&'static str; 2],
    pub pre_norm: &'static str,
    /// The path of the blocks; of several, the first that exists.
    pub blocks: [&'static str; 2],
    pub norm1: &'static str,
    pub qkv: Qkv,
    pub proj: &'static str,
    pub scale1: &'static str,
    pub norm2: &'static str,
    pub fc1: &'static str,
    pub fc2: &'static str,
    pub swiglu: Swiglu,
    pub scale2: &'static str,
    pub norm: &'static str,
    /// CLIP's visual projection; `..` is the tower's parent. A name ending in `weight` is a linear
    /// layer `[dim, width]`, any other a matrix `[width, dim]`.
    pub projection: &'static str,
}

/// facebookresearch's DINOv2, and timm.
const DINOV2: Scheme = Scheme {
    library: Library::Timm,
    marker: "patch_embed.proj.weight",
    patch: "patch_embed.proj",
    class: "cls_token",
    position: Position::Learned("pos_embed"),
    registers: ["register_tokens", "reg_token"],
    pre_norm: "norm_pre",
    blocks: ["blocks", ""],
    norm1: "norm1",
    qkv: Qkv::Fused("attn.qkv.weight", "attn.qkv.bias"),
    proj: "attn.proj",
    scale1: "ls1.gamma",
    norm2: "norm2",
    fc1: "mlp.fc1",
    fc2: "mlp.fc2",
    swiglu: Swiglu::Fused(["mlp.w12", "mlp.w3"]),
    scale2: "ls2.gamma",
    norm: "norm",
    projection: "head.weight",
};

/// OpenAI's CLIP, and open_clip without timm.
const OPENAI_CLIP: Scheme = Scheme {
    library: Library::OpenAi,
    marker: "ln_pre.weight",
    patch: "conv1",
    class: "class_embedding",
    position: Position::Learned("positional_embedding"),
    registers: ["", ""],
    pre_norm: "ln_pre",
    blocks: ["transformer.resblocks", ""],
    norm1: "ln_1",
    qkv: Qkv::Fused("attn.in_proj_weight", "attn.in_proj_bias"),
    proj: "attn.out_proj",
    scale1: "ls_1.gamma",
    norm2: "ln_2",
    fc1: "mlp.c_fc",
    fc2: "mlp.c_proj",
    swiglu: Swiglu::None,
    scale2: "ls_2.gamma",
    norm: "ln_post",
    projection: "proj",
};

/// Hugging Face transformers: CLIP.
const HF_CLIP: Scheme = Scheme {
    library: Library::Transformers,
    marker: "pre_layrnorm.weight",
    patch: "embeddings.patch_embedding",
    class: "embeddings.class_embedding",
    position: Position::Learned("embeddings.position_embedding.weight"),
    registers: ["", ""],
    pre_norm: "pre_layrnorm",
    blocks: ["encoder.layers", ""],
    norm1: "layer_norm1",
    qkv: Qkv::Split(["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]),
    proj: "self_attn.out_proj",
    scale1: "",
    norm2: "layer_norm2",
    fc1: "mlp.fc1",
    fc2: "mlp.fc2",
    swiglu: Swiglu::None,
    scale2: "",
    norm: "post_layernorm",
    projection: "../visual_projection.weight",
};

/// Hugging Face transformers: SigLIP.
const HF_SIGLIP: Scheme = Scheme {
    marker: "embeddings.patch_embedding.weight",
    projection: "",
    ..HF_CLIP
};

/// Hugging Face transformers: DINOv2, up to version 4.
const HF_DINOV2: Scheme = Scheme {
    library: Library::Transformers,
    marker: "encoder.layer.0.attention.attention.query.weight",
    patch: "embeddings.patch_embeddings.projection",
    class: "embeddings.cls_token",
    position: Position::Learned("embeddings.position_embeddings"),
    registers: ["embeddings.register_tokens", ""],
    pre_norm: "",
    blocks: ["encoder.layer", ""],
    norm1: "norm1",
    qkv: Qkv::Split([
        "attention.attention.query",
        "attention.attention.key",
        "attention.attention.value",
    ]),
    proj: "attention.output.dense",
    scale1: "layer_scale1.lambda1",
    norm2: "norm2",
    fc1: "mlp.fc1",
    fc2: "mlp.fc2",
    swiglu: Swiglu::Fused(["mlp.weights_in", "mlp.weights_out"]),
    scale2: "layer_scale2.lambda1",
    norm: "layernorm",
    projection: "",
};

/// Hugging Face transformers: DINOv2, from version 5.
const HF_DINOV2_5: Scheme = Scheme {
    marker: "encoder.layer.0.attention.q_proj.weight",
    qkv: Qkv::Split(["attention.q_proj", "attention.k_proj", "attention.v_proj"]),
    proj: "attention.o_proj",
    swiglu: Swiglu::Split(["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]),
    ..HF_DINOV2
};

/// facebookresearch's DINOv3, and models in its names (EUPE, LingBot-Vision).
const DINOV3: Scheme = Scheme {
    marker: "storage_tokens",
    position: Position::Rotary("rope_embed.periods"),
    registers: ["storage_tokens", ""],
    pre_norm: "",
    qkv: Qkv::Masked("attn.qkv.weight", ["attn.qkv.bias", "attn.qkv.bias_mask"]),
    swiglu: Swiglu::Split(["mlp.w1", "mlp.w2", "mlp.w3"]),
    projection: "",
    ..DINOV2
};

/// facebookresearch's DINOv3 without storage tokens.
const DINOV3_BARE: Scheme = Scheme {
    marker: "rope_embed.periods",
    ..DINOV3
};

/// timm's DINOv3 and LingBot-Vision, which are of its Eva class.
const TIMM_DINOV3: Scheme = Scheme {
    marker: "blocks.0.gamma_1",
    position: Position::Rotary(""),
    registers: ["reg_token", ""],
    qkv: Qkv::Biased("attn.qkv.weight", ["attn.q_bias", "attn.v_bias"]),
    scale1: "gamma_1",
    swiglu: Swiglu::Split(["mlp.fc1_g", "mlp.fc1_x", "mlp.fc2"]),
    scale2: "gamma_2",
    ..DINOV3
};

/// Hugging Face transformers: DINOv3. `save_pretrained` writes the blocks without `model.`.
const HF_DINOV3: Scheme = Scheme {
    library: Library::Transformers,
    marker: "embeddings.patch_embeddings.weight",
    patch: "embeddings.patch_embeddings",
    class: "embeddings.cls_token",
    position: Position::Rotary(""),
    registers: ["embeddings.register_tokens", ""],
    blocks: ["layer", "model.layer"],
    qkv: Qkv::Split(["attention.q_proj", "attention.k_proj", "attention.v_proj"]),
    proj: "attention.o_proj",
    scale1: "layer_scale1.lambda1",
    fc1: "mlp.up_proj",
    fc2: "mlp.down_proj",
    swiglu: Swiglu::Split(["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]),
    scale2: "layer_scale2.lambda1",
    ..DINOV3
};

/// If several schemes match, the first one is used.
pub(super) static SCHEMES: [Scheme; 10] = [
    DINOV3,
    DINOV3_BARE,
    TIMM_DINOV3,
    HF_DINOV3,
    DINOV2,
    OPENAI_CLIP,
    HF_CLIP,
    HF_SIGLIP,
    HF_DINOV2,
    HF_DINOV2_5,
];
