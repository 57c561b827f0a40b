//! Backbones, from checkpoint to features: against the models they came from, against a slow
//! implementation, and through every naming scheme.

mod errors;
mod golden;
mod graph;
mod names;
mod reference;
mod search;
mod settings;
mod slow;
mod support;
