//! Identities, TLS and the reverse channel.
//!
//! The agent dials the coordinator, both prove who they are by certificate, and then the *agent* serves gRPC on the
//! connection and the *coordinator* calls. A node has no listening port, and the connection itself is the sign of life.
//!
//! - [`identity`]: who a certificate names ([`PeerIdentity`]).
//! - [`tls`]: rustls configurations; TLS 1.3 and aws-lc-rs only, no process-wide provider.
//! - [`key_request`]: a new key and the request for its certificate.
//! - [`material`]: certificates and keys, from files or memory.
//! - [`reverse`]: both ends of the reverse channel.
//! - [`wire_failure`]: [`Failure`](crate::failure::Failure) over gRPC.

pub mod identity;
pub mod instance;
pub mod key_request;
pub mod material;
pub mod reverse;
pub mod settings;
pub mod stream;
pub mod tls;
pub mod wire_failure;

pub use identity::{IdentityError, PeerCertificate, PeerIdentity, PersonName};
pub use instance::AgentInstance;
pub use key_request::KeyRequest;
pub use material::{CertifiedIdentity, MaterialError, TrustBundle};
pub use reverse::{ReverseConnection, ReverseError, serve_reverse};
pub use rustls_pki_types::ServerName;
pub use settings::ChannelSettings;

/// ALPN of people and of enrolment: plain HTTP/2, the dialling side calls.
pub const ALPN_PEOPLE: &[u8] = b"h2";
/// ALPN of agents: after TLS the *accepting* side calls. Requires a client certificate of a node.
pub const ALPN_REVERSE: &[u8] = b"hasteward-reverse/1";
