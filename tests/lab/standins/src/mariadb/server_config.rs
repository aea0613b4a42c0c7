//! The server's configuration files.

use super::names;
use super::resource::Galera;

/// `1-bootstrap.cnf`.
pub const BOOTSTRAP: &str = "[galera]\nwsrep_new_cluster=\"ON\"";

/// `0-default.cnf`.
pub const DEFAULT: &str = "[mariadb]\nskip-name-resolve\ntemp-pool\nignore_db_dirs='lost+found'\n";

/// The pod that a configuration is for.
#[derive(Clone, Copy, Debug)]
pub struct Node<'a> {
    /// Name of the MariaDB resource.
    pub mariadb: &'a str,
    /// Its namespace.
    pub namespace: &'a str,
    /// Name of the pod.
    pub pod: &'a str,
    /// Address of the pod.
    pub ip: &'a str,
}

/// `0-galera.cnf` of a pod in a cluster of `replicas`. root's password is in it in clear, as with the real operator.
#[must_use]
pub fn galera(node: Node<'_>, galera: &Galera, replicas: u32, root_password: &str) -> String {
    let members: Vec<String> = (0..replicas)
        .map(|ordinal| names::host(node.mariadb, node.namespace, ordinal))
        .collect();
    let ip = node.ip;
    let mut provider = vec![
        format!("gmcast.listen_addr=tcp://0.0.0.0:{}", names::CLUSTER_PORT),
        format!("ist.recv_addr={ip}:{}", names::IST_PORT),
    ];
    provider.extend(
        galera
            .provider_options
            .iter()
            .map(|(key, value)| format!("{key}={value}")),
    );
    let auth = if galera.sst == "rsync" {
        String::new()
    } else {
        format!("wsrep_sst_auth=\"root:{root_password}\"\n")
    };
    format!(
        "[mariadb]\n\
         bind_address=*\n\
         default_storage_engine=InnoDB\n\
         binlog_format=row\n\
         innodb_autoinc_lock_mode=2\n\n\
         # Cluster configuration\n\
         wsrep_on=ON\n\
         wsrep_cluster_address=\"gcomm://{}\"\n\
         wsrep_cluster_name=mariadb-operator\n\
         wsrep_slave_threads={}\n\n\
         # Node configuration\n\
         wsrep_node_address=\"{ip}\"\n\
         wsrep_node_name=\"{}\"\n\
         wsrep_sst_method=\"{}\"\n\
         {auth}\
         wsrep_sst_receive_address=\"{ip}:{}\"\n\n\
         # Provider configuration\n\
         wsrep_provider={}\n\
         wsrep_provider_options=\"{}\"\n",
        members.join(","),
        galera.replica_threads,
        node.pod,
        galera.sst,
        names::SST_PORT,
        galera.galera_lib_path,
        provider.join(";"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_addresses_and_password() {
        let node = Node {
            mariadb: "m",
            namespace: "db",
            pod: "m-1",
            ip: "10.244.2.3",
        };
        let mut settings = Galera::default();
        settings
            .provider_options
            .insert("gcache.size".into(), "32M".into());
        let text = galera(node, &settings, 2, "secret");
        assert!(
            text.contains(
                "gcomm://m-0.m-internal.db.svc.cluster.local,m-1.m-internal.db.svc.cluster.local\""
            )
        );
        assert!(text.contains("wsrep_sst_receive_address=\"10.244.2.3:4444\""));
        assert!(text.contains("ist.recv_addr=10.244.2.3:4568;gcache.size=32M\""));
        assert!(text.contains("wsrep_sst_auth=\"root:secret\""));
        settings.sst = "rsync".into();
        assert!(!galera(node, &settings, 2, "secret").contains("secret"));
    }
}
