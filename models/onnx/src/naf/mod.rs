//! The graphs of NAF.
//!
//! [`keys_graph`] runs once per frame and computes the statistics of the group normalizations and the keys of
//! the cells. [`queries_graph`] computes the outputs of tiles; it encodes their part of the image again, with
//! the statistics of the frame. Both support images and grids of any size. [`whole_graph`] combines the two for
//! a fixed size, for other tools.

mod encode;
mod graphs;
mod whole;

pub use self::{
    graphs::{keys_graph, queries_graph},
    whole::{NafShape, whole_graph},
};
