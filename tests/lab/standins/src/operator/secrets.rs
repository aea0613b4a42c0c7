//! Certificates and passwords of a cluster.

use crate::cnpg::{Cluster, Scope, names};
use anyhow::Context;
use k8s_openapi::api::core::v1::Secret;
use kube::api::PostParams;
use kube::{Resource, ResourceExt};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Makes what is missing and returns the CA certificate (PEM).
pub(super) async fn ensure(scope: &Scope, cluster: &Cluster) -> anyhow::Result<String> {
    let name = cluster.name_any();
    let ca = match existing(scope, &format!("{name}-ca")).await? {
        Some(found) => found,
        None => make(scope, cluster, &format!("{name}-ca"), "Opaque", authority(&name)?).await?,
    };
    let certificate = ca.get("ca.crt").context("the CA Secret has no ca.crt")?;
    let key = ca.get("ca.key").context("the CA Secret has no ca.key")?;
    let server = format!("{name}-server");
    if existing(scope, &server).await?.is_none() {
        let hosts = service_names(&name, &scope.namespace);
        let content = leaf(
            certificate,
            key,
            &format!("{name}-rw"),
            hosts,
            ExtendedKeyUsagePurpose::ServerAuth,
        )?;
        make(scope, cluster, &server, "kubernetes.io/tls", content).await?;
    }
    let replication = format!("{name}-replication");
    if existing(scope, &replication).await?.is_none() {
        let content = leaf(
            certificate,
            key,
            "streaming_replica",
            Vec::new(),
            ExtendedKeyUsagePurpose::ClientAuth,
        )?;
        make(scope, cluster, &replication, "kubernetes.io/tls", content).await?;
    }
    let app = format!("{name}-app");
    if existing(scope, &app).await?.is_none() {
        make(
            scope,
            cluster,
            &app,
            "kubernetes.io/basic-auth",
            application(cluster, &scope.namespace)?,
        )
        .await?;
    }
    Ok(certificate.clone())
}

async fn existing(scope: &Scope, name: &str) -> anyhow::Result<Option<BTreeMap<String, String>>> {
    let found = scope
        .api::<Secret>()
        .get_opt(name)
        .await
        .with_context(|| format!("reading Secret {name}"))?;
    Ok(found.map(|secret| {
        let data = secret.data.unwrap_or_default();
        data.into_iter()
            .filter_map(|(key, value)| Some((key, String::from_utf8(value.0).ok()?)))
            .collect()
    }))
}

async fn make(
    scope: &Scope,
    cluster: &Cluster,
    name: &str,
    kind: &str,
    content: BTreeMap<String, String>,
) -> anyhow::Result<BTreeMap<String, String>> {
    use base64::Engine as _;
    let data: BTreeMap<&String, String> = content
        .iter()
        .map(|(key, value)| (key, base64::engine::general_purpose::STANDARD.encode(value)))
        .collect();
    let secret: Secret = serde_json::from_value(json!({
        "metadata": {
            "name": name,
            "labels": {names::CLUSTER: cluster.name_any(), "cnpg.io/reload": "true"},
            "annotations": {names::OPERATOR_VERSION: names::VERSION},
            "ownerReferences": [cluster.controller_owner_ref(&()).context("the Cluster has no uid")?],
        },
        "type": kind,
        "data": data,
    }))?;
    scope
        .api::<Secret>()
        .create(&PostParams::default(), &secret)
        .await
        .with_context(|| format!("creating Secret {name}"))?;
    Ok(content)
}

fn authority(cluster: &str) -> anyhow::Result<BTreeMap<String, String>> {
    let mut params = validity(CertificateParams::new(Vec::new())?);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(DnType::CommonName, cluster);
    params
        .distinguished_name
        .push(DnType::OrganizationalUnitName, "lab");
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    Ok(BTreeMap::from([
        ("ca.crt".to_owned(), certificate.pem()),
        ("ca.key".to_owned(), key.serialize_pem()),
    ]))
}

fn leaf(
    ca: &str,
    ca_key: &str,
    common_name: &str,
    hosts: Vec<String>,
    usage: ExtendedKeyUsagePurpose,
) -> anyhow::Result<BTreeMap<String, String>> {
    let issuer = Issuer::from_ca_cert_pem(ca, KeyPair::from_pem(ca_key)?)?;
    let mut params = validity(CertificateParams::new(hosts)?);
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.extended_key_usages = vec![usage];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyAgreement];
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &issuer)?;
    Ok(BTreeMap::from([
        ("tls.crt".to_owned(), certificate.pem()),
        ("tls.key".to_owned(), key.serialize_pem()),
    ]))
}

/// rcgen's default validity spans millennia, which is fine for a lab; the distinguished name starts empty.
fn validity(mut params: CertificateParams) -> CertificateParams {
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
}

fn service_names(cluster: &str, namespace: &str) -> Vec<String> {
    ["rw", "r", "ro"]
        .iter()
        .flat_map(|suffix| {
            let short = format!("{cluster}-{suffix}");
            [
                short.clone(),
                format!("{short}.{namespace}"),
                format!("{short}.{namespace}.svc"),
                format!("{short}.{namespace}.svc.cluster.local"),
            ]
        })
        .collect()
}

fn application(cluster: &Cluster, namespace: &str) -> anyhow::Result<BTreeMap<String, String>> {
    // A fresh key pair is the randomness at hand.
    let password: String = KeyPair::generate()?
        .serialize_der()
        .iter()
        .rev()
        .map(|byte| {
            char::from(b"abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"[usize::from(byte % 57)])
        })
        .take(48)
        .collect();
    let initdb = cluster.initdb();
    let host = format!("{}-rw", cluster.name_any());
    let fields: Value = json!({
        "username": initdb.owner, "user": initdb.owner, "password": password, "dbname": initdb.database,
        "host": host, "port": "5432",
        "pgpass": format!("{host}:5432:{}:{}:{password}\n", initdb.database, initdb.owner),
        "uri": format!("postgresql://{}:{password}@{host}.{namespace}:5432/{}", initdb.owner, initdb.database),
    });
    Ok(serde_json::from_value(fields)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_client_trusts_what_we_sign() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let ca = authority("c").unwrap();
        let server = leaf(
            &ca["ca.crt"],
            &ca["ca.key"],
            "c-rw",
            service_names("c", "default"),
            ExtendedKeyUsagePurpose::ServerAuth,
        )
        .unwrap();
        assert!(server["tls.crt"].contains("BEGIN CERTIFICATE") && server["tls.key"].contains("PRIVATE KEY"));
        crate::tls::StatusClient::new(&ca["ca.crt"], "c-rw").unwrap();
    }
}
