//! From a pod to what the runtime is told: pure.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::env::expand;
use super::security::{SecurityError, credentials, is_privileged};
use crate::image::Image;
use crate::runtime::cgroup::Qos;
use crate::runtime::spec::{Bind, Command, ContainerSpec, Propagation, RootFile, RootFs};

/// A volume of the pod that is in place on the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountedVolume {
    /// Where.
    pub path: PathBuf,
    /// Read-only whatever the mount says.
    pub read_only: bool,
}

/// Volumes in place, by their name in the pod.
pub type MountedVolumes = BTreeMap<String, MountedVolume>;

/// Why a pod cannot be run as it is (kubelet: `CreateContainerConfigError`).
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A mount of a volume that the pod does not have.
    #[error("volume {0:?} is not in the pod")]
    UnknownVolume(String),
    /// `Bidirectional`, which the lab does not offer.
    #[error("mountPropagation {0:?} is not supported")]
    Propagation(String),
    /// No command anywhere.
    #[error("no command specified")]
    NoCommand,
    /// The security context.
    #[error(transparent)]
    Security(#[from] SecurityError),
}

/// A volume mount of a container, before its subPath is resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedMount {
    /// Name of the volume.
    pub volume: String,
    /// Place in the container's list: part of the subPath's mount path.
    pub index: usize,
    /// Relative path in the volume, expanded.
    pub sub_path: Option<String>,
    /// The mount without a subPath.
    pub bind: Bind,
}

/// The quality of service class: from the status, else by the rules.
pub fn qos(pod: &Pod) -> Qos {
    match pod.status.as_ref().and_then(|status| status.qos_class.as_deref()) {
        Some("Guaranteed") => return Qos::Guaranteed,
        Some("Burstable") => return Qos::Burstable,
        Some("BestEffort") => return Qos::BestEffort,
        _ => {}
    }
    let Some(spec) = &pod.spec else {
        return Qos::BestEffort;
    };
    let mut any = false;
    let mut guaranteed = true;
    for container in spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().flatten())
    {
        let resources = container.resources.clone().unwrap_or_default();
        let (limits, requests) = (
            resources.limits.unwrap_or_default(),
            resources.requests.unwrap_or_default(),
        );
        for resource in ["cpu", "memory"] {
            let (limit, request): (Option<&Quantity>, Option<&Quantity>) =
                (limits.get(resource), requests.get(resource));
            any |= limit.is_some() || request.is_some();
            guaranteed &= limit.is_some() && request.is_none_or(|request| Some(request) == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => Qos::BestEffort,
        (true, true) => Qos::Guaranteed,
        (true, false) => Qos::Burstable,
    }
}

/// Host name of a pod.
pub fn hostname(pod: &Pod) -> String {
    let name = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.hostname.clone())
        .filter(|name| !name.is_empty());
    let mut name = name.or_else(|| pod.metadata.name.clone()).unwrap_or_default();
    name.truncate(63);
    name.trim_end_matches(['-', '.']).to_owned()
}

/// Whether the pod uses the node's network.
pub fn host_network(spec: &PodSpec) -> bool {
    spec.host_network == Some(true)
}

/// The volume mounts of a container, shallow before deep, so that one may be below another.
///
/// # Errors
/// See [`PlanError`].
pub fn mounts(
    container: &Container,
    volumes: &MountedVolumes,
    env: &BTreeMap<String, String>,
) -> Result<Vec<WantedMount>, PlanError> {
    let mut wanted = Vec::new();
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let volume = volumes
            .get(&mount.name)
            .ok_or_else(|| PlanError::UnknownVolume(mount.name.clone()))?;
        let propagation = match mount.mount_propagation.as_deref() {
            None | Some("" | "None") => Propagation::None,
            Some("HostToContainer") => Propagation::HostToContainer,
            Some(other) => return Err(PlanError::Propagation(other.to_owned())),
        };
        let sub_path = match (&mount.sub_path, &mount.sub_path_expr) {
            (Some(path), _) if !path.is_empty() => Some(path.clone()),
            (_, Some(expression)) if !expression.is_empty() => Some(expand(expression, env)),
            _ => None,
        };
        wanted.push(WantedMount {
            volume: mount.name.clone(),
            index,
            sub_path,
            bind: Bind {
                from: volume.path.clone(),
                to: Path::new("/").join(&mount.mount_path),
                read_only: volume.read_only || mount.read_only == Some(true),
                recursive: true,
                propagation,
            },
        });
    }
    wanted.sort_by_key(|mount| mount.bind.to.components().count());
    Ok(wanted)
}

/// Directories and processes a container's specification refers to.
#[derive(Clone, Debug)]
pub struct Place {
    /// Pid of the sandbox.
    pub sandbox: i32,
    /// cgroup directory.
    pub cgroup: PathBuf,
    /// cgroup directory of the monitor.
    pub monitor_cgroup: Option<PathBuf>,
    /// Where the root tmpfs is mounted.
    pub scratch: PathBuf,
    /// The node's hosts file.
    pub hosts: PathBuf,
    /// The file for the termination message.
    pub termination_log: PathBuf,
}

/// Everything about a container. `mounts` have their subPaths resolved.
///
/// # Errors
/// See [`PlanError`].
pub fn container(
    pod: &Pod,
    container: &Container,
    image: &Image,
    mut env: BTreeMap<String, String>,
    mounts: Vec<Bind>,
    place: &Place,
) -> Result<ContainerSpec, PlanError> {
    let spec = pod.spec.clone().unwrap_or_default();
    let credentials = credentials(&spec, container, image)?;
    let expanded = |list: Option<&Vec<String>>| -> Vec<String> {
        list.into_iter()
            .flatten()
            .map(|text| expand(text, &env))
            .collect()
    };
    let mut argv = expanded(container.command.as_ref());
    if argv.is_empty() {
        argv.clone_from(&image.entrypoint);
    }
    argv.extend(expanded(container.args.as_ref()));
    if argv.is_empty() {
        return Err(PlanError::NoCommand);
    }
    env.entry("PATH".to_owned())
        .or_insert_with(|| "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned());
    if !host_network(&spec) {
        env.insert("HOSTNAME".to_owned(), hostname(pod));
    }
    let home = image
        .user(credentials.uid)
        .map_or_else(|| "/".to_owned(), |(.., home)| home);
    env.entry("HOME".to_owned()).or_insert(home);
    let context = container.security_context.as_ref();
    let privileged = is_privileged(container);
    let (binds, mut files) = image.root();
    for (path, content) in [
        ("/etc/resolv.conf", String::new()),
        ("/etc/host.conf", "multi on\n".to_owned()),
        ("/etc/hostname", format!("{}\n", hostname(pod))),
    ] {
        if !files.iter().any(|file| file.path == Path::new(path)) {
            files.push(RootFile {
                path: path.into(),
                content,
            });
        }
    }
    let kubelet_file = |from: &Path, to: &str| Bind {
        from: from.to_owned(),
        to: to.into(),
        read_only: false,
        recursive: false,
        propagation: Propagation::None,
    };
    let message = container
        .termination_message_path
        .as_deref()
        .unwrap_or("/dev/termination-log");
    let mut all = vec![Bind {
        read_only: true,
        ..kubelet_file(&place.hosts, "/etc/hosts")
    }];
    all.extend(mounts);
    all.push(kubelet_file(&place.termination_log, message));
    Ok(ContainerSpec {
        sandbox: place.sandbox,
        host_pid: spec.host_pid == Some(true),
        cgroup: place.cgroup.clone(),
        monitor_cgroup: place.monitor_cgroup.clone(),
        root: RootFs {
            scratch: place.scratch.clone(),
            image: binds,
            files,
            mounts: all,
            read_only: context.and_then(|context| context.read_only_root_filesystem) == Some(true),
            privileged,
        },
        command: Command {
            argv,
            env,
            cwd: container
                .working_dir
                .as_deref()
                .filter(|path| !path.is_empty())
                .unwrap_or("/")
                .into(),
        },
        credentials,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::needless_pass_by_value, reason = "json!() at every call")]

    use super::*;
    use serde_json::{Value, json};

    fn parse(spec: Value) -> (Pod, Container) {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "pg-1", "namespace": "db", "uid": "u"}, "spec": spec,
        }))
        .unwrap();
        let container = pod.spec.as_ref().unwrap().containers[0].clone();
        (pod, container)
    }

    fn place() -> Place {
        Place {
            sandbox: 7,
            cgroup: "/cg/c".into(),
            monitor_cgroup: None,
            scratch: "/scratch".into(),
            hosts: "/hosts".into(),
            termination_log: "/message".into(),
        }
    }

    #[test]
    fn entrypoint_and_expanded_arguments() {
        let (pod, c) =
            parse(json!({"containers": [{"name": "c", "args": ["--name=$(POD)"]}], "hostPID": true}));
        let image = Image {
            entrypoint: vec!["/bin/x".to_owned()],
            ..Image::default()
        };
        let env = BTreeMap::from([("POD".to_owned(), "pg-1".to_owned())]);
        let spec = container(&pod, &c, &image, env, vec![], &place()).unwrap();
        assert_eq!(spec.command.argv, ["/bin/x", "--name=pg-1"]);
        assert!(spec.host_pid && !spec.root.read_only);
        assert_eq!(spec.command.env["HOSTNAME"], "pg-1");
        let none = container(
            &pod,
            &parse(json!({"containers": [{"name": "c"}]})).1,
            &Image::default(),
            BTreeMap::new(),
            vec![],
            &place(),
        );
        assert_eq!(none, Err(PlanError::NoCommand));
    }

    #[test]
    fn mounts_are_sorted_and_keep_their_index() {
        let (_, c) = parse(json!({"containers": [{"name": "c", "volumeMounts": [
            {"name": "a", "mountPath": "/x/y/z", "subPathExpr": "$(POD)"},
            {"name": "b", "mountPath": "/x", "mountPropagation": "HostToContainer", "readOnly": true},
        ]}]}));
        let volume = |path: &str| MountedVolume {
            path: path.into(),
            read_only: false,
        };
        let volumes = BTreeMap::from([("a".to_owned(), volume("/va")), ("b".to_owned(), volume("/vb"))]);
        let env = BTreeMap::from([("POD".to_owned(), "pg-1".to_owned())]);
        let got = mounts(&c, &volumes, &env).unwrap();
        assert_eq!(
            (got[0].index, got[0].bind.propagation, got[0].bind.read_only),
            (1, Propagation::HostToContainer, true)
        );
        assert_eq!((got[1].index, got[1].sub_path.as_deref()), (0, Some("pg-1")));
        assert!(matches!(
            mounts(&c, &MountedVolumes::new(), &env),
            Err(PlanError::UnknownVolume(_))
        ));
    }

    #[test]
    fn qos_by_the_rules() {
        let class =
            |resources: Value| qos(&parse(json!({"containers": [{"name": "c", "resources": resources}]})).0);
        assert_eq!(class(json!({})), Qos::BestEffort);
        assert_eq!(class(json!({"requests": {"cpu": "1"}})), Qos::Burstable);
        assert_eq!(
            class(json!({"limits": {"cpu": "1", "memory": "1Gi"}})),
            Qos::Guaranteed
        );
        assert_eq!(
            class(json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}})),
            Qos::Burstable
        );
    }

    #[test]
    fn hostname_fits() {
        let (mut pod, _) = parse(json!({"containers": [{"name": "c"}]}));
        pod.metadata.name = Some(format!("{}-b", "a".repeat(62)));
        assert_eq!(hostname(&pod), "a".repeat(62));
    }
}
