//! Every resource that is served now: the built-in ones and those of CustomResourceDefinitions.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use serde_json::Value;

use crate::crd;
use crate::resource::Resource;

type Path = (String, String, String);

/// The served resources by (group, version, plural).
pub struct Catalog {
    builtin: BTreeMap<Path, Arc<Resource>>,
    custom: RwLock<BTreeMap<Path, Arc<Resource>>>,
}

fn path(resource: &Resource) -> Path {
    (
        resource.group.clone(),
        resource.version.clone(),
        resource.plural.clone(),
    )
}

impl Catalog {
    /// The built-in resources.
    pub fn new() -> Self {
        Self {
            builtin: crate::kinds::builtin()
                .into_iter()
                .map(|r| (path(&r), Arc::new(r)))
                .collect(),
            custom: RwLock::default(),
        }
    }

    /// Takes the CustomResourceDefinitions of now.
    pub fn rebuild<'a>(&self, definitions: impl IntoIterator<Item = &'a Value>) {
        let custom = definitions
            .into_iter()
            .flat_map(crd::resources)
            .map(|resource| (path(&resource), Arc::new(resource)))
            .collect();
        *self.custom.write().unwrap_or_else(PoisonError::into_inner) = custom;
    }

    /// The resource at a path.
    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Resource>> {
        let at = (group.to_owned(), version.to_owned(), plural.to_owned());
        let custom = self.custom.read().unwrap_or_else(PoisonError::into_inner);
        self.builtin.get(&at).or_else(|| custom.get(&at)).cloned()
    }

    /// The resource of a kind in any version.
    pub fn find_kind(&self, group: &str, kind: &str) -> Option<Arc<Resource>> {
        self.all()
            .into_iter()
            .find(|r| r.group == group && r.kind == kind)
    }

    /// Every resource, by group, version and plural.
    pub fn all(&self) -> Vec<Arc<Resource>> {
        let custom = self.custom.read().unwrap_or_else(PoisonError::into_inner);
        self.builtin.values().chain(custom.values()).cloned().collect()
    }

    /// Every group with its versions, core first, preferred version first.
    pub fn groups(&self) -> BTreeMap<String, Vec<String>> {
        let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for resource in self.all() {
            let versions = groups.entry(resource.group.clone()).or_default();
            if !versions.contains(&resource.version) {
                versions.push(resource.version.clone());
            }
        }
        for versions in groups.values_mut() {
            versions.sort_by_key(|v| std::cmp::Reverse(priority(v)));
        }
        groups
    }
}

impl Default for Catalog {
    fn default() -> Self {
        Self::new()
    }
}

/// How Kubernetes ranks versions: GA before beta before alpha, then by number.
fn priority(version: &str) -> (u8, u64, u64) {
    let Some(rest) = version.strip_prefix('v') else {
        return (0, 0, 0);
    };
    let (stage, split) = match (rest.find("alpha"), rest.find("beta")) {
        (Some(at), _) => (1, Some((at, 5))),
        (_, Some(at)) => (2, Some((at, 4))),
        _ => (3, None),
    };
    let (major, minor) = match split {
        Some((at, len)) => (&rest[..at], &rest[at + len..]),
        None => (rest, "0"),
    };
    match (major.parse(), minor.parse()) {
        (Ok(major), Ok(minor)) => (stage, major, minor),
        _ => (0, 0, 0),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn versions_rank_as_kubernetes_ranks_them() {
        let mut versions = ["v1alpha1", "v2", "v1", "v1beta2", "foo", "v1beta1"];
        versions.sort_by_key(|v| std::cmp::Reverse(super::priority(v)));
        assert_eq!(versions, ["v2", "v1", "v1beta2", "v1beta1", "v1alpha1", "foo"]);
    }
}
