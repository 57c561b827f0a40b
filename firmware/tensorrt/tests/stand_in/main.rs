//! The whole way through the stand-ins, in every layout: order of calls,
//! lifetimes, results, and failure at each step. They prove nothing about
//! NVIDIA's binary interface; see `slots.rs` and `rtx.rs` for that.

mod bench;
mod building;
mod failing;
mod running;
