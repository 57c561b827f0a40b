//! Backbones, from checkpoint to features: compared with the original models and with a slow
//! reference implementation, in every naming scheme.

mod convnext;
mod dinov3;
mod dinov3_refused;
mod errors;
mod golden;
mod graph;
#[path = "../common/made.rs"]
mod made;
mod names;
mod pooling;
mod reference;
mod search;
mod settings;
mod slow;
mod support;
