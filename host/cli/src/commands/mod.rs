//! One module for each command.

pub mod bench;
pub mod convert;
pub mod engine;
pub mod eval;
pub mod head;
pub mod inspect;
pub mod run;
pub mod verify;

mod input;
mod panels;
mod through;
