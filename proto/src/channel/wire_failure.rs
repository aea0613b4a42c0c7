//! [`Failure`] over gRPC: the status code is its kind, the details carry all of it as JSON.

use prost::bytes::Bytes;
use tonic::{Code, Status};

use crate::failure::{Failure, FailureKind};

/// Longest message that travels; gRPC puts it into a header.
const MAX_MESSAGE: usize = 2048;
/// Longest details that are read.
const MAX_DETAILS: usize = 16 << 10;

/// The gRPC code of a kind.
#[must_use]
pub const fn code_of(kind: FailureKind) -> Code {
    match kind {
        FailureKind::Input => Code::InvalidArgument,
        FailureKind::NotFound => Code::NotFound,
        FailureKind::Unauthenticated => Code::Unauthenticated,
        FailureKind::Forbidden => Code::PermissionDenied,
        FailureKind::Refused | FailureKind::Environment => Code::FailedPrecondition,
        FailureKind::Unknowable | FailureKind::Dependency => Code::Unknown,
        FailureKind::Unreachable => Code::Unavailable,
        FailureKind::Timeout => Code::DeadlineExceeded,
        FailureKind::Busy => Code::Aborted,
        FailureKind::Internal => Code::Internal,
    }
}

/// The kind of a status that carries no [`Failure`]: made by gRPC itself, or by a foreign peer.
const fn kind_of(code: Code) -> FailureKind {
    match code {
        Code::InvalidArgument | Code::OutOfRange => FailureKind::Input,
        Code::NotFound => FailureKind::NotFound,
        Code::Unauthenticated => FailureKind::Unauthenticated,
        Code::PermissionDenied => FailureKind::Forbidden,
        Code::FailedPrecondition => FailureKind::Refused,
        Code::Unavailable | Code::Cancelled => FailureKind::Unreachable,
        Code::DeadlineExceeded => FailureKind::Timeout,
        Code::Aborted | Code::ResourceExhausted | Code::AlreadyExists => FailureKind::Busy,
        Code::Ok | Code::Unknown | Code::Unimplemented | Code::Internal | Code::DataLoss => {
            FailureKind::Internal
        }
    }
}

/// At most [`MAX_MESSAGE`] bytes, cut between characters.
fn cut(text: &str) -> String {
    let mut end = text.len().min(MAX_MESSAGE);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

impl From<&Failure> for Status {
    fn from(failure: &Failure) -> Self {
        let short = Failure {
            message: cut(&failure.message),
            hint: failure.hint.as_deref().map(cut),
            ..failure.clone()
        };
        let details = serde_json::to_vec(&short).map(Bytes::from).unwrap_or_default();
        Self::with_details(code_of(short.kind), short.message, details)
    }
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        Self::from(&failure)
    }
}

impl From<&Status> for Failure {
    fn from(status: &Status) -> Self {
        let details = status.details();
        if details.len() <= MAX_DETAILS
            && let Ok(failure) = serde_json::from_slice(details)
        {
            return failure;
        }
        let code = status.code();
        let retryable = matches!(
            code,
            Code::Unavailable
                | Code::Cancelled
                | Code::DeadlineExceeded
                | Code::Aborted
                | Code::ResourceExhausted
        );
        let id = match code {
            Code::Unimplemented => "rpc-unimplemented",
            Code::Unavailable | Code::Cancelled => "rpc-unavailable",
            Code::DeadlineExceeded => "rpc-deadline",
            Code::ResourceExhausted => "rpc-exhausted",
            Code::Unauthenticated => "rpc-unauthenticated",
            Code::PermissionDenied => "rpc-forbidden",
            _ => "rpc-failed",
        };
        let said = cut(status.message());
        let message = if said.is_empty() {
            code.description().to_owned()
        } else {
            said
        };
        let failure = Self::new(id, kind_of(code), message);
        if retryable { failure.retryable() } else { failure }
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::from(&status)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_kind_survives() {
        use FailureKind::{
            Busy, Dependency, Environment, Forbidden, Input, Internal, NotFound, Refused, Timeout,
            Unauthenticated, Unknowable, Unreachable,
        };
        for kind in [
            Input,
            NotFound,
            Unauthenticated,
            Forbidden,
            Refused,
            Unknowable,
            Unreachable,
            Timeout,
            Busy,
            Dependency,
            Environment,
            Internal,
        ] {
            let failure = Failure::new("some-id", kind, "grüße\nline")
                .retryable()
                .hint("do this");
            let status = Status::from(&failure);
            assert_eq!(status.code(), code_of(kind));
            assert_eq!(Failure::from(&status), failure);
        }
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        let failure = Failure::new("some-id", FailureKind::Internal, "ü".repeat(5000));
        let back = Failure::from(Status::from(failure));
        assert!(back.message.len() <= MAX_MESSAGE && back.message.chars().all(|c| c == 'ü'));
    }

    #[test]
    fn a_status_without_failure_keeps_its_meaning() {
        let failure = Failure::from(Status::unavailable("connection closed"));
        assert_eq!(
            (failure.kind, failure.retryable),
            (FailureKind::Unreachable, true)
        );
        assert_eq!(Failure::from(Status::unimplemented("")).code, "rpc-unimplemented");
    }

    proptest! {
        #[test]
        fn arbitrary_details_never_panic(details in prop::collection::vec(any::<u8>(), 0..256), message in ".*") {
            let status = Status::with_details(Code::Internal, message, Bytes::from(details));
            let _ = Failure::from(&status);
        }
    }
}
