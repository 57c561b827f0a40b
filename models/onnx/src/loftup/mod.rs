//! The graphs of the LoftUp upsampler (arXiv 2504.14032): their writer and their reader.
//!
//! Symbols: `d` backbone channels, `e = d + 20` internal width, `h x w` the grid of backbone
//! features, `H x W` the guidance, whose size is the size of the output.
//!
//! The upsampler is split into two graphs so that any part of an output can be computed exactly, at a
//! cost proportional to its area: [`LoftUp::keys_graph`] runs once per frame,
//! [`LoftUp::queries_graph`] once per tile. Only two 3x3 convolutions mix pixels, hence a halo of
//! [`HALO`](loftup_spec::HALO) pixels. [`LoftUp::whole_graph`] is the same computation as a single
//! standard graph.

mod graphs;
mod head;
mod read;
mod weights;
mod whole;

pub use head::with_head;
pub use read::{read_channel_norm, read_queries, read_queries_with_head};
pub use weights::{Affine, Layer, Linear, LoftUp};
pub(crate) use whole::min_max;
