//! The configuration files the manager keeps in PGDATA. Rendering is pure; writing compares first and replaces
//! atomically.

use super::Place;
use crate::cnpg::{Cluster, names};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Settings a standby may not have lower than the primary it came from had.
const NOT_BELOW_CONTROL_FILE: [(&str, &str, &str); 5] = [
    ("max_connections", "max_connections setting:", "100"),
    ("max_worker_processes", "max_worker_processes setting:", "32"),
    ("max_wal_senders", "max_wal_senders setting:", "10"),
    ("max_prepared_transactions", "max_prepared_xacts setting:", "0"),
    ("max_locks_per_transaction", "max_locks_per_xact setting:", "64"),
];

/// `custom.conf`: the user's parameters over CNPG's defaults, fixed parameters over both.
#[must_use]
pub fn custom_conf(place: &Place, cluster: &Cluster, control_data: Option<&str>) -> String {
    let mut parameters: BTreeMap<&str, String> = [
        ("archive_timeout", "5min"),
        ("dynamic_shared_memory_type", "posix"),
        ("full_page_writes", "on"),
        ("log_destination", "stderr"),
        ("max_parallel_workers", "32"),
        ("max_replication_slots", "32"),
        ("max_worker_processes", "32"),
        ("shared_memory_type", "mmap"),
        ("ssl_max_protocol_version", "TLSv1.3"),
        ("ssl_min_protocol_version", "TLSv1.3"),
        ("wal_keep_size", "512MB"),
        ("wal_level", "logical"),
        ("wal_log_hints", "on"),
        ("wal_receiver_timeout", "5s"),
        ("wal_sender_timeout", "5s"),
    ]
    .into_iter()
    .map(|(name, value)| (name, value.to_owned()))
    .collect();
    for (name, value) in &cluster.spec.postgresql.parameters {
        parameters.insert(name, value.clone());
    }
    if !cluster.spec.postgresql.shared_preload_libraries.is_empty() {
        parameters.insert(
            "shared_preload_libraries",
            cluster.spec.postgresql.shared_preload_libraries.join(","),
        );
    }
    let archiving = cluster.annotation(names::SKIP_WAL_ARCHIVING) != Some("enabled");
    let program = place.controller.join("manager");
    let log = place.controller.join("log/postgres.json");
    let certificate = |name: &str| place.certificates().join(name).display().to_string();
    for (name, value) in [
        (
            "archive_command",
            format!(
                "{} wal-archive --log-destination {} %p",
                program.display(),
                log.display()
            ),
        ),
        ("archive_mode", if archiving { "on" } else { "off" }.to_owned()),
        ("cluster_name", place.cluster.clone()),
        ("hot_standby", "on".to_owned()),
        ("listen_addresses", place.listen.clone()),
        ("logging_collector", "off".to_owned()),
        ("port", place.port.to_string()),
        ("restart_after_crash", "false".to_owned()),
        ("ssl", "on".to_owned()),
        ("ssl_ca_file", certificate("client-ca.crt")),
        ("ssl_cert_file", certificate("server.crt")),
        ("ssl_key_file", certificate("server.key")),
        ("unix_socket_directories", place.sockets().display().to_string()),
    ] {
        parameters.insert(name, value);
    }
    if let Some(names) = synchronous_standbys(place, cluster) {
        parameters.insert("synchronous_standby_names", names);
    }
    if let Some(text) = control_data {
        for (name, line, default) in NOT_BELOW_CONTROL_FILE {
            let needed = control_value(text, line).and_then(|value| value.parse::<u64>().ok());
            let wanted = parameters
                .get(name)
                .map_or(default, String::as_str)
                .parse::<u64>()
                .ok();
            if let (Some(needed), Some(wanted)) = (needed, wanted)
                && needed > wanted
            {
                parameters.insert(name, needed.to_string());
            }
        }
    }
    parameters.iter().fold(String::new(), |mut text, (name, value)| {
        let _ = writeln!(text, "{name} = '{}'", value.replace('\'', "''"));
        text
    })
}

/// `synchronous_standby_names`: every other instance, in the order of the status; with `preferred` durability only
/// Ready ones, and none of them means no waiting.
fn synchronous_standbys(place: &Place, cluster: &Cluster) -> Option<String> {
    let wanted = cluster.spec.postgresql.synchronous.as_ref()?;
    let status = cluster.observed();
    let preferred = wanted.data_durability.as_deref() == Some("preferred");
    let healthy = status
        .instances_status
        .get("healthy")
        .cloned()
        .unwrap_or_default();
    let others: Vec<String> = status
        .instance_names
        .iter()
        .filter(|name| **name != place.instance && (!preferred || healthy.contains(name)))
        .map(|name| format!("\"{name}\""))
        .collect();
    if others.is_empty() {
        return None;
    }
    let limit = u32::try_from(others.len()).unwrap_or(u32::MAX);
    let number = if preferred {
        wanted.number.min(limit)
    } else {
        wanted.number
    };
    Some(format!(
        "{} {number} ({})",
        wanted.method.to_uppercase(),
        others.join(",")
    ))
}

/// The value behind a label of `pg_controldata`.
pub(super) fn control_value<'a>(text: &'a str, label: &str) -> Option<&'a str> {
    text.lines()
        .find_map(|line| line.strip_prefix(label))
        .map(str::trim)
}

/// `primary_conninfo` of a replica that follows `host`.
#[must_use]
pub fn replica_source(place: &Place, host: &str) -> String {
    let certificates = place.certificates();
    let certificates = certificates.display();
    format!(
        "host={host} user=streaming_replica port={} sslkey={certificates}/streaming_replica.key \
         sslcert={certificates}/streaming_replica.crt sslrootcert={certificates}/server-ca.crt \
         application_name={} sslmode=verify-ca dbname=postgres tcp_user_timeout='5000'",
        place.port, place.instance
    )
}

/// `override.conf` of a replica, also used while rewinding.
#[must_use]
pub fn override_conf(place: &Place, cluster: &Cluster) -> String {
    let program = place.controller.join("manager");
    let log = place.controller.join("log/postgres.json");
    let mut text = format!(
        "restore_command = '{} wal-restore --log-destination {} %f %p'\nrecovery_target_timeline = 'latest'\n",
        program.display(),
        log.display()
    );
    let slots = &cluster.spec.replication_slots.high_availability;
    if slots.enabled {
        let _ = writeln!(
            text,
            "primary_slot_name = '{}'",
            names::slot(&slots.slot_prefix, &place.instance)
        );
    }
    let source = replica_source(place, &place.write_service()).replace('\'', "''");
    let _ = writeln!(text, "primary_conninfo = '{source}'");
    text
}

/// `pg_hba.conf`.
#[must_use]
pub fn pg_hba(cluster: &Cluster) -> String {
    let mut text = String::from(
        "local all cnpg_metrics_exporter peer map=cnpg_metrics_exporter\n\
         local all all peer map=local\n\
         hostssl postgres streaming_replica all cert map=cnpg_streaming_replica\n\
         hostssl replication streaming_replica all cert map=cnpg_streaming_replica\n\
         hostssl all cnpg_pooler_pgbouncer all cert map=cnpg_pooler_pgbouncer\n",
    );
    for line in &cluster.spec.postgresql.pg_hba {
        let _ = writeln!(text, "{line}");
    }
    text.push_str("host all all all scram-sha-256\n");
    text
}

/// `pg_ident.conf`.
#[must_use]
pub fn pg_ident(os_user: &str, cluster: &Cluster) -> String {
    let mut text = format!(
        "local {os_user} postgres\n\
         cnpg_metrics_exporter {os_user} cnpg_metrics_exporter\n\
         cnpg_streaming_replica streaming_replica streaming_replica\n\
         cnpg_pooler_pgbouncer cnpg_pooler_pgbouncer cnpg_pooler_pgbouncer\n"
    );
    for line in &cluster.spec.postgresql.pg_ident {
        let _ = writeln!(text, "{line}");
    }
    text
}

/// Brings the files in PGDATA up to date; `true` when something changed. Runs on every Cluster event, also under a
/// fence, and makes PGDATA anew when somebody moved it away.
pub(super) fn refresh(place: &Place, cluster: &Cluster, control_data: Option<&str>) -> io::Result<bool> {
    let pgdata = &place.pgdata;
    let replica = !place.is_primary();
    let limits = control_data.filter(|_| replica);
    let mut changed = replace(
        &pgdata.join("custom.conf"),
        &custom_conf(place, cluster, limits),
        0o600,
    )?;
    changed |= replace(&pgdata.join("pg_hba.conf"), &pg_hba(cluster), 0o600)?;
    changed |= replace(
        &pgdata.join("pg_ident.conf"),
        &pg_ident(&place.os_user(), cluster),
        0o600,
    )?;
    changed |= include_ours(pgdata)?;
    if replica {
        changed |= write_replica(place, cluster)?;
    } else if !pgdata.join("override.conf").exists() {
        changed |= replace(&pgdata.join("override.conf"), "", 0o600)?;
    }
    let mode = if cluster.spec.postgresql.enable_alter_system {
        0o600
    } else {
        0o400
    };
    set_auto_conf_mode(pgdata, mode)?;
    Ok(changed)
}

/// Writes what makes PGDATA a replica's.
pub(super) fn write_replica(place: &Place, cluster: &Cluster) -> io::Result<bool> {
    let changed = replace(
        &place.pgdata.join("override.conf"),
        &override_conf(place, cluster),
        0o600,
    )?;
    Ok(replace(&place.pgdata.join("standby.signal"), "", 0o600)? || changed)
}

/// `postgresql.auto.conf` is read-only unless `ALTER SYSTEM` is enabled; pg_rewind needs it writable.
pub(super) fn set_auto_conf_mode(pgdata: &Path, mode: u32) -> io::Result<()> {
    let path = pgdata.join("postgresql.auto.conf");
    match fs::metadata(&path) {
        Ok(found) if found.permissions().mode() & 0o777 == mode => Ok(()),
        Ok(_) => fs::set_permissions(&path, fs::Permissions::from_mode(mode)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn include_ours(pgdata: &Path) -> io::Result<bool> {
    let path = pgdata.join("postgresql.conf");
    let mut text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error),
    };
    for name in ["custom.conf", "override.conf"] {
        let line = format!("include '{name}'");
        if !text.lines().any(|had| had.trim() == line) {
            let _ = write!(text, "\n{line}\n");
        }
    }
    replace(&path, &text, 0o600)
}

/// Replaces a file atomically unless it has this content already; parents are made when missing.
pub(super) fn replace(path: &Path, content: &str, mode: u32) -> io::Result<bool> {
    if fs::read(path).is_ok_and(|had| had == content.as_bytes()) {
        return Ok(false);
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let temporary = path.with_file_name(format!(
        "{}_cnpg_tmp",
        path.file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default()
    ));
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&temporary)?;
    file.write_all(content.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cnpg::{ClusterSpec, ClusterStatus, Synchronous};
    use std::path::PathBuf;

    fn place(pgdata: &Path) -> Place {
        Place {
            instance: "cluster-example-2".to_owned(),
            namespace: "default".to_owned(),
            cluster: "cluster-example".to_owned(),
            pgdata: pgdata.to_owned(),
            controller: PathBuf::from("/controller"),
            wal_volume: PathBuf::from("/nonexistent"),
            tablespaces: PathBuf::from("/nonexistent"),
            programs: PathBuf::from("/nonexistent"),
            port: 5432,
            listen: "*".to_owned(),
        }
    }

    fn cluster(parameters: &[(&str, &str)]) -> Cluster {
        let mut spec = ClusterSpec {
            instances: 3,
            ..ClusterSpec::default()
        };
        for (name, value) in parameters {
            spec.postgresql
                .parameters
                .insert((*name).to_owned(), (*value).to_owned());
        }
        Cluster::new("cluster-example", spec)
    }

    #[test]
    fn fixed_parameters_win_over_the_users() {
        let text = custom_conf(
            &place(Path::new("/pgdata")),
            &cluster(&[
                ("restart_after_crash", "on"),
                ("wal_keep_size", "0"),
                ("search_path", "a'b"),
            ]),
            None,
        );
        assert!(text.contains("restart_after_crash = 'false'\n"), "{text}");
        assert!(text.contains("wal_keep_size = '0'\n"), "{text}");
        assert!(text.contains("search_path = 'a''b'\n"), "{text}");
        assert!(text.contains("wal_log_hints = 'on'\n"), "{text}");
        assert!(
            !text.contains("max_slot_wal_keep_size"),
            "slots are unlimited by default: {text}"
        );
    }

    #[test]
    fn a_standby_keeps_what_its_control_file_demands() {
        let control = "max_connections setting:              300\nmax_wal_senders setting:              5\n";
        let text = custom_conf(
            &place(Path::new("/x")),
            &cluster(&[("max_connections", "50")]),
            Some(control),
        );
        assert!(text.contains("max_connections = '300'\n"), "{text}");
        assert!(!text.contains("max_wal_senders = '5'"), "{text}");
    }

    #[test]
    fn a_replica_follows_the_write_service_through_its_slot() {
        let text = override_conf(&place(Path::new("/x")), &cluster(&[]));
        assert!(
            text.contains("primary_slot_name = '_cnpg_cluster_example_2'\n"),
            "{text}"
        );
        assert!(text.contains("recovery_target_timeline = 'latest'\n"), "{text}");
        assert!(
            text.contains(
                "primary_conninfo = 'host=cluster-example-rw user=streaming_replica port=5432 \
                 sslkey=/controller/certificates/streaming_replica.key \
                 sslcert=/controller/certificates/streaming_replica.crt \
                 sslrootcert=/controller/certificates/server-ca.crt application_name=cluster-example-2 \
                 sslmode=verify-ca dbname=postgres tcp_user_timeout=''5000'''\n"
            ),
            "{text}"
        );
    }

    #[test]
    fn synchronous_standbys_are_the_others() {
        let mut cluster = cluster(&[]);
        cluster.spec.postgresql.synchronous = Some(Synchronous {
            method: "any".to_owned(),
            number: 1,
            data_durability: None,
        });
        let names = ["cluster-example-1", "cluster-example-2", "cluster-example-3"].map(str::to_owned);
        cluster.status = Some(ClusterStatus {
            instance_names: names.to_vec(),
            ..ClusterStatus::default()
        });
        let place = place(Path::new("/x"));
        let expected = "ANY 1 (\"cluster-example-1\",\"cluster-example-3\")";
        assert_eq!(synchronous_standbys(&place, &cluster).as_deref(), Some(expected));
        cluster
            .spec
            .postgresql
            .synchronous
            .as_mut()
            .unwrap()
            .data_durability = Some("preferred".to_owned());
        assert_eq!(synchronous_standbys(&place, &cluster), None, "nobody is Ready");
    }

    #[test]
    fn an_unknown_os_user_matches_everybody() {
        assert!(pg_ident("/", &cluster(&[])).starts_with("local / postgres\n"));
        assert!(pg_ident("postgres", &cluster(&[])).starts_with("local postgres postgres\n"));
    }

    #[test]
    fn refresh_restores_files_and_makes_a_missing_pgdata() {
        let root = tempfile::tempdir().unwrap();
        let place = place(&root.path().join("pgdata"));
        assert!(refresh(&place, &cluster(&[]), None).unwrap(), "PGDATA reappears");
        assert!(place.pgdata.join("custom.conf").exists());
        assert!(
            !place.pgdata.join("standby.signal").exists(),
            "no signal file means primary"
        );
        fs::write(place.pgdata.join("standby.signal"), "tampered").unwrap();
        assert!(refresh(&place, &cluster(&[]), None).unwrap());
        assert_eq!(fs::read(place.pgdata.join("standby.signal")).unwrap(), b"");
        assert!(
            !refresh(&place, &cluster(&[]), None).unwrap(),
            "nothing left to do"
        );
        fs::write(place.pgdata.join("pg_hba.conf"), "host all all all trust\n").unwrap();
        assert!(refresh(&place, &cluster(&[]), None).unwrap());
        let text = fs::read_to_string(place.pgdata.join("postgresql.conf")).unwrap();
        assert_eq!(text.matches("include 'custom.conf'").count(), 1);
    }
}
