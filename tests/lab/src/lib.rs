//! A cluster on one machine: the quick start of hasteward and the stage of every end-to-end test.
//!
//! `cargo lab` is the command; [`Lab`] is the same for tests. The shape is described in `tests/lab/README.md`.

pub mod bench;
pub mod cli;
pub mod cnpg;
pub mod container;
pub mod demo;
pub mod deploy;
pub mod down;
pub mod fault;
pub mod galera;
pub mod image;
pub mod kubernetes;
mod lab;
pub mod options;
pub mod place;
pub mod prepare;
pub mod process;
pub mod run;
pub mod status;
pub mod supervise;
pub mod test_run;
pub mod unchanged;
pub mod up;
pub mod wait;

pub use lab::{Lab, Output};
