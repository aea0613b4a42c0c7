//! Claims and what they say about instances. Pure.

use std::collections::{BTreeMap, BTreeSet};

/// `cnpg.io/pvcRole`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ClaimRole {
    /// `PG_DATA`.
    Data,
    /// `PG_WAL`.
    Wal,
    /// `PG_TABLESPACE` and which.
    Tablespace(String),
}

/// `cnpg.io/pvcStatus`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimStatus {
    /// The bootstrap has not finished.
    Initializing,
    /// It has.
    Ready,
}

/// A claim owned by the cluster, not being deleted, with a status we know. All others are ignored.
#[derive(Clone, Debug)]
pub struct Claim {
    /// Its name.
    pub name: String,
    /// Its instance.
    pub instance: String,
    /// Its purpose.
    pub role: ClaimRole,
    /// Its state.
    pub status: ClaimStatus,
}

/// Claims by state, and the instances they make up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Classification {
    /// Used by a pod.
    pub healthy: Vec<String>,
    /// Complete group without pod.
    pub dangling: Vec<String>,
    /// Incomplete group.
    pub unusable: Vec<String>,
    /// The bootstrap runs.
    pub initializing: Vec<String>,
    /// All instances.
    pub instances: BTreeSet<String>,
    /// Instances whose group is dangling.
    pub dangling_instances: BTreeSet<String>,
    /// Instances whose bootstrap runs.
    pub initializing_instances: BTreeSet<String>,
}

/// Sorts the claims: `expected` are the roles a complete group has, `pods` the names of existing pods.
#[must_use]
pub fn classify(claims: &[Claim], expected: &BTreeSet<ClaimRole>, pods: &BTreeSet<String>) -> Classification {
    let mut groups: BTreeMap<&str, Vec<&Claim>> = BTreeMap::new();
    for claim in claims {
        groups.entry(&claim.instance).or_default().push(claim);
    }
    let mut result = Classification::default();
    for (instance, group) in groups {
        let roles: BTreeSet<ClaimRole> = group.iter().map(|claim| claim.role.clone()).collect();
        let names = group.iter().map(|claim| claim.name.clone());
        let initializing = group
            .iter()
            .any(|claim| claim.status == ClaimStatus::Initializing);
        result.instances.insert(instance.to_owned());
        if !roles.is_superset(expected) {
            result.unusable.extend(names);
        } else if !pods.contains(instance) {
            result.dangling.extend(names);
            result.dangling_instances.insert(instance.to_owned());
        } else if initializing {
            result.initializing.extend(names);
            result.initializing_instances.insert(instance.to_owned());
        } else {
            result.healthy.extend(names);
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(name: &str, instance: &str, role: ClaimRole, status: ClaimStatus) -> Claim {
        Claim {
            name: name.to_owned(),
            instance: instance.to_owned(),
            role,
            status,
        }
    }

    #[test]
    fn groups() {
        let expected = BTreeSet::from([ClaimRole::Data, ClaimRole::Wal]);
        let claims = [
            claim("c-1", "c-1", ClaimRole::Data, ClaimStatus::Ready),
            claim("c-1-wal", "c-1", ClaimRole::Wal, ClaimStatus::Ready),
            claim("c-2", "c-2", ClaimRole::Data, ClaimStatus::Ready),
            claim("c-3", "c-3", ClaimRole::Data, ClaimStatus::Initializing),
            claim("c-3-wal", "c-3", ClaimRole::Wal, ClaimStatus::Ready),
            claim("c-4", "c-4", ClaimRole::Data, ClaimStatus::Ready),
            claim("c-4-wal", "c-4", ClaimRole::Wal, ClaimStatus::Ready),
        ];
        let pods = BTreeSet::from(["c-1".to_owned(), "c-2".to_owned(), "c-3".to_owned()]);
        let result = classify(&claims, &expected, &pods);
        assert_eq!(result.healthy, ["c-1", "c-1-wal"]);
        assert_eq!(result.unusable, ["c-2"], "its WAL claim is missing");
        assert_eq!(result.initializing, ["c-3", "c-3-wal"]);
        assert_eq!(result.dangling, ["c-4", "c-4-wal"]);
        assert_eq!(result.instances.len(), 4);
    }
}
