//! `archive_command` and `restore_command`. The lab's archive is a directory laid out as Barman's object store;
//! without a configured backup archiving succeeds and throws the WAL away, as CloudNativePG does.

use super::{Place, local};
use crate::cnpg::{Cluster, names};
use anyhow::{Context, bail};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Where a WAL file belongs below the archive's `wals/`.
fn key(name: &str) -> PathBuf {
    let is_segment = name.len() >= 24 && name.as_bytes()[..24].iter().all(u8::is_ascii_hexdigit);
    if is_segment {
        Path::new(&name[..16]).join(name)
    } else {
        PathBuf::from(name)
    }
}

fn archive_directory(cluster: &Cluster) -> anyhow::Result<Option<PathBuf>> {
    let Some(store) = cluster
        .spec
        .backup
        .as_ref()
        .and_then(|backup| backup.barman_object_store.as_ref())
    else {
        return Ok(None);
    };
    let directory = store.directory().context("the lab archives to file:///… only")?;
    let server = store
        .server_name
        .as_deref()
        .or(cluster.metadata.name.as_deref())
        .unwrap_or_default();
    Ok(Some(Path::new(directory).join(server).join("wals")))
}

/// Archives one file, without asking who the primary is.
pub(super) fn store(cluster: &Cluster, source: &Path) -> anyhow::Result<()> {
    let name = source
        .file_name()
        .and_then(|name| name.to_str())
        .context("a WAL file has a name")?;
    if cluster.annotation(names::BREAK_ARCHIVING) == Some("true") {
        bail!(
            "archiving {name}: broken by annotation {}",
            names::BREAK_ARCHIVING
        );
    }
    let Some(directory) = archive_directory(cluster)? else {
        tracing::info!("no backup configured, {name} is discarded");
        return Ok(());
    };
    let destination = directory.join(key(name));
    if let Some(parent) = destination.parent() {
        fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
    }
    let temporary = destination.with_extension("tmp");
    fs::copy(source, &temporary).with_context(|| format!("copying {name} into the archive"))?;
    fs::File::open(&temporary)?.sync_all()?;
    fs::rename(&temporary, &destination).with_context(|| format!("naming {name} in the archive"))?;
    Ok(())
}

/// Archives every `.ready` file, oldest first, and marks it done.
pub(super) fn store_all_ready(place: &Place, cluster: &Cluster) -> anyhow::Result<usize> {
    let status = place.wal().join("archive_status");
    let mut ready: Vec<String> = match fs::read_dir(&status) {
        Ok(entries) => entries
            .filter_map(Result::ok)
            .filter_map(|entry| {
                entry
                    .file_name()
                    .to_str()?
                    .strip_suffix(".ready")
                    .map(str::to_owned)
            })
            .collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error).context("listing archive_status"),
    };
    ready.sort();
    for name in &ready {
        store(cluster, &place.wal().join(name))?;
        fs::rename(
            status.join(format!("{name}.ready")),
            status.join(format!("{name}.done")),
        )
        .with_context(|| format!("marking {name} as archived"))?;
    }
    Ok(ready.len())
}

/// Number of files that wait for the archiver.
pub(super) fn ready_count(place: &Place) -> u32 {
    let Ok(entries) = fs::read_dir(place.wal().join("archive_status")) else {
        return 0;
    };
    let ready = entries
        .filter_map(Result::ok)
        .filter(|entry| {
            entry
                .file_name()
                .to_str()
                .is_some_and(|name| name.strip_suffix(".ready").is_some())
        })
        .count();
    u32::try_from(ready).unwrap_or(u32::MAX)
}

/// Why `wal-archive` refuses to act for an instance, if it does.
fn refusal(cluster: &Cluster, instance: &str, name: &str) -> Option<String> {
    let current = cluster.current_primary();
    if current != Some(instance) {
        return Some(format!(
            "{instance} is not the current primary, refusing archiving of {name}"
        ));
    }
    if name.ends_with(".history") && current != cluster.target_primary() {
        return Some(format!("switchover in progress, refusing archiving of {name}"));
    }
    None
}

/// `manager wal-archive %p`.
pub(super) async fn command_archive(place: &Place, path: &Path) -> anyhow::Result<()> {
    let cluster = local::cluster(place).await?;
    let source = place.pgdata.join(path);
    let name = source
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    if let Some(reason) = refusal(&cluster, &place.instance, &name) {
        bail!(reason);
    }
    let result = store(&cluster, &source);
    if let Err(error) = local::report_archiving(place, result.as_ref().err().map(|e| format!("{e:#}"))).await
    {
        tracing::warn!("the condition was not reported: {error:#}");
    }
    result
}

/// Whether `wal-restore` must not hand out a timeline history to a replica: one from the future would lead it astray.
fn is_future_history(cluster: &Cluster, instance: &str, name: &str) -> bool {
    let Some(timeline) = name
        .strip_suffix(".history")
        .and_then(|hex| u32::from_str_radix(hex, 16).ok())
    else {
        return false;
    };
    let known = cluster.observed().timeline_id.unwrap_or(0);
    let leads = [cluster.current_primary(), cluster.target_primary()].contains(&Some(instance));
    known != 0 && !leads && timeline > known
}

/// `manager wal-restore %f %p`.
pub(super) async fn command_restore(place: &Place, name: &str, path: &Path) -> anyhow::Result<()> {
    let cluster = local::cluster(place).await?;
    if is_future_history(&cluster, &place.instance, name) {
        bail!("{name} is newer than the cluster's timeline, refusing it");
    }
    let directory = archive_directory(&cluster)?.context("no archive to restore from")?;
    let source = directory.join(key(name));
    fs::copy(&source, place.pgdata.join(path)).with_context(|| format!("{name} is not in the archive"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cnpg::{Backup, ClusterSpec, ClusterStatus, ObjectStore};
    use rstest::rstest;

    fn cluster(current: &str, target: &str, timeline: Option<u32>) -> Cluster {
        let mut cluster = Cluster::new("c", ClusterSpec::default());
        cluster.status = Some(ClusterStatus {
            current_primary: Some(current.to_owned()),
            target_primary: Some(target.to_owned()),
            timeline_id: timeline,
            ..ClusterStatus::default()
        });
        cluster
    }

    #[rstest]
    #[case("c-1", "c-1", "000000010000000000000001", false)]
    #[case("c-2", "c-2", "000000010000000000000001", true)]
    #[case("c-1", "c-2", "000000010000000000000001", false)]
    #[case("c-1", "c-2", "00000002.history", true)]
    fn refuses(#[case] current: &str, #[case] target: &str, #[case] name: &str, #[case] refused: bool) {
        assert_eq!(
            refusal(&cluster(current, target, None), "c-1", name).is_some(),
            refused
        );
    }

    #[rstest]
    #[case(Some(2), "c-3", "00000003.history", true)]
    #[case(Some(3), "c-3", "00000003.history", false)]
    #[case(None, "c-3", "00000003.history", false)]
    #[case(Some(2), "c-1", "00000003.history", false)]
    #[case(Some(2), "c-3", "000000030000000000000001", false)]
    fn futures(#[case] known: Option<u32>, #[case] who: &str, #[case] name: &str, #[case] future: bool) {
        assert_eq!(
            is_future_history(&cluster("c-1", "c-1", known), who, name),
            future
        );
    }

    #[test]
    fn stores_as_barman_does_and_can_be_broken() {
        let root = tempfile::tempdir().unwrap();
        let mut cluster = cluster("c-1", "c-1", None);
        let segment = root.path().join("000000010000000000000007");
        fs::write(&segment, "wal").unwrap();
        store(&cluster, &segment).unwrap();
        cluster.spec.backup = Some(Backup {
            barman_object_store: Some(ObjectStore {
                destination_path: format!("file://{}", root.path().join("archive").display()),
                server_name: None,
            }),
        });
        store(&cluster, &segment).unwrap();
        assert!(
            root.path()
                .join("archive/c/wals/0000000100000000/000000010000000000000007")
                .exists()
        );
        let annotations = cluster.metadata.annotations.get_or_insert_default();
        annotations.insert(names::BREAK_ARCHIVING.to_owned(), "true".to_owned());
        assert!(store(&cluster, &segment).is_err());
    }
}
