//! One module for each command.

pub mod convert;
pub mod inspect;
pub mod run;
pub mod verify;

mod input;
mod panels;
