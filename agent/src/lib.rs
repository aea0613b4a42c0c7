//! The node agent: reads the data of databases on this node and answers the coordinator.
//!
//! - [`volume`]: how a reader sees an instance's files, and what stops it from leaving them.

pub mod volume;
