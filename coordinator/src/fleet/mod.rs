//! The fleet: who the agents are, how they come by a certificate, and the channel to each.

pub mod admission;
pub mod authority;
pub mod authority_secret;
pub mod authority_store;

pub mod enrolment;
pub mod expected;
pub mod kube_reviewer;
pub mod node_channel;
pub mod registry;
pub mod reviewer;
pub mod simulated;

pub use crate::clock::{Clock, SystemClock};
pub use admission::{AdmissionPolicy, Refusal};
pub use authority::{AuthorityError, AuthorityPem, CertificateAuthority, Subject};
pub use authority_secret::SecretAuthorityStore;
pub use authority_store::{AuthorityStore, FileAuthorityStore, StoreError, load_or_create};
pub use enrolment::EnrolmentService;
pub use kube_reviewer::KubeTokenReviewer;
pub use node_channel::{AgentClient, NodeChannel};
pub use registry::{AgentState, AgentStatus, Fleet, FleetEvents, NoEvents, ServeError};
pub use reviewer::{ControllerRef, PodFacts, ReviewUnavailable, ReviewedToken, TokenClaims, TokenReviewer};
