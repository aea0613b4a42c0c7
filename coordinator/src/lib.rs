//! The coordinator: the agents' fleet, evidence, verdicts and the API for people.
//!
//! - [`kubernetes`]: caches of what the API server says.
//! - [`fleet`]: who the agents are, and the channel to each.
//! - [`engine`]: evidence about a cluster, judged by `hasteward-verdict`.
//! - [`api`]: the gRPC listener; who may call what.
//! - [`http`]: metrics and probes.

pub mod api;
pub mod args;
pub mod clock;
pub mod engine;
pub mod fleet;
pub mod http;
pub mod kubernetes;
mod run;

pub use run::run;
