//! The C interface of the runtime, `libloftup`. The header `include/loftup.h` is made from this crate;
//! `include/loftup.hpp` is C++ over it. See docs/c.md.
//!
//! Every function returns a [`loftup_status`] and leaves a message for [`loftup_last_error`]. No panic
//! crosses the border ([`status`]), pointers are checked in one place ([`border`]), and structs begin
//! with their size, so that they can grow.

#![allow(non_camel_case_types, reason = "the names of C")]
#![allow(
    clippy::missing_safety_doc,
    reason = "the rules are those of the header, at its top and at each function"
)]

mod border;
mod clicks;
mod frame;
mod head;
mod head_info;
mod health;
mod image;
mod log;
mod model;
mod status;
mod tracker;

use std::ffi::c_char;

pub use clicks::*;
pub use frame::*;
pub use head::*;
pub use head_info::*;
pub use health::*;
pub use image::*;
pub use log::*;
pub use model::*;
pub use status::*;
pub use tracker::*;

/// Version of the binary interface that this header describes. A library with another number must
/// not be used.
pub const LOFTUP_ABI_VERSION: u32 = 1;

/// Returns the library's LOFTUP_ABI_VERSION.
#[unsafe(no_mangle)]
pub extern "C" fn loftup_abi_version() -> u32 {
    LOFTUP_ABI_VERSION
}

/// Returns the library's version, such as "0.1.0".
#[unsafe(no_mangle)]
pub extern "C" fn loftup_version() -> *const c_char {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    VERSION.as_ptr().cast()
}
