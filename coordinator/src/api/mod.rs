//! The gRPC listener: one TLS port for agents, enrolment and people; who may call what.
//!
//! What is spoken is decided by ALPN: `hasteward-reverse/1` needs the certificate of a node and becomes a connection of the
//! [`Fleet`](crate::fleet::Fleet); `h2` is HTTP/2 for enrolment and people, where every call passes the [`gate::Gate`].

pub mod authenticate;
pub mod caller;
pub mod engine;
pub mod gate;
pub mod listener;
pub mod requirement;
pub mod review_cache;
pub mod server_identity;
pub mod steward;

pub use authenticate::{Authenticator, PeoplePolicy};
pub use caller::{Caller, Role};
pub use engine::{ClusterQuery, TriageEngine, TriageQuery};
pub use gate::Gate;
pub use listener::{Limits, Listener};
pub use requirement::Requirement;
pub use server_identity::ServerIdentity;
pub use steward::{BuildInfo, StewardService};
