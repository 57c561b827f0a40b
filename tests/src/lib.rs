//! What the whole-system tests are made of: the golden cases, models with random weights, and one
//! conformance suite that every backend has to pass.

#![forbid(unsafe_code)]

pub mod conformance;
pub mod frames;
pub mod golden;
pub mod synthetic;
