//! ServiceAccount tokens: ES256 JWTs, checked against the objects they are bound to.

use std::collections::BTreeMap;
use std::path::Path;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::identity::User;
use crate::clock::Clock;
use crate::error::ApiError;
use crate::object::{self, at, text};
use crate::pki::write_private;
use crate::store::{GroupResource, Key, Store};

/// Issuer and default audience.
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// Tokens larger than this are not looked at.
const MOST_BYTES: usize = 16 * 1024;

/// Why the signing key could not be had.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The key file could not be read.
    #[error("read the token key")]
    Read(#[source] std::io::Error),
    /// The key file could not be written.
    #[error("write the token key")]
    Write(#[from] crate::pki::PkiError),
    /// The key could not be made.
    #[error("make the token key")]
    Make(#[from] aws_lc_rs::error::Unspecified),
    /// The key file holds no key.
    #[error("the token key is not a P-256 key: {0}")]
    Rejected(#[from] aws_lc_rs::error::KeyRejected),
}

/// Why a token is not valid.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Not a token of this server.
    #[error("invalid bearer token")]
    Malformed,
    /// Its time is over, or has not begun.
    #[error("token has expired")]
    Expired,
    /// It was made for others.
    #[error("token audiences {0:?} is invalid for the target audiences {1:?}")]
    Audience(Vec<String>, Vec<String>),
    /// Its ServiceAccount is gone or another one.
    #[error("service account {0} has been deleted")]
    ServiceAccountGone(String),
    /// The pod or secret it is bound to is gone or another one.
    #[error("{0} has been invalidated")]
    BoundObjectGone(String),
}

/// Signs and checks tokens.
pub struct Tokens {
    key: EcdsaKeyPair,
    clock: Clock,
}

/// A valid token.
#[derive(Debug)]
pub struct Valid {
    /// Whose it is.
    pub user: User,
    /// The asked audiences that it is for.
    pub audiences: Vec<String>,
}

fn encode(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

impl Tokens {
    /// Reads the key of a data directory, or makes one.
    pub fn open(data: &Path, clock: Clock) -> Result<Self, KeyError> {
        let path = crate::pki::Authority::directory(data).join("sa.key");
        let der = match std::fs::read(&path) {
            Ok(der) => der,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let document =
                    EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())?;
                write_private(&path, document.as_ref())?;
                document.as_ref().to_vec()
            }
            Err(e) => return Err(KeyError::Read(e)),
        };
        Ok(Self {
            key: EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der)?,
            clock,
        })
    }

    fn sign(&self, claims: &Value) -> Result<String, ApiError> {
        let body = format!(
            "{}.{}",
            encode(&json!({"alg": "ES256", "typ": "JWT"})),
            encode(claims)
        );
        let signature = self
            .key
            .sign(&SystemRandom::new(), body.as_bytes())
            .map_err(|_| ApiError::internal("sign the token"))?;
        Ok(format!("{body}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// Answers a TokenRequest for a ServiceAccount.
    pub fn issue(&self, store: &Store, account: &Value, request: &Value) -> Result<Value, ApiError> {
        let (namespace, name) = (object::namespace(account), object::name(account));
        let mut audiences = strings(at(request, &["spec", "audiences"]));
        if audiences.is_empty() {
            audiences.push(ISSUER.into());
        }
        let seconds = at(request, &["spec", "expirationSeconds"])
            .and_then(Value::as_i64)
            .unwrap_or(3600);
        if !(600..=1 << 32).contains(&seconds) {
            return Err(ApiError::invalid(
                "authentication.k8s.io",
                "TokenRequest",
                name,
                &[(
                    "spec.expirationSeconds".into(),
                    format!("Invalid value: {seconds}: may not specify a duration less than 10 minutes"),
                )],
            ));
        }
        let mut bound = json!({"namespace": namespace,
            "serviceaccount": {"name": name, "uid": object::uid(account)}});
        if let Some(reference) = at(request, &["spec", "boundObjectRef"]).filter(|r| !r.is_null()) {
            bind(store, namespace, name, reference, &mut bound)?;
        }
        let now = self.clock.now();
        let expires = now.as_second() + seconds;
        let id = uuid::Uuid::new_v4().to_string();
        let token = self.sign(&json!({
            "iss": ISSUER, "sub": format!("system:serviceaccount:{namespace}:{name}"), "aud": audiences,
            "iat": now.as_second(), "nbf": now.as_second(), "exp": expires, "jti": id, "kubernetes.io": bound,
        }))?;
        let expires = jiff::Timestamp::from_second(expires).unwrap_or(jiff::Timestamp::MAX);
        let mut answer = request.clone();
        answer["apiVersion"] = "authentication.k8s.io/v1".into();
        answer["kind"] = "TokenRequest".into();
        answer["metadata"] =
            json!({"name": name, "namespace": namespace, "creationTimestamp": object::time(now)});
        answer["spec"]["audiences"] = json!(audiences);
        answer["spec"]["expirationSeconds"] = seconds.into();
        answer["status"] = json!({"token": token, "expirationTimestamp": object::time(expires)});
        Ok(answer)
    }

    /// Checks a token for any of `audiences` (none given: the server's own).
    pub fn check(&self, store: &Store, token: &str, audiences: &[String]) -> Result<Valid, Refused> {
        let claims = self.claims(token)?;
        let now = self.clock.now().as_second();
        let number = |key: &str| claims.get(key).and_then(Value::as_i64);
        if number("exp").is_none_or(|exp| exp <= now) || number("nbf").is_some_and(|nbf| nbf > now) {
            return Err(Refused::Expired);
        }
        let own = [ISSUER.to_owned()];
        let wanted = if audiences.is_empty() { &own[..] } else { audiences };
        let given = strings(claims.get("aud"));
        let matched: Vec<String> = wanted.iter().filter(|a| given.contains(a)).cloned().collect();
        if matched.is_empty() {
            return Err(Refused::Audience(given, wanted.to_vec()));
        }
        Ok(Valid {
            user: living(store, &claims)?,
            audiences: matched,
        })
    }

    fn claims(&self, token: &str) -> Result<Value, Refused> {
        if token.len() > MOST_BYTES {
            return Err(Refused::Malformed);
        }
        let (body, signature) = token.rsplit_once('.').ok_or(Refused::Malformed)?;
        let signature = URL_SAFE_NO_PAD
            .decode(signature)
            .map_err(|_| Refused::Malformed)?;
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.key.public_key().as_ref())
            .verify(body.as_bytes(), &signature)
            .map_err(|_| Refused::Malformed)?;
        let (_, claims) = body.split_once('.').ok_or(Refused::Malformed)?;
        let claims = URL_SAFE_NO_PAD.decode(claims).map_err(|_| Refused::Malformed)?;
        serde_json::from_slice(&claims).map_err(|_| Refused::Malformed)
    }
}

fn strings(value: Option<&Value>) -> Vec<String> {
    let all = value.and_then(Value::as_array);
    all.into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}

/// Adds the claims of the object that a token is bound to.
fn bind(
    store: &Store,
    namespace: &str,
    account: &str,
    reference: &Value,
    claims: &mut Value,
) -> Result<(), ApiError> {
    let kind = text(reference, &["kind"]);
    let plural = match kind {
        "Pod" => "pods",
        "Secret" => "secrets",
        _ => {
            return Err(ApiError::bad_request(format!(
                "cannot bind token for serviceaccount \"{account}\" to type {kind}"
            )));
        }
    };
    let name = text(reference, &["name"]);
    let found = store
        .get(&GroupResource::new("", plural), &Key::new(namespace, name))
        .ok_or_else(|| ApiError::not_found("", plural, name))?;
    let asked = text(reference, &["uid"]);
    if !asked.is_empty() && asked != object::uid(&found) {
        let why = format!(
            "the UID in the bound object reference ({asked}) does not match the UID in record. The object might have been deleted and then recreated"
        );
        return Err(ApiError::conflict("", plural, name, &why));
    }
    claims[kind.to_lowercase()] = json!({"name": name, "uid": object::uid(&found)});
    if kind == "Pod" {
        if text(&found, &["spec", "serviceAccountName"]) != account {
            return Err(ApiError::bad_request(format!(
                "cannot bind token for serviceaccount \"{account}\" to pod running with different serviceaccount name."
            )));
        }
        let node = text(&found, &["spec", "nodeName"]);
        if !node.is_empty() {
            claims["node"] = json!({"name": node});
            if let Some(node) = store.get(&GroupResource::new("", "nodes"), &Key::new("", node)) {
                claims["node"]["uid"] = object::uid(&node).into();
            }
        }
    }
    Ok(())
}

/// The user behind claims, if everything that they are bound to still lives.
fn living(store: &Store, claims: &Value) -> Result<User, Refused> {
    let bound = claims.get("kubernetes.io").ok_or(Refused::Malformed)?;
    let namespace = text(bound, &["namespace"]);
    let account = text(bound, &["serviceaccount", "name"]);
    let alive = |plural: &str, reference: &Value| {
        let key = Key::new(namespace, text(reference, &["name"]));
        store
            .get(&GroupResource::new("", plural), &key)
            .is_some_and(|found| object::uid(&found) == text(reference, &["uid"]))
    };
    if !bound
        .get("serviceaccount")
        .is_some_and(|r| alive("serviceaccounts", r))
    {
        return Err(Refused::ServiceAccountGone(format!("{namespace}/{account}")));
    }
    let mut extra = BTreeMap::new();
    let mut add = |key: &str, value: &str| {
        if !value.is_empty() {
            extra.insert(
                format!("authentication.kubernetes.io/{key}"),
                vec![value.to_owned()],
            );
        }
    };
    for (kind, plural) in [("pod", "pods"), ("secret", "secrets")] {
        if let Some(reference) = bound.get(kind)
            && !alive(plural, reference)
        {
            return Err(Refused::BoundObjectGone(format!(
                "{kind} {namespace}/{}",
                text(reference, &["name"])
            )));
        }
    }
    add("pod-name", text(bound, &["pod", "name"]));
    add("pod-uid", text(bound, &["pod", "uid"]));
    add("node-name", text(bound, &["node", "name"]));
    add("node-uid", text(bound, &["node", "uid"]));
    if let Some(id) = claims.get("jti").and_then(Value::as_str) {
        add("credential-id", &format!("JTI={id}"));
    }
    Ok(User {
        name: format!("system:serviceaccount:{namespace}:{account}"),
        uid: text(bound, &["serviceaccount", "uid"]).to_owned(),
        groups: vec![
            "system:serviceaccounts".into(),
            format!("system:serviceaccounts:{namespace}"),
            "system:authenticated".into(),
        ],
        extra,
    })
}
