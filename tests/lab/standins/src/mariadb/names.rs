//! Names of labels, annotations, files, ports and objects, as mariadb-operator 26.x uses them.

/// Label: always `mariadb` on pods, claims and the StatefulSet.
pub const NAME: &str = "app.kubernetes.io/name";
/// Label: the MariaDB resource an object belongs to.
pub const INSTANCE: &str = "app.kubernetes.io/instance";
/// Label of pods: `primary` or `replica`; only ever set on ready pods.
pub const ROLE: &str = "k8s.mariadb.com/role";
/// Label of claims: `storage` or `config`.
pub const PVC_ROLE: &str = "pvc.k8s.mariadb.com/role";
/// Annotation of pods and of the StatefulSet: name of the MariaDB resource.
pub const MARIADB: &str = "k8s.mariadb.com/mariadb";
/// Annotation of pods and of the StatefulSet: empty, marks Galera.
pub const GALERA: &str = "k8s.mariadb.com/galera";
/// Label that the StatefulSet controller gives each pod.
pub const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";

/// The data directory.
pub const DATA: &str = "/var/lib/mysql";
/// Where the Galera configuration volume is mounted.
pub const CONFIG: &str = "/etc/mysql/mariadb.conf.d";
/// Where the projected ConfigMaps are mounted.
pub const CONF_D: &str = "/etc/mysql/conf.d";
/// Directory of the server's socket.
pub const RUN: &str = "/run/mysqld";
/// The server's socket.
pub const SOCKET: &str = "/run/mysqld/mysqld.sock";
/// Where the agent's credentials are mounted.
pub const AGENT_AUTH: &str = "/var/run/secrets/mariadb-operator/agent";
/// Written by the init container at every creation of a pod.
pub const GALERA_FILE: &str = "0-galera.cnf";
/// Its existence means "bootstrap at the next start".
pub const BOOTSTRAP_FILE: &str = "1-bootstrap.cnf";
/// Galera's saved state.
pub const GRASTATE: &str = "grastate.dat";

/// SQL.
pub const SQL_PORT: u16 = 3306;
/// Group communication.
pub const CLUSTER_PORT: u16 = 4567;
/// Incremental state transfer.
pub const IST_PORT: u16 = 4568;
/// Full state transfer.
pub const SST_PORT: u16 = 4444;
/// The agent's API.
pub const AGENT_PORT: u16 = 5555;
/// The agent's probes: plain HTTP, no authentication.
pub const PROBE_PORT: u16 = 5566;
/// User of the agent's API with `basicAuth`.
pub const AGENT_USER: &str = "mariadb-operator";

/// Condition: the whole resource.
pub const READY: &str = "Ready";
/// Condition: the Galera cluster; `False` starts a recovery.
pub const GALERA_READY: &str = "GaleraReady";
/// Condition: the cluster was complete once.
pub const GALERA_CONFIGURED: &str = "GaleraConfigured";
/// Condition: the first volume holds a data directory.
pub const GALERA_INITIALIZED: &str = "GaleraInitialized";

/// Name of a pod.
#[must_use]
pub fn pod(mariadb: &str, ordinal: u32) -> String {
    format!("{mariadb}-{ordinal}")
}

/// Ordinal of a pod of a MariaDB resource.
#[must_use]
pub fn ordinal(pod: &str) -> Option<u32> {
    pod.rsplit_once('-')?.1.parse().ok()
}

/// Name of the headless Service.
#[must_use]
pub fn internal(mariadb: &str) -> String {
    format!("{mariadb}-internal")
}

/// Host name of a pod in the headless Service.
#[must_use]
pub fn host(mariadb: &str, namespace: &str, ordinal: u32) -> String {
    format!(
        "{}.{}.{namespace}.svc.cluster.local",
        pod(mariadb, ordinal),
        internal(mariadb)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        assert_eq!(ordinal(&pod("maria-db", 2)), Some(2));
        assert_eq!(ordinal("maria"), None);
        assert_eq!(host("m", "db", 0), "m-0.m-internal.db.svc.cluster.local");
    }
}
