//! The agent's side of the wire: its way to the coordinator, and what it serves there.

mod admission;
mod agent;
pub mod dial;
pub mod enrol;
mod inspect;
mod inspect_galera;
pub mod line;
mod target;

pub use admission::READINGS_MAX;
pub use agent::AgentService;
