//! What the kubelet sees of the whole cluster: pods and Services, for the hosts files; ConfigMaps and Secrets that change.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use k8s_openapi::api::core::v1::{Pod, Service, Volume};
use kube::ResourceExt as _;

use crate::hosts;
use crate::options::Options;

/// Namespace and name.
pub type Key = (String, String);

#[derive(Debug, Default)]
struct Seen {
    pods: BTreeMap<Key, Pod>,
    services: BTreeMap<Key, Service>,
}

/// Pods and Services of all namespaces.
#[derive(Debug, Default)]
pub struct Cluster {
    seen: Mutex<Seen>,
}

/// The key of an object.
pub fn key<K: kube::Resource>(object: &K) -> Key {
    (object.namespace().unwrap_or_default(), object.name_any())
}

impl Cluster {
    /// Takes pods in, or out; then [`Self::write_hosts`] is due.
    pub fn pods(&self, change: impl FnOnce(&mut BTreeMap<Key, Pod>)) {
        change(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner).pods);
    }

    /// Takes Services in, or out; then [`Self::write_hosts`] is due.
    pub fn services(&self, change: impl FnOnce(&mut BTreeMap<Key, Service>)) {
        change(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner).services);
    }

    /// The hosts file for pods of `namespace`, up to date.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn hosts_file(&self, options: &Options, namespace: &str) -> io::Result<PathBuf> {
        let path = options.hosts(namespace);
        // The lock also keeps two writers apart.
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let text = hosts::render(
            namespace,
            options.api_ip(),
            seen.services.values(),
            &seen.pods.values(),
        );
        std::fs::create_dir_all(options.own().join("hosts"))?;
        hosts::write(&path, &text)?;
        Ok(path)
    }

    /// Brings all hosts files that are in use up to date.
    ///
    /// # Errors
    /// When one cannot be written.
    pub fn write_hosts(&self, options: &Options) -> io::Result<()> {
        for entry in std::fs::read_dir(options.own().join("hosts"))
            .into_iter()
            .flatten()
            .flatten()
        {
            self.hosts_file(options, &entry.file_name().to_string_lossy())?;
        }
        Ok(())
    }
}

/// A ConfigMap or Secret that has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// It is a Secret.
    pub secret: bool,
    /// Which.
    pub key: Key,
}

impl Changed {
    /// Whether a volume of `pod` shows it.
    pub fn concerns(&self, pod: &Pod) -> bool {
        let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
        pod.namespace().as_deref() == Some(&self.key.0)
            && volumes.into_iter().any(|volume| self.is_in(volume))
    }

    fn is_in(&self, volume: &Volume) -> bool {
        let sources = volume
            .projected
            .iter()
            .flat_map(|projected| projected.sources.iter().flatten());
        let (mut config_maps, mut secrets): (Vec<&str>, Vec<&str>) = (Vec::new(), Vec::new());
        config_maps.extend(volume.config_map.iter().map(|source| source.name.as_str()));
        secrets.extend(
            volume
                .secret
                .iter()
                .filter_map(|source| source.secret_name.as_deref()),
        );
        for source in sources {
            config_maps.extend(source.config_map.iter().map(|source| source.name.as_str()));
            secrets.extend(source.secret.iter().map(|source| source.name.as_str()));
        }
        if self.secret { &secrets } else { &config_maps }.contains(&self.key.1.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn changes_concern_those_who_show_them() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "db"},
            "spec": {"containers": [], "volumes": [
                {"name": "a", "configMap": {"name": "cm"}},
                {"name": "b", "projected": {"sources": [{"secret": {"name": "s"}}]}},
            ]},
        }))
        .unwrap();
        let changed = |secret, namespace: &str, name: &str| {
            Changed {
                secret,
                key: (namespace.to_owned(), name.to_owned()),
            }
            .concerns(&pod)
        };
        assert!(changed(false, "db", "cm") && changed(true, "db", "s"));
        assert!(!changed(true, "db", "cm") && !changed(false, "other", "cm") && !changed(false, "db", "s"));
    }
}
