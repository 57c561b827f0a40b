//! The command line from outside: files in, files out, exit codes and messages.

mod answers;
mod bundles;
mod checkpoints;
mod engines;
mod foreign;
mod golden;
mod inputs;
mod interrupt;
mod places;
mod support;
