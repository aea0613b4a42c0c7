//! Answers: bodies, and the form that a client asks for.

use std::convert::Infallible;

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use serde_json::Value;

use crate::error::ApiError;

/// The body of an answer.
pub type Body = UnsyncBoxBody<Bytes, Infallible>;
/// An answer.
pub type Answer = Response<Body>;

/// What a client wants an object or list to look like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Format {
    /// As it is.
    Plain,
    /// As a table; with the version of `meta.k8s.io`.
    Table(String),
    /// Its metadata alone.
    Metadata,
    /// `APIGroupDiscoveryList` of that version.
    Discovery(String),
}

/// Bytes with a content type.
pub fn bytes(code: StatusCode, kind: &str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()).boxed_unsync());
    *answer.status_mut() = code;
    if let Ok(kind) = kind.parse() {
        answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    }
    answer
}

/// JSON.
pub fn json(code: StatusCode, value: &Value) -> Answer {
    bytes(code, "application/json", value.to_string())
}

/// Plain text.
pub fn text(code: StatusCode, text: impl Into<Bytes>) -> Answer {
    bytes(code, "text/plain; charset=utf-8", text)
}

/// An error.
pub fn error(error: &ApiError) -> Answer {
    let code = StatusCode::from_u16(error.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut answer = json(code, &error.status());
    if let Some(seconds) = error.details.get("retryAfterSeconds").and_then(Value::as_u64) {
        answer.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    answer
}

/// Picks the first form of `Accept` that the server can write.
pub fn negotiate(headers: &HeaderMap) -> Result<Format, ApiError> {
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|v| v.to_str().ok())
        .unwrap_or("*/*");
    accept
        .split(',')
        .find_map(one)
        .ok_or_else(ApiError::not_acceptable)
}

fn one(item: &str) -> Option<Format> {
    let mut parts = item.split(';').map(str::trim);
    let kind = parts.next()?;
    if !matches!(
        kind,
        "application/json" | "*/*" | "application/*" | "" | "text/plain" | "text/*"
    ) {
        return None;
    }
    let parameters: Vec<(&str, &str)> = parts.filter_map(|p| p.split_once('=')).collect();
    let get = |name: &str| parameters.iter().find(|(k, _)| *k == name).map(|(_, v)| *v);
    if get("stream").is_some_and(|s| s != "watch") {
        return None;
    }
    match (get("as"), get("g"), get("v")) {
        (None, _, _) => Some(Format::Plain),
        (Some("Table"), Some("meta.k8s.io"), Some(v @ ("v1" | "v1beta1"))) => {
            Some(Format::Table(v.to_owned()))
        }
        (Some("PartialObjectMetadata" | "PartialObjectMetadataList"), Some("meta.k8s.io"), Some("v1")) => {
            Some(Format::Metadata)
        }
        (Some("APIGroupDiscoveryList"), Some("apidiscovery.k8s.io"), Some(v @ ("v2" | "v2beta1"))) => {
            Some(Format::Discovery(v.to_owned()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_form_that_can_be_written_is_taken() {
        let pick = |accept: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, accept.parse().unwrap());
            negotiate(&headers).ok()
        };
        assert_eq!(
            pick("application/json;as=Table;v=v1;g=meta.k8s.io,application/json"),
            Some(Format::Table("v1".into()))
        );
        assert_eq!(
            pick("application/vnd.kubernetes.protobuf,application/json"),
            Some(Format::Plain)
        );
        assert_eq!(pick("application/vnd.kubernetes.protobuf"), None);
        assert_eq!(pick("*/*"), Some(Format::Plain));
    }
}
