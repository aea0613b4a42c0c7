//! What the agent, the coordinator and the command line agree on.
//!
//! - [`primitive`]: newtypes for positions, timelines and names; always built, free of I/O.
//! - [`failure`]: the one public error shape at every seam.
//! - `wire` (feature `wire`): generated gRPC code.
//! - `channel` (feature `channel`): identities, TLS and the reverse channel.

pub mod failure;
pub mod primitive;

#[cfg(feature = "channel")]
pub mod channel;
#[cfg(feature = "wire")]
pub mod wire;
