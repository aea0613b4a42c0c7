//! Measuring that nothing changed (law L2): resource versions, what the API server was asked, and the bytes on the volumes.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolume, PersistentVolumeClaim, Pod, Secret, Service};
use kube::api::{Api, ListParams};
use kube::core::NamespaceResourceScope;
use kube::{Client, Resource, ResourceExt as _};
use nix::sys::signal::Signal;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::container::Container;
use crate::galera::Node;
use crate::{cnpg, galera};

/// Requests that change something.
const WRITE_VERBS: [&str; 5] = ["create", "update", "patch", "delete", "deletecollection"];

/// The resource version of every object that belongs to the databases, by `kind/name`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versions(BTreeMap<String, String>);

impl Versions {
    /// Takes them now: clusters, pods, claims, volumes, services, secrets and config maps of the databases' namespace.
    pub async fn take(client: &Client) -> anyhow::Result<Self> {
        let mut versions = BTreeMap::new();
        for cluster in cnpg::clusters(client).list(&ListParams::default()).await? {
            versions.insert(
                format!("Cluster/{}", cluster.name_any()),
                cluster.resource_version().unwrap_or_default(),
            );
        }
        // Only labs with MariaDB Galera know the kind.
        if let Ok(clusters) = galera::clusters(client).list(&ListParams::default()).await {
            for cluster in clusters {
                versions.insert(
                    format!("MariaDB/{}", cluster.name_any()),
                    cluster.resource_version().unwrap_or_default(),
                );
            }
        }
        add::<Pod>(client, &mut versions).await?;
        add::<PersistentVolumeClaim>(client, &mut versions).await?;
        add::<Service>(client, &mut versions).await?;
        add::<Secret>(client, &mut versions).await?;
        add::<ConfigMap>(client, &mut versions).await?;
        let volumes: Api<PersistentVolume> = Api::all(client.clone());
        for volume in volumes.list(&ListParams::default()).await? {
            let key = format!("PersistentVolume/{}", volume.name_any());
            versions.insert(key, volume.resource_version().unwrap_or_default());
        }
        Ok(Self(versions))
    }

    /// What differs in `later`: one line an object.
    #[must_use]
    pub fn differences(&self, later: &Self) -> Vec<String> {
        differences(&self.0, &later.0)
    }
}

async fn add<K>(client: &Client, versions: &mut BTreeMap<String, String>) -> anyhow::Result<()>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug,
{
    let api: Api<K> = Api::namespaced(client.clone(), cnpg::NAMESPACE);
    for object in api
        .list(&ListParams::default())
        .await
        .with_context(|| format!("list {}", K::kind(&())))?
    {
        versions.insert(
            format!("{}/{}", K::kind(&()), object.name_any()),
            object.resource_version().unwrap_or_default(),
        );
    }
    Ok(())
}

/// What creating changes nothing: questions, tokens, connections.
const HARMLESS: [&str; 7] = [
    "tokenreviews",
    "subjectaccessreviews",
    "selfsubjectaccessreviews",
    "selfsubjectrulesreviews",
    "selfsubjectreviews",
    "serviceaccounts/token",
    "pods/portforward",
];

/// One line of the API server's audit log.
#[derive(Debug, Clone, Deserialize)]
pub struct Request {
    /// Who asked.
    pub user: String,
    /// `get`, `list`, `create`, …
    pub verb: String,
    /// Resource, with its subresource: `pods`, `pods/status`.
    #[serde(default)]
    pub resource: String,
    /// Namespace, empty for what has none.
    #[serde(default)]
    pub namespace: String,
    /// Name of the object, empty for collections.
    #[serde(default)]
    pub name: String,
    /// A write that was only tried out by the server.
    #[serde(default, rename = "dryRun")]
    pub dry_run: bool,
}

/// A position in the audit log.
#[derive(Debug)]
pub struct Audit {
    file: PathBuf,
    from: u64,
}

impl Audit {
    /// From now on.
    pub fn start(file: &Path) -> anyhow::Result<Self> {
        let from = fs::metadata(file)
            .with_context(|| format!("audit log {}", file.display()))?
            .len();
        Ok(Self {
            file: file.to_owned(),
            from,
        })
    }

    /// The writing requests since then by users for whom `who` says yes. Making tokens and asking who may do what change nothing.
    pub fn writes(&self, who: impl Fn(&str) -> bool) -> anyhow::Result<Vec<Request>> {
        let bytes = fs::read(&self.file)?;
        let new = bytes
            .get(usize::try_from(self.from)?..)
            .context("the audit log became shorter")?;
        let requests = new.split(|b| *b == b'\n').filter(|line| !line.is_empty());
        let requests: Vec<Request> = requests.map(serde_json::from_slice).collect::<Result<_, _>>()?;
        Ok(requests
            .into_iter()
            .filter(|request| WRITE_VERBS.contains(&request.verb.as_str()) && !request.dry_run)
            .filter(|request| who(&request.user) && !HARMLESS.contains(&request.resource.as_str()))
            .collect())
    }
}

/// Every file below some directories: type, mode, owner, size, modification time and content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files(BTreeMap<String, String>);

impl Files {
    /// Reads all of them. Meaningful only while whoever writes them is frozen ([`Frozen`]).
    pub fn take(directories: &[PathBuf]) -> anyhow::Result<Self> {
        let mut files = BTreeMap::new();
        let mut open = directories.to_vec();
        while let Some(path) = open.pop() {
            let metadata = fs::symlink_metadata(&path).with_context(|| path.display().to_string())?;
            let mut seen = format!(
                "mode {:o} owner {}:{} size {} modified {}.{:09}",
                metadata.mode(),
                metadata.uid(),
                metadata.gid(),
                metadata.len(),
                metadata.mtime(),
                metadata.mtime_nsec()
            );
            if metadata.is_dir() {
                for entry in fs::read_dir(&path)? {
                    open.push(entry?.path());
                }
            } else if metadata.is_symlink() {
                seen = format!("{seen} to {}", fs::read_link(&path)?.display());
            } else if metadata.is_file() {
                seen = format!("{seen} content {:016x}", content(&path)?);
            }
            files.insert(path.display().to_string(), seen);
        }
        ensure!(!files.is_empty(), "no file to compare");
        Ok(Self(files))
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What differs in `later`: one line a file.
    #[must_use]
    pub fn differences(&self, later: &Self) -> Vec<String> {
        differences(&self.0, &later.0)
    }
}

/// A hash of a file's content (not cryptographic: nobody here forges files).
fn content(path: &Path) -> std::io::Result<u64> {
    use std::hash::Hasher as _;
    let mut hasher = std::hash::DefaultHasher::new();
    let mut file = fs::File::open(path)?;
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finish()),
            n => hasher.write(&buffer[..n]),
        }
    }
}

fn differences(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> Vec<String> {
    let mut found = Vec::new();
    for (key, old) in before {
        match after.get(key) {
            None => found.push(format!("{key}: gone")),
            Some(new) if new != old => found.push(format!("{key}: {old} -> {new}")),
            Some(_) => {}
        }
    }
    found.extend(
        after
            .keys()
            .filter(|key| !before.contains_key(*key))
            .map(|key| format!("{key}: new")),
    );
    found
}

/// Every process of some instances, stopped; they go on when this is dropped.
#[derive(Debug)]
pub struct Frozen(Vec<Container>);

impl Frozen {
    /// Stops the instances' processes. The kubelet's probes notice after a while: keep it short.
    pub async fn freeze(client: &Client, instances: &[&str]) -> anyhow::Result<Self> {
        let mut containers = Vec::new();
        for instance in instances {
            if galera::owns(instance) {
                containers.push(Node::of(client, instance).await?.server().await?);
            } else {
                containers.push(Container::of(client, instance).await?);
            }
        }
        // Owned before the first signal: whatever fails on the way, all go on again.
        let frozen = Self(containers);
        for container in &frozen.0 {
            container.signal(container.processes(), Signal::SIGSTOP)?;
        }
        Ok(frozen)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        for container in &self.0 {
            // Nothing more can be done about a process that cannot be continued; the kubelet's probes end it.
            drop(container.signal(container.processes(), Signal::SIGCONT));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_a_new_and_a_missing_file_are_told() {
        let directory = std::env::temp_dir().join(format!("hasteward-lab-files-{}", std::process::id()));
        fs::create_dir_all(directory.join("below")).unwrap();
        for name in ["same", "changed", "gone", "below/deep"] {
            fs::write(directory.join(name), name).unwrap();
        }
        let before = Files::take(std::slice::from_ref(&directory)).unwrap();
        assert!(
            before
                .differences(&Files::take(std::slice::from_ref(&directory)).unwrap())
                .is_empty()
        );
        let stamp = fs::metadata(directory.join("changed"))
            .unwrap()
            .modified()
            .unwrap();
        fs::write(directory.join("changed"), "CHANGED").unwrap();
        // Same size, same time: only the content tells.
        fs::File::options()
            .write(true)
            .open(directory.join("changed"))
            .unwrap()
            .set_modified(stamp)
            .unwrap();
        fs::remove_file(directory.join("gone")).unwrap();
        fs::write(directory.join("below/new"), "").unwrap();
        let told = before
            .differences(&Files::take(std::slice::from_ref(&directory)).unwrap())
            .join("\n");
        fs::remove_dir_all(&directory).unwrap();
        assert!(told.contains("/changed: "), "{told}");
        assert!(
            told.contains("/gone: gone") && told.contains("/below/new: new"),
            "{told}"
        );
        assert!(!told.contains("/same:"), "{told}");
    }

    #[test]
    fn reading_and_reviews_are_no_writes() {
        let file = std::env::temp_dir().join(format!("hasteward-lab-audit-{}", std::process::id()));
        fs::write(
            &file,
            "{\"user\":\"early\",\"verb\":\"delete\",\"resource\":\"pods\"}\n",
        )
        .unwrap();
        let audit = Audit::start(&file).unwrap();
        let lines = [
            r#"{"user":"a","verb":"list","resource":"pods"}"#,
            r#"{"user":"a","verb":"get","path":"/version"}"#,
            r#"{"user":"a","verb":"create","resource":"tokenreviews"}"#,
            r#"{"user":"a","verb":"patch","resource":"pods","dryRun":true}"#,
            r#"{"user":"a","verb":"patch","resource":"pods/status","namespace":"db","name":"pg-1","code":403}"#,
            r#"{"user":"b","verb":"delete","resource":"pods","namespace":"db","name":"pg-1"}"#,
        ];
        let mut text = fs::read_to_string(&file).unwrap();
        text.push_str(&lines.join("\n"));
        fs::write(&file, text).unwrap();
        let writes = audit.writes(|user| user == "a").unwrap();
        fs::remove_file(&file).unwrap();
        assert_eq!(writes.len(), 1);
        assert_eq!(writes[0].resource, "pods/status");
    }
}
