//! Tests with mock libraries, in every layout: order of calls, lifetimes, results, and failures at
//! each step. They verify nothing about NVIDIA's binary interface; see `slots.rs` and `rtx.rs` for
//! that.

mod bench;
mod building;
mod copies;
mod failing;
mod running;
