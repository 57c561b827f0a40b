//! Building blocks of the system tests: the golden cases, models with random weights, and the
//! conformance suite for backends.

#![forbid(unsafe_code)]

pub mod camera;
pub mod conformance;
pub mod frames;
pub mod golden;
pub mod naf;
pub mod narrow;
pub mod synthetic;
pub mod wrong;
