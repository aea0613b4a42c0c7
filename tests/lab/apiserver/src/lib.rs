//! The lab's Kubernetes API server: in memory, JSON over TLS, with what hasteward, the lab's stand-ins and kubectl use.
//!
//! Not there, on purpose: protobuf answers (406; requests in protobuf are read, since kubectl sends them), CEL (`ValidatingAdmissionPolicy` objects and
//! `x-kubernetes-validations` are stored and not evaluated), webhooks, quotas, pods/exec, chunked lists (`limit` is
//! ignored, lists are whole), escalation checks of RBAC, and the node authorizer (`system:nodes` has a plain role).

pub mod answer;
pub mod api;
pub mod audit;
pub mod auth;
pub mod background;
pub mod catalog;
pub mod clock;
pub mod crd;
mod defaults;
mod discovery;
pub mod error;
mod events;
pub mod faults;
mod gc;
mod kinds;
mod kubelet;
pub mod object;
pub mod objects;
mod openapi;
pub mod patch;
pub mod pki;
mod portforward;
mod protobuf;
pub mod request;
pub mod resource;
mod routes;
pub mod selector;
pub mod server;
pub mod socket;
pub mod store;
mod table;
mod types;

pub use api::Config;
pub use server::Server;
