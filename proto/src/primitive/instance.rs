//! Names of clusters, instances, pods and nodes.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A text that is no Kubernetes name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{field}: `{text}` is not a valid name: expected 1 to 253 of a-z, 0-9, `-` and `.`, beginning and ending with a letter or digit"
)]
pub struct NameError {
    field: &'static str,
    text: String,
}

/// RFC 1123 subdomain, the form of every object name used here.
fn checked(field: &'static str, text: &str) -> Result<String, NameError> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    let valid = (1..=253).contains(&bytes.len())
        && bytes.iter().all(|&b| plain(b) || b == b'-' || b == b'.')
        && plain(bytes[0])
        && plain(bytes[bytes.len() - 1]);
    if valid {
        Ok(text.to_owned())
    } else {
        Err(NameError {
            field,
            text: text.chars().take(80).collect(),
        })
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $field:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(try_from = "String", into = "String")]
        #[schemars(with = "String")]
        pub struct $name(String);

        impl $name {
            /// The checked name.
            ///
            /// # Errors
            /// The text is no RFC 1123 subdomain.
            pub fn new(text: &str) -> Result<Self, NameError> {
                checked($field, text).map(Self)
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                Self::new(&text)
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// The name of one database instance; with both operators also the name of its pod (`<cluster>-<n>`).
    InstanceName,
    "instance"
);
name!(
    /// The name of a Kubernetes node.
    NodeName,
    "node"
);

impl InstanceName {
    /// The number after the last dash: CNPG's serial, Galera's ordinal.
    #[must_use]
    pub fn ordinal(&self) -> Option<u32> {
        self.0.rsplit_once('-').and_then(|(_, n)| n.parse().ok())
    }

    /// The physical replication slot that CNPG keeps for this instance: `_cnpg_` and the name with everything but
    /// `[a-z0-9_]` turned into `_` (CNPG `replicationSlots.highAvailability.slotPrefix`, default prefix).
    #[must_use]
    pub fn cnpg_slot_name(&self) -> String {
        let plain = |c: char| {
            if c.is_ascii_lowercase() || c.is_ascii_digit() {
                c
            } else {
                '_'
            }
        };
        format!("_cnpg_{}", self.0.chars().map(plain).collect::<String>())
    }
}

/// A pod's UID as the API server gives it: a UUID, or 32 hexadecimal digits for static pods.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct PodUid(String);

impl PodUid {
    /// The checked UID.
    ///
    /// # Errors
    /// The text is neither a UUID nor 32 hexadecimal digits.
    pub fn new(text: &str) -> Result<Self, NameError> {
        let hex = |part: &str| {
            part.bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        };
        let groups: Vec<_> = text.split('-').map(str::len).collect();
        let valid = text.split('-').all(hex) && (groups == [8, 4, 4, 4, 12] || groups == [32]);
        if valid {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError {
                field: "pod uid",
                text: text.chars().take(80).collect(),
            })
        }
    }

    /// The text, as it stands below `<kubelet root>/pods/`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for PodUid {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        Self::new(&text)
    }
}

impl From<PodUid> for String {
    fn from(uid: PodUid) -> Self {
        uid.0
    }
}

impl fmt::Display for PodUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which operator and server a cluster is run by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// PostgreSQL by CloudNativePG (`postgresql.cnpg.io/v1 Cluster`).
    Cnpg,
    /// MariaDB Galera by mariadb-operator (`k8s.mariadb.com/v1alpha1 MariaDB`).
    Galera,
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cnpg => "cnpg",
            Self::Galera => "galera",
        })
    }
}

/// One cluster: the custom resource's namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub struct ClusterRef {
    /// The custom resource's namespace.
    pub namespace: String,
    /// The custom resource's name.
    pub name: String,
}

impl fmt::Display for ClusterRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// One instance of one cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub struct InstanceRef {
    /// The cluster it belongs to.
    pub cluster: ClusterRef,
    /// Its name.
    pub instance: InstanceName,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slot_names_follow_cnpg() {
        assert_eq!(
            InstanceName::new("cluster-example.x-2").unwrap().cnpg_slot_name(),
            "_cnpg_cluster_example_x_2"
        );
    }

    #[test]
    fn names_cannot_leave_a_directory() {
        for bad in ["", "..", "a/b", "../x", "A", "a_b", "-a", "a-", "a\0"] {
            assert!(InstanceName::new(bad).is_err(), "{bad:?}");
            assert!(PodUid::new(bad).is_err(), "{bad:?}");
        }
        assert!(PodUid::new("0b7a1c9e-1f7e-4a43-9d3a-0a9d6b3f1c11").is_ok());
    }
}
