//! The coordinator: fleet, verdicts, gates, API.

pub mod api;
pub mod fleet;
