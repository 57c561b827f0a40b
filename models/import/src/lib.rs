//! Reads trained models: checkpoint files ([`checkpoint`]), the upsamplers LoftUp ([`loftup`]) and NAF
//! ([`naf`]), vision transformers ([`vit`]), ConvNeXts ([`convnext`]) and text encoders ([`text`]) in them, ONNX files of other tools
//! ([`onnx`]), and the built-in weights ([`builtin`]). It is not needed on the robot, since bundles contain the graphs.

#![forbid(unsafe_code)]

pub mod builtin;
pub mod bundle;
pub mod checkpoint;
mod config_json;
pub mod convnext;
pub mod loftup;
pub mod naf;
pub mod onnx;
mod prefix;
pub mod text;
mod transformer;
pub mod upsampler;
pub mod vit;
