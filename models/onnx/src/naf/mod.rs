//! The graphs of NAF.
//!
//! [`keys_graph`] runs once per frame: it takes the statistics of the group normalizations and makes the
//! keys of the cells. [`queries_graph`] computes the outputs of tiles; it encodes their part of the image
//! again, with the statistics of the frame. Both are for images and grids of any size. [`whole_graph`] is
//! the two in one for one size, for other tools.

mod encode;
mod graphs;
mod whole;

pub use self::{
    graphs::{keys_graph, queries_graph},
    whole::{NafShape, whole_graph},
};
