//! Generated gRPC code, one module a package. Meaning and units stand in `proto/hasteward/*.proto`.
#![allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::pedantic,
    clippy::unwrap_used, clippy::large_enum_variant,
    reason = "generated code"
)]

/// Served by the agent on the connection that it dialled.
pub mod agent {
    tonic::include_proto!("hasteward.agent.v1");
}

/// Served by the coordinator to agents without a certificate.
pub mod enrol {
    tonic::include_proto!("hasteward.enrol.v1");
}

/// Served by the coordinator to people.
pub mod people {
    tonic::include_proto!("hasteward.people.v1");
}
