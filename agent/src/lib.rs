//! The node agent: reads the data of databases on this node and answers the coordinator.
//!
//! - [`hands`]: the privileged half; everything that needs a capability.
//! - [`head`]: the unprivileged half; [`args`]: its command line.
//! - [`service`]: the way to the coordinator, and what is served there.
//! - [`volume`]: how a reader sees an instance's files, and what stops it from leaving them.
//! - [`galera`]: everything that can be read of one MariaDB Galera node.
//! - [`postgres`]: everything that can be read of one PostgreSQL instance.
//! - [`memory`]: what this process holds.

pub mod args;
pub mod galera;
pub mod hands;
pub mod head;
pub mod memory;
pub mod postgres;
pub mod service;
pub mod volume;
