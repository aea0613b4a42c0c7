//! Evidence in, verdict out. Pure: no clock, no network, no file, no randomness.
//!
//! *evidence → verdict → assessment → plan*, and [`gate`] as an independent check of every plan. Everything here is
//! a function of its arguments, so that every case that ever went wrong can be kept as a table row.

pub mod cnpg;
pub mod evidence;
pub mod gate;
pub mod report;
mod schema;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use schema::schema;
