//! The naming schemes of published vision transformers.

/// Names of the query, key and value projections of a block.
#[derive(Debug, Clone, Copy)]
pub(super) enum Qkv {
    /// One matrix with queries, keys and values: the names of its weight and its bias.
    Fused(&'static str, &'static str),
    /// Three separate modules.
    Split([&'static str; 3]),
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
    /// facebookresearch's DINOv2 and timm, including timm models in open_clip.
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
    pub position: &'static str,
    pub registers: [&'static str; 2],
    pub pre_norm: &'static str,
    pub blocks: &'static str,
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
    position: "pos_embed",
    registers: ["register_tokens", "reg_token"],
    pre_norm: "norm_pre",
    blocks: "blocks",
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
    position: "positional_embedding",
    registers: ["", ""],
    pre_norm: "ln_pre",
    blocks: "transformer.resblocks",
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
    position: "embeddings.position_embedding.weight",
    registers: ["", ""],
    pre_norm: "pre_layrnorm",
    blocks: "encoder.layers",
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
    position: "embeddings.position_embeddings",
    registers: ["embeddings.register_tokens", ""],
    pre_norm: "",
    blocks: "encoder.layer",
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

/// If several schemes match, the first one is used.
pub(super) static SCHEMES: [Scheme; 6] = [
    DINOV2,
    OPENAI_CLIP,
    HF_CLIP,
    HF_SIGLIP,
    HF_DINOV2,
    HF_DINOV2_5,
];
