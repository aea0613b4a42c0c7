//! [`Memory`]: what was seen of an instance while it could be seen.
//!
//! A replica that was seen streaming on timeline T up to LSN x held at most what its primary had sent by then; that stays
//! known when its node goes down. Kept in memory only: after a restart we know less, never something wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use hasteward_proto::primitive::{ClusterRef, InstanceName, InstanceRef, Lsn, UnixMillis};
use hasteward_verdict::evidence::cnpg::{CnpgEvidence, InstanceEvidence, Remembered, Server, StandbyState};

/// Sightings by instance.
#[derive(Default)]
pub(super) struct Memory {
    seen: Mutex<BTreeMap<InstanceRef, Sightings>>,
}

/// Everything remembered of one instance.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sightings {
    /// Last seen streaming.
    pub(super) streaming: Option<Remembered>,
    /// Last seen writing.
    pub(super) written: Option<Remembered>,
    /// Its latest position while it did not stream, and since when it has been exactly there.
    standing: Option<(Lsn, UnixMillis)>,
}

impl Sightings {
    /// Since when it stands at `position`; `None` where it was never seen there.
    pub(super) fn standing_since(&self, position: Option<Lsn>) -> Option<UnixMillis> {
        let (at, since) = self.standing?;
        (Some(at) == position).then_some(since)
    }
}

impl Memory {
    /// What is remembered of an instance.
    pub(super) fn of(&self, cluster: &ClusterRef, instance: &InstanceName) -> Sightings {
        self.lock()
            .get(&key(cluster, instance))
            .copied()
            .unwrap_or_default()
    }

    /// Notes what `evidence` shows, for the next time.
    pub(super) fn note(&self, evidence: &CnpgEvidence) {
        let at = evidence.collected_at;
        // Rows of an instance that was promoted apart say nothing about the primary's replicas; what it wrote counts.
        let primary = evidence.resource.value().and_then(|r| r.current_primary.as_ref());
        for instance in &evidence.instances {
            let Some(server) = instance.server.value().filter(|s| !s.in_recovery) else {
                continue;
            };
            if Some(&instance.name) == primary {
                self.note_primary(&evidence.cluster, &instance.name, server, at);
            } else {
                self.note_written(&evidence.cluster, &instance.name, server, at);
            }
        }
        let streaming = streaming_names(evidence);
        let mut seen = self.lock();
        for instance in &evidence.instances {
            let sightings = seen.entry(key(&evidence.cluster, &instance.name)).or_default();
            let here = position(instance).filter(|_| !streaming.contains(&instance.name));
            sightings.standing = match (here, sightings.standing) {
                (Some(here), Some((at, since))) if at == here => Some((at, since)),
                (Some(here), _) => Some((here, at)),
                (None, _) => None,
            };
        }
    }

    /// Notes where the primary writes, and the standbys that stream from it.
    pub(super) fn note_primary(
        &self,
        cluster: &ClusterRef,
        name: &InstanceName,
        primary: &Server,
        at: UnixMillis,
    ) {
        self.note_written(cluster, name, primary, at);
        let Some(timeline) = primary.timeline else { return };
        let mut seen = self.lock();
        for row in &primary.standbys {
            let (StandbyState::Streaming, Some(lsn)) = (row.state, row.flush) else {
                continue;
            };
            let Ok(instance) = InstanceName::new(&row.application_name) else {
                continue;
            };
            seen.entry(key(cluster, &instance)).or_default().streaming =
                Some(Remembered { timeline, lsn, at });
        }
    }

    fn note_written(&self, cluster: &ClusterRef, name: &InstanceName, writer: &Server, at: UnixMillis) {
        let (Some(timeline), Some(lsn)) = (writer.timeline, writer.flush) else {
            return;
        };
        self.lock().entry(key(cluster, name)).or_default().written = Some(Remembered { timeline, lsn, at });
    }

    /// Drops what belongs to none of `clusters`.
    pub(super) fn forget_all_but(&self, clusters: &[ClusterRef]) {
        self.lock().retain(|key, _| clusters.contains(&key.cluster));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<InstanceRef, Sightings>> {
        self.seen
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Where an instance is by its own account.
pub(super) fn position(instance: &InstanceEvidence) -> Option<Lsn> {
    let live = instance
        .server
        .value()
        .and_then(|s| s.flush.max(s.receive).max(s.replay));
    live.or_else(|| instance.disk.wal_end.value().map(|w| w.end))
}

fn streaming_names(evidence: &CnpgEvidence) -> BTreeSet<InstanceName> {
    let rows = evidence
        .instances
        .iter()
        .filter_map(|i| i.server.value())
        .flat_map(|s| &s.standbys);
    rows.filter(|r| r.state == StandbyState::Streaming)
        .filter_map(|r| InstanceName::new(&r.application_name).ok())
        .collect()
}

fn key(cluster: &ClusterRef, instance: &InstanceName) -> InstanceRef {
    InstanceRef {
        cluster: cluster.clone(),
        instance: instance.clone(),
    }
}
