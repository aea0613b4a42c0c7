//! Pods.

pub mod backoff;
pub mod env;
pub mod plan;
pub mod security;
