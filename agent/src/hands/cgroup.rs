//! Which pod and container a process belongs to, from `/proc/<pid>/cgroup`.
//!
//! Shapes (kubelet and the runtimes choose them): systemd driver
//! `…/kubepods-burstable-pod<uid, - as _>.slice/cri-containerd-<id>.scope`, cgroupfs driver
//! `…/kubepods/burstable/pod<uid>/<id>`, with `crio-` and `docker-` scopes, under any prefix (kind nests everything), in v2
//! (`0::<path>`) and v1 (`<n>:<controllers>:<path>`) lines, of which a host may have both. So: no full paths, every line.

use hasteward_proto::primitive::PodUid;

use super::verb::ContainerId;

/// What `/proc/<pid>/cgroup` says of one process and one pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Membership {
    /// It is in another cgroup.
    Elsewhere,
    /// It is CRI-O's monitor of a container, outside the container though in the pod.
    Monitor,
    /// It is in the pod; in this container, where the path says which.
    Member(Option<ContainerId>),
}

/// Reads `cgroup`, the text of `/proc/<pid>/cgroup`.
#[must_use]
pub(super) fn membership(cgroup: &str, pod: &PodUid) -> Membership {
    let mut best = Membership::Elsewhere;
    for path in cgroup.lines().filter_map(|line| line.splitn(3, ':').nth(2)) {
        let mut components = path.split('/').skip_while(|component| !is_pod(component, pod));
        if components.next().is_none() {
            continue;
        }
        let leaf = components.next().unwrap_or("");
        let scope = leaf.strip_suffix(".scope").unwrap_or(leaf);
        if scope.contains("conmon") {
            return Membership::Monitor;
        }
        let id = scope.rsplit('-').next().and_then(|id| ContainerId::new(id).ok());
        if id.is_some() || best == Membership::Elsewhere {
            best = Membership::Member(id);
        }
    }
    best
}

/// `pod<uid>`, or `<anything>-pod<uid>.slice` with the uid's dashes as underscores.
fn is_pod(component: &str, pod: &PodUid) -> bool {
    let name = component
        .strip_suffix(".slice")
        .unwrap_or(component)
        .replace('_', "-");
    let Some(before) = name
        .strip_suffix(pod.as_str())
        .and_then(|rest| rest.strip_suffix("pod"))
    else {
        return false;
    };
    before.is_empty() || before.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const UID: &str = "0b7a1c9e-1f7e-4a43-9d3a-0a9d6b3f1c11";
    const OTHER: &str = "1b7a1c9e-1f7e-4a43-9d3a-0a9d6b3f1c11";
    const STATIC: &str = "d6c7a1f08a2b4c5d9e0f112233445566";
    const ID: &str = "4f0c6e2d9b8a7f6e5d4c3b2a190817263544f0c6e2d9b8a7f6e5d4c3b2a19081";

    fn of(cgroup: &str, uid: &str) -> Membership {
        membership(cgroup, &PodUid::new(uid).unwrap())
    }

    #[test]
    fn every_shape_is_found() {
        let slice = UID.replace('-', "_");
        let member = Membership::Member(Some(ContainerId::new(ID).unwrap()));
        let shapes = [
            format!(
                "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{slice}.slice/cri-containerd-{ID}.scope"
            ),
            format!(
                "0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{slice}.slice/crio-{ID}.scope"
            ),
            format!("0::/kubepods.slice/kubepods-pod{slice}.slice/docker-{ID}.scope"),
            format!("0::/kubepods/burstable/pod{UID}/{ID}"),
            format!("0::/kubepods/pod{UID}/{ID}/init"),
            format!(
                "0::/system.slice/docker-{ID}.scope/kubelet.slice/kubelet-kubepods.slice/\
                 kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod{slice}.slice/cri-containerd-{ID}.scope"
            ),
            format!("0::/../../kubepods/burstable/pod{UID}/{ID}"),
            format!(
                "12:memory:/kubepods/burstable/pod{UID}/{ID}\n1:name=systemd:/kubepods/burstable/pod{UID}/{ID}\n0::/"
            ),
            format!(
                "1:name=systemd:/kubepods.slice/kubepods-pod{slice}.slice/cri-containerd-{ID}.scope\n0::/\n"
            ),
            format!("4:cpu,cpuacct:/\n0::/kubepods/pod{UID}/{ID}"),
        ];
        for shape in shapes {
            assert_eq!(of(&shape, UID), member, "{shape}");
            assert_eq!(of(&shape, OTHER), Membership::Elsewhere, "{shape}");
        }
        let fixed = format!(
            "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{STATIC}.slice/cri-containerd-{ID}.scope"
        );
        assert_eq!(of(&fixed, STATIC), member);
    }

    #[test]
    fn what_is_not_the_pod_is_not() {
        let slice = UID.replace('-', "_");
        for shape in [
            String::new(),
            "0::/".to_owned(),
            format!("0::/kubepods/burstable/pod{UID}0/{ID}"),
            format!("0::/kubepods/burstable/notpod{UID}/{ID}"),
            format!("0::/kubepods/burstable/{UID}/{ID}"),
            format!("0:/kubepods/pod{UID}/{ID}"),
        ] {
            assert_eq!(of(&shape, UID), Membership::Elsewhere, "{shape}");
        }
        let monitor = format!("0::/kubepods.slice/kubepods-pod{slice}.slice/crio-conmon-{ID}.scope");
        assert_eq!(of(&monitor, UID), Membership::Monitor);
        assert_eq!(
            of(&format!("0::/kubepods/pod{UID}"), UID),
            Membership::Member(None)
        );
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in ".*") {
            of(&text, UID);
        }
    }
}
