//! Generated gRPC code, one module a package. Meaning and units stand in `proto/hasteward/*.proto`.
#![allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::pedantic,
    clippy::unwrap_used,
    clippy::large_enum_variant,
    rustdoc::invalid_html_tags,
    reason = "generated code"
)]

/// Served by the agent on the connection that it dialled.
pub mod agent {
    use std::fmt;

    tonic::include_proto!("hasteward.agent.v1");

    /// Without the password (law L9).
    impl fmt::Debug for InspectGaleraRequest {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_struct("InspectGaleraRequest")
                .field("target", &self.target)
                .field("recover_position", &self.recover_position())
                .field("budget_ms", &self.budget_ms)
                .field(
                    "root_password",
                    &if self.root_password.is_empty() {
                        "none"
                    } else {
                        "[redacted]"
                    },
                )
                .finish()
        }
    }
}

/// Served by the coordinator to agents without a certificate.
pub mod enrol {
    tonic::include_proto!("hasteward.enrol.v1");
}

/// Served by the coordinator to people.
pub mod people {
    tonic::include_proto!("hasteward.people.v1");
}

#[cfg(test)]
mod tests {
    use super::agent::InspectGaleraRequest;

    #[test]
    fn no_password_is_printed() {
        let request = InspectGaleraRequest {
            root_password: b"hunter2".to_vec().into(),
            ..InspectGaleraRequest::default()
        };
        let text = format!("{request:?}");
        assert!(text.contains("[redacted]") && !text.contains("hunter2") && !text.contains("104, 117"));
    }
}
