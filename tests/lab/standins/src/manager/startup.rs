//! The start-up path, which runs to its end before any fence is looked at.
//!
//! 1. room for one WAL segment, else exit code 4;
//! 2. PGDATA of a primary (no `standby.signal`) although another instance is the primary: archive what waits, rewind,
//!    demote. When archiving or rewinding fails the container dies and tries again, fenced or not;
//! 3. a stale `postmaster.pid` is removed.

use super::configuration::{self, control_value};
use super::state::Shared;
use super::{Place, archive, certificates, postmaster, programs};
use crate::cnpg::Cluster;
use anyhow::Context;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Why an instance cannot start.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    /// No room for a WAL segment: the container leaves with code 4.
    #[error("not enough disk space for a WAL segment")]
    NoSpace,
    /// Anything else: the container leaves with code 1.
    #[error(transparent)]
    Failed(#[from] anyhow::Error),
}

/// What the Cluster's status tells an instance whose PGDATA is a primary's.
#[derive(Debug, PartialEq, Eq)]
enum FormerPrimary {
    /// It is the primary, or about to be.
    Lead,
    /// The roles are in motion.
    Wait,
    /// Another instance leads.
    Follow,
}

fn coherence(cluster: &Cluster, instance: &str) -> FormerPrimary {
    match (cluster.current_primary(), cluster.target_primary()) {
        (_, Some(target)) if target == instance => FormerPrimary::Lead,
        (Some(current), Some(target)) if current == target => FormerPrimary::Follow,
        _ => FormerPrimary::Wait,
    }
}

/// Runs the start-up path.
pub(super) async fn prepare(shared: &Arc<Shared>) -> Result<(), StartError> {
    let place = &shared.place;
    if !place.pgdata.join("PG_VERSION").exists() {
        return Err(anyhow::anyhow!("{} holds no database cluster", place.pgdata.display()).into());
    }
    // The kubelet opens a volume with an fsGroup for the group whenever it mounts it; the server refuses that.
    fs::set_permissions(&place.pgdata, fs::Permissions::from_mode(0o700)).context("closing PGDATA")?;
    let control = programs::output(place, "pg_controldata", &[&place.pgdata]).await?;
    if !has_room(place, &control).await {
        return Err(StartError::NoSpace);
    }
    certificates::refresh(place, &shared.scope).await?;
    configuration::refresh(place, &shared.cluster(), Some(&control)).context("writing the configuration")?;
    if place.is_primary() {
        verify_leadership(shared).await?;
    }
    postmaster::remove_stale_pid(place).context("removing a stale postmaster.pid")?;
    Ok(())
}

/// Whether the WAL directory has room for one more segment: a file of that size is written and removed.
pub(super) async fn has_room(place: &Place, control_data: &str) -> bool {
    let segment = control_value(control_data, "Bytes per WAL segment:")
        .and_then(|v| v.parse().ok())
        .unwrap_or(16 << 20);
    let probe = place.wal().join("_cnpg_probe_disk_space");
    let written = tokio::task::spawn_blocking(move || {
        let result = write_zeros(&probe, segment);
        let _ = fs::remove_file(&probe);
        result
    })
    .await;
    match written {
        Ok(Err(error)) if error.kind() == io::ErrorKind::StorageFull => false,
        Ok(Err(error)) => {
            tracing::warn!("the disk space probe failed: {error}");
            true
        }
        _ => true,
    }
}

fn write_zeros(path: &std::path::Path, mut bytes: usize) -> io::Result<()> {
    let mut file = fs::File::create(path)?;
    let zeros = vec![0_u8; 1 << 20];
    while bytes > 0 {
        let part = bytes.min(zeros.len());
        file.write_all(&zeros[..part])?;
        bytes -= part;
    }
    file.sync_data()
}

async fn verify_leadership(shared: &Arc<Shared>) -> anyhow::Result<()> {
    let place = &shared.place;
    loop {
        let cluster = shared.cluster();
        match coherence(&cluster, &place.instance) {
            FormerPrimary::Lead => return Ok(()),
            FormerPrimary::Follow => {
                let host = OsString::from(place.write_service());
                if programs::accepts_connections(place, &host).await {
                    return demote(shared, &cluster).await;
                }
                tracing::info!("waiting for the new primary to accept connections");
            }
            FormerPrimary::Wait => tracing::info!("waiting for a primary to be elected"),
        }
        let _ = tokio::time::timeout(Duration::from_secs(1), shared.changed.notified()).await;
    }
}

/// Makes a former primary a replica of the new one.
async fn demote(shared: &Arc<Shared>, cluster: &Cluster) -> anyhow::Result<()> {
    let place = &shared.place;
    tracing::info!("this is a former primary, rewinding it");
    postmaster::remove_stale_pid(place)?;
    configuration::set_auto_conf_mode(&place.pgdata, 0o600)?;
    let archived = archive::store_all_ready(place, cluster).context("archiving the WAL that is left")?;
    tracing::info!(archived, "the WAL that was left is archived");
    let overrides = configuration::override_conf(place, cluster);
    configuration::replace(&place.pgdata.join("override.conf"), &overrides, 0o600)?;
    shared.rewinding.store(true, Ordering::SeqCst);
    let result = rewind(place).await;
    shared.rewinding.store(false, Ordering::SeqCst);
    result?;
    configuration::write_replica(place, cluster).context("writing the replica's configuration")?;
    let control = programs::output(place, "pg_controldata", &[&place.pgdata]).await?;
    configuration::refresh(place, cluster, Some(&control)).context("writing the configuration")?;
    Ok(())
}

async fn rewind(place: &Place) -> anyhow::Result<()> {
    let control = place.pgdata.join("global/pg_control");
    let old = place.pgdata.join("global/pg_control.old");
    fs::copy(&control, &old).context("keeping pg_control")?;
    let source = configuration::replica_source(place, &place.write_service());
    programs::run(
        place,
        "pg_rewind",
        &[
            OsStr::new("-P"),
            OsStr::new("--source-server"),
            OsStr::new(&source),
            OsStr::new("--target-pgdata"),
            place.pgdata.as_os_str(),
            OsStr::new("--restore-target-wal"),
        ],
    )
    .await?;
    // A rewind that copied anything has removed it already: the source has no such file.
    match fs::remove_file(&old) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).context("removing the kept pg_control")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cnpg::{ClusterSpec, ClusterStatus};
    use rstest::rstest;

    #[rstest]
    #[case(None, Some("c-1"), FormerPrimary::Lead)]
    #[case(Some("c-1"), Some("c-1"), FormerPrimary::Lead)]
    #[case(Some("c-2"), Some("c-1"), FormerPrimary::Lead)]
    #[case(Some("c-2"), Some("c-2"), FormerPrimary::Follow)]
    #[case(Some("c-1"), Some("pending"), FormerPrimary::Wait)]
    #[case(Some("c-1"), Some("c-2"), FormerPrimary::Wait)]
    #[case(None, None, FormerPrimary::Wait)]
    fn coherence_of_a_primary(
        #[case] current: Option<&str>,
        #[case] target: Option<&str>,
        #[case] expected: FormerPrimary,
    ) {
        let mut cluster = Cluster::new("c", ClusterSpec::default());
        cluster.status = Some(ClusterStatus {
            current_primary: current.map(str::to_owned),
            target_primary: target.map(str::to_owned),
            ..ClusterStatus::default()
        });
        assert_eq!(coherence(&cluster, "c-1"), expected);
    }
}
