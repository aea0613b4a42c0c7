//! `/controller/certificates`, written from the cluster's Secrets.

use super::{Place, configuration};
use crate::cnpg::Scope;
use anyhow::Context;
use k8s_openapi::api::core::v1::Secret;

/// Writes all certificates; `true` when one changed.
pub(super) async fn refresh(place: &Place, scope: &Scope) -> anyhow::Result<bool> {
    let cluster = &place.cluster;
    let mut changed = false;
    for (secret, files) in [
        (
            format!("{cluster}-server"),
            &[("tls.crt", "server.crt", 0o600), ("tls.key", "server.key", 0o600)][..],
        ),
        (
            format!("{cluster}-replication"),
            &[
                ("tls.crt", "streaming_replica.crt", 0o600),
                ("tls.key", "streaming_replica.key", 0o600),
            ][..],
        ),
        (
            format!("{cluster}-ca"),
            &[
                ("ca.crt", "server-ca.crt", 0o644),
                ("ca.crt", "client-ca.crt", 0o644),
            ][..],
        ),
    ] {
        let data = scope
            .api::<Secret>()
            .get(&secret)
            .await
            .with_context(|| format!("reading Secret {secret}"))?
            .data
            .unwrap_or_default();
        for (key, file, mode) in files {
            let content = data
                .get(*key)
                .with_context(|| format!("Secret {secret} has no {key}"))?;
            let content =
                std::str::from_utf8(&content.0).with_context(|| format!("{key} of Secret {secret}"))?;
            changed |= configuration::replace(&place.certificates().join(file), content, *mode)?;
        }
    }
    Ok(changed)
}
