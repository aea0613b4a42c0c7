//! Names of labels, annotations, files and objects, as CloudNativePG 1.30 uses them.

/// Label: the Cluster an object belongs to.
pub const CLUSTER: &str = "cnpg.io/cluster";
/// Label: the instance an object belongs to.
pub const INSTANCE_NAME: &str = "cnpg.io/instanceName";
/// Label of pods: `instance`.
pub const POD_ROLE: &str = "cnpg.io/podRole";
/// Label: `primary`, `replica` or, for a moment, `unhealthy`.
pub const INSTANCE_ROLE: &str = "cnpg.io/instanceRole";
/// Deprecated twin of [`INSTANCE_ROLE`].
pub const ROLE: &str = "role";
/// Label of claims: `PG_DATA`, `PG_WAL` or `PG_TABLESPACE`.
pub const PVC_ROLE: &str = "cnpg.io/pvcRole";
/// Label of claims: which tablespace.
pub const TABLESPACE_NAME: &str = "cnpg.io/tablespaceName";
/// Annotation: number of the instance.
pub const NODE_SERIAL: &str = "cnpg.io/nodeSerial";
/// Annotation of claims: `initializing`, `ready` or `detached`.
pub const PVC_STATUS: &str = "cnpg.io/pvcStatus";
/// Annotation: version of the operator that made the object.
pub const OPERATOR_VERSION: &str = "cnpg.io/operatorVersion";
/// Annotation of pods: the pod's spec as it was created.
pub const POD_SPEC: &str = "cnpg.io/podSpec";
/// Annotation of Clusters: JSON list of fenced instances.
pub const FENCED_INSTANCES: &str = "cnpg.io/fencedInstances";
/// Annotation of Clusters: `disabled` stops the operator, not the managers.
pub const RECONCILIATION_LOOP: &str = "cnpg.io/reconciliationLoop";
/// Annotation of Clusters: `on` deletes the pods and keeps the claims. Also the name of a condition.
pub const HIBERNATION: &str = "cnpg.io/hibernation";
/// Annotation of pods: `"true"` = delete volumes and clone again.
pub const UNRECOVERABLE: &str = "alpha.cnpg.io/unrecoverable";
/// Annotation of Clusters: `enabled` turns `archive_mode` off.
pub const SKIP_WAL_ARCHIVING: &str = "cnpg.io/skipWalArchiving";
/// Annotation of Clusters, only in the lab: `"true"` makes every WAL archiving fail.
pub const BREAK_ARCHIVING: &str = "lab.hasteward/break-archiving";
/// `targetPrimary` while a failover waits for WAL receivers.
pub const PENDING: &str = "pending";
/// Prefix of high-availability slots.
pub const SLOT_PREFIX: &str = "_cnpg_";
/// Port of the manager's HTTPS server.
pub const STATUS_PORT: u16 = 8000;
/// Port of the manager's server for its own commands, on localhost.
pub const LOCAL_PORT: u16 = 8010;
/// Version the stand-ins claim to be.
pub const VERSION: &str = "1.30.0";
/// Exit code of the manager when the WAL volume has no room for a segment.
pub const EXIT_NO_SPACE: u8 = 4;

/// Name of an instance.
#[must_use]
pub fn instance(cluster: &str, serial: u32) -> String {
    format!("{cluster}-{serial}")
}

/// Number of an instance, from its name.
#[must_use]
pub fn serial_of(cluster: &str, instance: &str) -> Option<u32> {
    instance.strip_prefix(cluster)?.strip_prefix('-')?.parse().ok()
}

/// Name of the physical slot an instance streams through: every byte outside `[a-z0-9_]` becomes `_`.
#[must_use]
pub fn slot(prefix: &str, instance: &str) -> String {
    let sanitized: String = instance
        .to_lowercase()
        .chars()
        .map(|c| {
            if c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' {
                c
            } else {
                '_'
            }
        })
        .collect();
    format!("{prefix}{sanitized}")
}

/// Name of the claim of a tablespace: lower case, `_` and `$` become `-`, a leading `_` becomes `1`.
#[must_use]
pub fn tablespace_claim(instance: &str, tablespace: &str) -> String {
    format!("{instance}-{}", tablespace_volume(tablespace))
}

/// Name of the pod's volume of a tablespace.
#[must_use]
pub fn tablespace_volume(tablespace: &str) -> String {
    let lower = tablespace.to_lowercase();
    let lower = lower
        .strip_prefix('_')
        .map_or_else(|| lower.clone(), |rest| format!("1{rest}"));
    format!("tbs-{}", lower.replace(['_', '$'], "-"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("cluster-example-2", "_cnpg_cluster_example_2")]
    #[case("c.x-1", "_cnpg_c_x_1")]
    fn slots(#[case] name: &str, #[case] expected: &str) {
        assert_eq!(slot(SLOT_PREFIX, name), expected);
    }

    #[rstest]
    #[case("db-12", Some(12))]
    #[case("db-", None)]
    #[case("db-1-wal", None)]
    #[case("other-1", None)]
    fn serials(#[case] name: &str, #[case] expected: Option<u32>) {
        assert_eq!(serial_of("db", name), expected);
    }

    #[test]
    fn tablespaces() {
        assert_eq!(tablespace_claim("db-1", "Fast_disk$"), "db-1-tbs-fast-disk-");
        assert_eq!(tablespace_claim("db-1", "_x"), "db-1-tbs-1x");
    }
}
