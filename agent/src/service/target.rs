//! From the wire's [`Target`] to what the hands understand. Everything is checked here, and once more by the hands.

use hasteward_proto::failure::{Failure, FailureKind};
use hasteward_proto::primitive::{NameError, PodUid};
use hasteward_proto::wire::agent::{self as wire, Target, volume};

use crate::hands::{
    ContainerId, ContainerPath, HostPath, InstanceLocator, LocatorError, VolumeLocator, VolumeName,
    VolumeSource,
};
use crate::volume::{RelativePath, RelativePathError, VolumeRole};

/// No instance has more volumes: data, WAL, scratch and its tablespaces.
const VOLUMES_MAX: usize = 256;

/// A target that cannot be.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// There is none.
    #[error("the request has no target")]
    Missing,
    /// The pod's UID.
    #[error(transparent)]
    Pod(#[from] NameError),
    /// A name or a path.
    #[error(transparent)]
    Locator(#[from] LocatorError),
    /// A subPath.
    #[error("subPath: {0}")]
    SubPath(#[from] RelativePathError),
    /// A volume of no role, or none that this release knows.
    #[error("volume {0:?} has no role that this agent knows")]
    Role(String),
    /// A volume of no source, or none that this release knows.
    #[error("volume {0:?} has no source that this agent knows")]
    Source(String),
    /// More volumes than an instance can have.
    #[error("{0} volumes")]
    Volumes(usize),
}

impl From<TargetError> for Failure {
    fn from(error: TargetError) -> Self {
        Self::new("agent-target", FailureKind::Input, error.to_string())
    }
}

/// The locator of `target`.
pub(super) fn locator(target: Option<Target>) -> Result<InstanceLocator, TargetError> {
    let target = target.ok_or(TargetError::Missing)?;
    if target.volumes.len() > VOLUMES_MAX {
        return Err(TargetError::Volumes(target.volumes.len()));
    }
    let container = match target.container_id.as_str() {
        "" => None,
        id => Some(ContainerId::new(id)?),
    };
    let volumes = target
        .volumes
        .into_iter()
        .map(volume_locator)
        .collect::<Result<_, _>>()?;
    Ok(InstanceLocator {
        pod: PodUid::new(&target.pod_uid)?,
        container,
        volumes,
    })
}

fn volume_locator(volume: wire::Volume) -> Result<VolumeLocator, TargetError> {
    let role = match volume.role() {
        wire::VolumeRole::PgData => VolumeRole::PgData,
        wire::VolumeRole::PgWal => VolumeRole::PgWal,
        wire::VolumeRole::PgTablespace => VolumeRole::Tablespace(volume.tablespace),
        wire::VolumeRole::Scratch => VolumeRole::Scratch,
        wire::VolumeRole::MariadbData => VolumeRole::MariadbData,
        wire::VolumeRole::GaleraConfig => VolumeRole::GaleraConfig,
        wire::VolumeRole::Unspecified => return Err(TargetError::Role(volume.name)),
    };
    let source = match volume.source {
        Some(volume::Source::Csi(_)) => VolumeSource::Csi,
        Some(volume::Source::Local(local)) => VolumeSource::Local(HostPath::new(&local.path)?),
        Some(volume::Source::HostPath(host)) => VolumeSource::HostPath(HostPath::new(&host.path)?),
        Some(volume::Source::EmptyDir(_)) => VolumeSource::EmptyDir,
        Some(volume::Source::Nfs(_)) => VolumeSource::Nfs,
        None => return Err(TargetError::Source(volume.name)),
    };
    let sub_path = match volume.sub_path.trim_matches('/') {
        "" => RelativePath::root(),
        text => RelativePath::new(text)?,
    };
    Ok(VolumeLocator {
        role,
        name: VolumeName::new(&volume.name)?,
        source,
        mount_path: ContainerPath::new(&volume.mount_path)?,
        sub_path,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target() -> Target {
        Target {
            namespace: "ns".to_owned(),
            cluster: "c".to_owned(),
            instance: "c-1".to_owned(),
            pod_uid: "0b7a1c9e-1f7e-4a43-9d3a-0a9d6b3f1c11".to_owned(),
            container: "postgres".to_owned(),
            container_id: String::new(),
            volumes: vec![wire::Volume {
                role: wire::VolumeRole::PgData.into(),
                tablespace: String::new(),
                name: "pvc-1".to_owned(),
                mount_path: "/var/lib/postgresql/data".to_owned(),
                sub_path: String::new(),
                source: Some(volume::Source::Csi(wire::CsiVolume {})),
            }],
        }
    }

    #[test]
    fn a_target_is_checked_in_every_part() {
        assert!(locator(Some(target())).is_ok());
        assert!(matches!(locator(None), Err(TargetError::Missing)));
        let spoilers: [fn(&mut Target); 8] = [
            |target| target.pod_uid = "../../etc".to_owned(),
            |target| target.container_id = "containerd://x".to_owned(),
            |target| target.volumes[0].name = "../x".to_owned(),
            |target| target.volumes[0].mount_path = "relative".to_owned(),
            |target| target.volumes[0].sub_path = "a/../..".to_owned(),
            |target| target.volumes[0].role = 99,
            |target| target.volumes[0].source = None,
            |target| {
                let path = "/a/../etc".to_owned();
                target.volumes[0].source = Some(volume::Source::HostPath(wire::HostPathVolume { path }));
            },
        ];
        for spoil in spoilers {
            let mut target = target();
            spoil(&mut target);
            assert!(locator(Some(target.clone())).is_err(), "{target:?}");
        }
    }
}
