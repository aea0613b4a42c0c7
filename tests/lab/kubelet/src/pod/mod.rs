//! Pods.

pub mod backoff;
pub mod container;
pub mod env;
pub mod plan;
pub mod probe;
pub mod probing;
pub mod publish;
pub mod record;
pub mod security;
pub mod status;
pub mod watchdog;
pub mod worker;
