//! [`Room`]: space on the volumes of an instance.

use super::subject::Subject;
use crate::evidence::cnpg::{Claim, ClaimRole, ContainerState, Space};

/// `wal_segment_size` of every cluster that did not choose another.
const DEFAULT_SEGMENT: u64 = 16 * 1024 * 1024;
/// The exit code of CNPG's manager when its probe file of one WAL segment does not fit.
const LOW_SPACE_EXIT: i32 = 4;

/// Space of the volume that holds `pg_wal`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) role: ClaimRole,
    /// `None`: not read, but the manager ended with its code for low space.
    pub(crate) space: Option<Space>,
}

/// The volume of `pg_wal`, where not even one more segment fits on it.
pub(crate) fn wal_full(subject: &Subject<'_>) -> Option<Room> {
    let role = wal_role(subject);
    let space = subject
        .ev
        .disk
        .volumes
        .iter()
        .find(|volume| volume.role == role)
        .and_then(|volume| volume.space.value());
    let full = match space {
        Some(space) => space.free_bytes < segment(subject),
        None => subject.server().is_none() && low_space_exit(subject),
    };
    full.then(|| Room {
        role,
        space: space.copied(),
    })
}

/// Which volume `pg_wal` is on.
pub(crate) fn wal_role(subject: &Subject<'_>) -> ClaimRole {
    let linked = subject.ev.disk.wal.value().map(|wal| wal.on_wal_volume);
    let listed = subject
        .ev
        .disk
        .volumes
        .iter()
        .any(|volume| volume.role == ClaimRole::Wal);
    if linked.unwrap_or(listed) {
        ClaimRole::Wal
    } else {
        ClaimRole::Data
    }
}

fn segment(subject: &Subject<'_>) -> u64 {
    subject
        .ev
        .disk
        .control
        .value()
        .map_or(DEFAULT_SEGMENT, |control| u64::from(control.wal_segment_size))
}

fn low_space_exit(subject: &Subject<'_>) -> bool {
    let Some(pod) = subject.ev.pod.value() else {
        return false;
    };
    match pod.container {
        ContainerState::Waiting { last_exit, .. } => last_exit == Some(LOW_SPACE_EXIT),
        ContainerState::Terminated { exit } => exit == LOW_SPACE_EXIT,
        ContainerState::Running { .. } | ContainerState::Unreported => false,
    }
}

/// The PVC of a volume.
pub(crate) fn claim<'a>(subject: &Subject<'a>, role: &ClaimRole) -> Option<&'a Claim> {
    subject
        .ev
        .claims
        .value()
        .and_then(|claims| claims.iter().find(|claim| claim.role == *role))
}

/// How a report names a volume.
pub(crate) fn volume_name(role: &ClaimRole) -> String {
    match role {
        ClaimRole::Data => "data".to_owned(),
        ClaimRole::Wal => "wal".to_owned(),
        ClaimRole::Tablespace(name) => format!("tablespace {name}"),
        ClaimRole::Other(name) => name.clone(),
    }
}
