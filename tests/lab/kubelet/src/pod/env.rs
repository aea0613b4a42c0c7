//! The environment of a container, and `$(VAR)` in its command and arguments.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVarSource, Pod, Secret};

/// A text made from the pod that is not in the object as the API server has it yet.
#[derive(Clone, Debug, Default)]
pub struct PodFacts {
    /// `status.podIP`
    pub pod_ip: String,
    /// `status.hostIP`
    pub host_ip: String,
}

/// The objects that environments refer to, by name; in the pod's namespace.
#[derive(Clone, Debug, Default)]
pub struct References {
    /// ConfigMaps that exist.
    pub config_maps: BTreeMap<String, ConfigMap>,
    /// Secrets that exist.
    pub secrets: BTreeMap<String, Secret>,
}

/// Why a container has no environment (kubelet: `CreateContainerConfigError`).
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvError {
    /// A ConfigMap or Secret that is not optional.
    #[error("{0} not found")]
    Missing(String),
    /// A key that is not optional.
    #[error("couldn't find key {key} in {object}")]
    MissingKey {
        /// Which key.
        key: String,
        /// Where.
        object: String,
    },
    /// A field path that is not supported.
    #[error("unsupported field path {0:?}")]
    Field(String),
    /// `resourceFieldRef`
    #[error("resourceFieldRef is not supported")]
    ResourceField,
}

/// Names of ConfigMaps and of Secrets that the environment of `container` refers to.
pub fn references(container: &Container) -> (Vec<String>, Vec<String>) {
    let (mut config_maps, mut secrets) = (Vec::new(), Vec::new());
    for from in container.env_from.iter().flatten() {
        config_maps.extend(from.config_map_ref.iter().map(|r| r.name.clone()));
        secrets.extend(from.secret_ref.iter().map(|r| r.name.clone()));
    }
    for source in container
        .env
        .iter()
        .flatten()
        .filter_map(|var| var.value_from.as_ref())
    {
        config_maps.extend(source.config_map_key_ref.iter().map(|r| r.name.clone()));
        secrets.extend(source.secret_key_ref.iter().map(|r| r.name.clone()));
    }
    (config_maps, secrets)
}

/// The environment of `container` over `base` (image and cluster).
///
/// # Errors
/// See [`EnvError`].
pub fn resolve(
    pod: &Pod,
    container: &Container,
    facts: &PodFacts,
    objects: &References,
    base: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, EnvError> {
    let mut env = base.clone();
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        let mut put = |values: BTreeMap<String, String>| {
            env.extend(
                values
                    .into_iter()
                    .map(|(key, value)| (format!("{prefix}{key}"), value)),
            );
        };
        if let Some(wanted) = &from.config_map_ref {
            match objects.config_maps.get(&wanted.name) {
                Some(found) => put(found.data.clone().unwrap_or_default()),
                None if wanted.optional == Some(true) => {}
                None => return Err(EnvError::Missing(format!("configmap {:?}", wanted.name))),
            }
        }
        if let Some(wanted) = &from.secret_ref {
            match objects.secrets.get(&wanted.name) {
                Some(found) => put(secret_texts(found)),
                None if wanted.optional == Some(true) => {}
                None => return Err(EnvError::Missing(format!("secret {:?}", wanted.name))),
            }
        }
    }
    for var in container.env.iter().flatten() {
        let value = match &var.value_from {
            Some(source) => from_source(pod, facts, objects, source)?,
            None => Some(expand(var.value.as_deref().unwrap_or_default(), &env)),
        };
        if let Some(value) = value {
            env.insert(var.name.clone(), value);
        }
    }
    Ok(env)
}

fn secret_texts(secret: &Secret) -> BTreeMap<String, String> {
    let data = secret.data.iter().flatten();
    data.map(|(key, value)| (key.clone(), String::from_utf8_lossy(&value.0).into_owned()))
        .collect()
}

fn from_source(
    pod: &Pod,
    facts: &PodFacts,
    objects: &References,
    source: &EnvVarSource,
) -> Result<Option<String>, EnvError> {
    if let Some(wanted) = &source.field_ref {
        return field(pod, facts, &wanted.field_path).map(Some);
    }
    let (kind, name, key, optional, values) = if let Some(wanted) = &source.config_map_key_ref {
        let values = objects
            .config_maps
            .get(&wanted.name)
            .map(|found| found.data.clone().unwrap_or_default());
        ("configmap", &wanted.name, &wanted.key, wanted.optional, values)
    } else if let Some(wanted) = &source.secret_key_ref {
        let values = objects.secrets.get(&wanted.name).map(secret_texts);
        ("secret", &wanted.name, &wanted.key, wanted.optional, values)
    } else {
        return Err(EnvError::ResourceField);
    };
    let object = format!("{kind} {name:?}");
    match values {
        None if optional == Some(true) => Ok(None),
        None => Err(EnvError::Missing(object)),
        Some(mut values) => match values.remove(key) {
            Some(value) => Ok(Some(value)),
            None if optional == Some(true) => Ok(None),
            None => Err(EnvError::MissingKey {
                key: key.clone(),
                object,
            }),
        },
    }
}

/// A field of the pod by its path, for environments and downward API volumes.
///
/// # Errors
/// When the path is not one that Kubernetes allows there.
pub fn field(pod: &Pod, facts: &PodFacts, path: &str) -> Result<String, EnvError> {
    let meta = &pod.metadata;
    let spec = pod.spec.as_ref();
    let text = |value: Option<&String>| Ok(value.cloned().unwrap_or_default());
    match path {
        "metadata.name" => text(meta.name.as_ref()),
        "metadata.namespace" => text(meta.namespace.as_ref()),
        "metadata.uid" => text(meta.uid.as_ref()),
        "metadata.labels" => Ok(lines(meta.labels.as_ref())),
        "metadata.annotations" => Ok(lines(meta.annotations.as_ref())),
        "spec.nodeName" => text(spec.and_then(|s| s.node_name.as_ref())),
        "spec.serviceAccountName" => text(spec.and_then(|s| s.service_account_name.as_ref())),
        "status.podIP" | "status.podIPs" => Ok(facts.pod_ip.clone()),
        "status.hostIP" | "status.hostIPs" => Ok(facts.host_ip.clone()),
        _ => {
            let of = |start: &str, map: Option<&BTreeMap<String, String>>| {
                let key = path.strip_prefix(start)?.strip_suffix("']")?;
                Some(map.and_then(|map| map.get(key)).cloned().unwrap_or_default())
            };
            of("metadata.labels['", meta.labels.as_ref())
                .or_else(|| of("metadata.annotations['", meta.annotations.as_ref()))
                .ok_or_else(|| EnvError::Field(path.to_owned()))
        }
    }
}

fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let lines: Vec<String> = map
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    lines.join("\n")
}

/// Replaces `$(NAME)` by the value of `NAME`; an unknown name stays as it is, `$$` is a `$`.
pub fn expand(text: &str, env: &BTreeMap<String, String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let tail = &rest[at + 1..];
        let name = tail
            .strip_prefix('(')
            .and_then(|inner| Some(&inner[..inner.find(')')?]));
        if let Some(after) = tail.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some(name) = name {
            match env.get(name) {
                Some(value) => out.push_str(value),
                None => out.push_str(&rest[at..at + name.len() + 3]),
            }
            rest = &tail[name.len() + 2..];
        } else {
            out.push('$');
            rest = tail;
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn env() -> BTreeMap<String, String> {
        BTreeMap::from([
            ("A".to_owned(), "1".to_owned()),
            ("B".to_owned(), "$(A)".to_owned()),
        ])
    }

    #[test]
    fn expansion() {
        for (text, expected) in [
            ("$(A)-$(B)", "1-$(A)"),
            ("$$(A) $(C) $A", "$(A) $(C) $A"),
            ("$(A", "$(A"),
            ("$", "$"),
            ("$$$(A)", "$1"),
            ("é$(A)é", "é1é"),
        ] {
            assert_eq!(expand(text, &env()), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn text_without_dollar_is_kept(text in "[^$]*") {
            prop_assert_eq!(expand(&text, &env()), text);
        }

        #[test]
        fn any_text(text in "[$()A-C é]*") {
            let _ = expand(&text, &env());
        }
    }

    fn pod() -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p-1", "namespace": "db", "uid": "u", "labels": {"x/y": "z"}},
            "spec": {"nodeName": "n1", "containers": []},
        }))
        .unwrap()
    }

    fn container(value: serde_json::Value) -> Container {
        let mut value = value;
        value["name"] = json!("c");
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn all_sources() {
        let container = container(json!({
            "envFrom": [{"prefix": "P_", "configMapRef": {"name": "cm"}}, {"secretRef": {"name": "none", "optional": true}}],
            "env": [
                {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                {"name": "LABEL", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['x/y']"}}},
                {"name": "PW", "valueFrom": {"secretKeyRef": {"name": "s", "key": "pw"}}},
                {"name": "NOT", "valueFrom": {"secretKeyRef": {"name": "s", "key": "no", "optional": true}}},
                {"name": "BOTH", "value": "$(NAME)@$(P_k)"},
            ],
        }));
        let objects = References {
            config_maps: BTreeMap::from([(
                "cm".to_owned(),
                serde_json::from_value(json!({"data": {"k": "v"}})).unwrap(),
            )]),
            secrets: BTreeMap::from([(
                "s".to_owned(),
                serde_json::from_value(json!({"data": {"pw": "aGk="}})).unwrap(),
            )]),
        };
        let facts = PodFacts {
            pod_ip: "10.244.1.2".to_owned(),
            host_ip: "10.243.0.11".to_owned(),
        };
        let env = resolve(&pod(), &container, &facts, &objects, &BTreeMap::new()).unwrap();
        let text: Vec<String> = env.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(
            text,
            [
                "BOTH=p-1@v",
                "IP=10.244.1.2",
                "LABEL=z",
                "NAME=p-1",
                "PW=hi",
                "P_k=v"
            ]
        );
        assert_eq!(
            references(&container),
            (vec!["cm".to_owned()], vec!["none".into(), "s".into(), "s".into()])
        );
    }

    #[test]
    fn what_is_missing_is_named() {
        let wanted = container(
            json!({"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}),
        );
        let mut objects = References::default();
        let go =
            |objects: &References| resolve(&pod(), &wanted, &PodFacts::default(), objects, &BTreeMap::new());
        assert_eq!(go(&objects), Err(EnvError::Missing("secret \"s\"".to_owned())));
        objects.secrets.insert("s".to_owned(), Secret::default());
        assert!(matches!(go(&objects), Err(EnvError::MissingKey { .. })));
    }
}
