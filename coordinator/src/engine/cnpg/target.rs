//! What an agent must be told to find one instance. Pure.

use hasteward_proto::primitive::ClusterRef;
use hasteward_proto::wire::agent::{
    CsiVolume, EmptyDirVolume, HostPathVolume, LocalVolume, NfsVolume, Target, Volume, VolumeRole,
    volume::Source,
};

use super::kubernetes::{CONTAINER, label};
use crate::kubernetes::{Caches, Container, PersistentVolume, PersistentVolumeClaim, Pod};

/// CNPG's emptyDir that holds the socket directory.
const SCRATCH: &str = "scratch-data";

/// How to find the instance of `pod`.
pub(super) fn target(cluster: &ClusterRef, pod: &Pod, caches: &Caches) -> Target {
    let name = pod.metadata.name.clone().unwrap_or_default();
    let status = pod.status.container_statuses.iter().find(|c| c.name == CONTAINER);
    let empty = Container::default();
    let container = pod
        .spec
        .containers
        .iter()
        .find(|c| c.name == CONTAINER)
        .unwrap_or(&empty);
    let volumes = pod.spec.volumes.iter().filter_map(|volume| {
        let mount = container.volume_mounts.iter().find(|m| m.name == volume.name)?;
        let (role, tablespace, name, source) = if let Some(claim) = &volume.persistent_volume_claim {
            let claim = caches.claims.get(&cluster.namespace, &claim.claim_name)?;
            let pv = caches.volumes.get("", claim.spec.volume_name.as_deref()?)?;
            let (role, tablespace) = role(&claim)?;
            (role, tablespace, pv.metadata.name.clone()?, source(&pv)?)
        } else if volume.empty_dir.is_some() && volume.name == SCRATCH {
            (
                VolumeRole::Scratch,
                String::new(),
                volume.name.clone(),
                Source::EmptyDir(EmptyDirVolume {}),
            )
        } else {
            return None;
        };
        Some(Volume {
            role: role.into(),
            tablespace,
            name,
            mount_path: mount.mount_path.clone(),
            sub_path: mount.sub_path.clone().unwrap_or_default(),
            source: Some(source),
        })
    });
    Target {
        namespace: cluster.namespace.clone(),
        cluster: cluster.name.clone(),
        instance: label(&pod.metadata, "cnpg.io/instanceName").map_or(name, str::to_owned),
        pod_uid: pod.metadata.uid.clone().unwrap_or_default(),
        container: CONTAINER.to_owned(),
        container_id: status
            .and_then(|s| s.container_id.split_once("://"))
            .map(|(_, id)| id.to_owned())
            .unwrap_or_default(),
        volumes: volumes.collect(),
    }
}

fn role(claim: &PersistentVolumeClaim) -> Option<(VolumeRole, String)> {
    match label(&claim.metadata, "cnpg.io/pvcRole")? {
        "PG_DATA" => Some((VolumeRole::PgData, String::new())),
        "PG_WAL" => Some((VolumeRole::PgWal, String::new())),
        "PG_TABLESPACE" => Some((
            VolumeRole::PgTablespace,
            label(&claim.metadata, "cnpg.io/tablespaceName")?.to_owned(),
        )),
        _ => None,
    }
}

fn source(pv: &PersistentVolume) -> Option<Source> {
    let spec = &pv.spec;
    if spec.csi.is_some() {
        return Some(Source::Csi(CsiVolume {}));
    }
    if let Some(local) = &spec.local {
        return Some(Source::Local(LocalVolume {
            path: local.path.clone(),
        }));
    }
    if let Some(host) = &spec.host_path {
        return Some(Source::HostPath(HostPathVolume {
            path: host.path.clone(),
        }));
    }
    spec.nfs.is_some().then_some(Source::Nfs(NfsVolume {}))
}
