//! The node agent: reads the data of databases on this node and answers the coordinator.
//!
//! - [`service`]: the way to the coordinator, and what is served there.
//! - [`volume`]: how a reader sees an instance's files, and what stops it from leaving them.
//! - [`postgres`]: everything that can be read of one PostgreSQL instance.

pub mod postgres;
pub mod service;
pub mod volume;
