//! The agent's side of the wire: its way to the coordinator, and what it serves there.

pub mod dial;
pub mod enrol;
pub mod line;
