//! Security contexts: container over pod over image.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, PodSpec};

use crate::image::Image;
use crate::runtime::spec::Credentials;

/// containerd's default bounding set.
pub const DEFAULT_CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// Why a security context cannot be had.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecurityError {
    /// `runAsNonRoot` with uid 0.
    #[error("container has runAsNonRoot and image will run as root")]
    Root,
    /// An id that does not fit.
    #[error("{0} is no user or group id")]
    Id(i64),
}

/// Whether the container is privileged.
pub fn is_privileged(container: &Container) -> bool {
    container
        .security_context
        .as_ref()
        .and_then(|context| context.privileged)
        == Some(true)
}

/// The credentials of a container.
///
/// # Errors
/// See [`SecurityError`].
pub fn credentials(
    spec: &PodSpec,
    container: &Container,
    image: &Image,
) -> Result<Credentials, SecurityError> {
    let pod = spec.security_context.clone().unwrap_or_default();
    let own = container.security_context.clone().unwrap_or_default();
    let id = |value: i64| u32::try_from(value).map_err(|_| SecurityError::Id(value));
    let uid = own.run_as_user.or(pod.run_as_user).map_or(Ok(0), id)?;
    if uid == 0 && own.run_as_non_root.or(pod.run_as_non_root) == Some(true) {
        return Err(SecurityError::Root);
    }
    let user = image.user(uid);
    let gid = match own.run_as_group.or(pod.run_as_group) {
        Some(gid) => id(gid)?,
        None => user.as_ref().map_or(0, |(_, gid, _)| *gid),
    };
    let mut groups: BTreeSet<u32> = user
        .map(|(name, ..)| image.groups_of(&name))
        .into_iter()
        .flatten()
        .collect();
    for group in pod.supplemental_groups.into_iter().flatten().chain(pod.fs_group) {
        groups.insert(id(group)?);
    }
    groups.insert(gid);
    let privileged = own.privileged == Some(true);
    Ok(Credentials {
        uid,
        gid,
        groups: groups.into_iter().collect(),
        capabilities: capabilities(privileged, own.capabilities.as_ref()),
        no_new_privileges: own.allow_privilege_escalation == Some(false),
    })
}

fn capabilities(privileged: bool, asked: Option<&k8s_openapi::api::core::v1::Capabilities>) -> Vec<String> {
    let every = || -> BTreeSet<String> { caps::all().into_iter().map(|each| each.to_string()).collect() };
    if privileged {
        return every().into_iter().collect();
    }
    let list = |names: Option<&Vec<String>>| names.cloned().unwrap_or_default();
    let (add, drop) = asked.map_or_else(Default::default, |c| {
        (list(c.add.as_ref()), list(c.drop.as_ref()))
    });
    let all = |names: &[String]| names.iter().any(|name| name.eq_ignore_ascii_case("ALL"));
    let mut set: BTreeSet<String> = if all(&add) {
        every()
    } else if all(&drop) {
        BTreeSet::new()
    } else {
        DEFAULT_CAPABILITIES.into_iter().map(str::to_owned).collect()
    };
    let canonical = |name: &String| caps::to_canonical(name);
    for name in drop.iter().map(canonical) {
        set.remove(&name);
    }
    set.extend(
        add.iter()
            .filter(|name| !name.eq_ignore_ascii_case("ALL"))
            .map(canonical),
    );
    set.into_iter().collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::needless_pass_by_value, reason = "json!() at every call")]

    use super::*;
    use serde_json::{Value, json};

    fn of(pod: Value, container: Value) -> Result<Credentials, SecurityError> {
        let spec: PodSpec =
            serde_json::from_value(json!({"containers": [], "securityContext": pod})).unwrap();
        let container: Container =
            serde_json::from_value(json!({"name": "c", "securityContext": container})).unwrap();
        let mut image = Image::default();
        image
            .files
            .insert("/etc/passwd".into(), "postgres:x:26:27::/:/bin/sh\n".into());
        credentials(&spec, &container, &image)
    }

    #[test]
    fn drop_all_and_add() {
        let got = of(
            json!({}),
            json!({"capabilities": {"drop": ["ALL"], "add": ["SYS_PTRACE", "CAP_SETUID"]}}),
        )
        .unwrap();
        assert_eq!(got.capabilities, ["CAP_SETUID", "CAP_SYS_PTRACE"]);
    }

    #[test]
    fn default_set_less_one() {
        let got = of(json!({}), json!({"capabilities": {"drop": ["NET_RAW"]}})).unwrap();
        assert_eq!(got.capabilities.len(), 13);
        assert!(!got.capabilities.contains(&"CAP_NET_RAW".to_owned()) && (got.uid, got.gid) == (0, 0));
    }

    #[test]
    fn container_over_pod_over_image() {
        let got = of(json!({"runAsUser": 26, "fsGroup": 30}), json!({})).unwrap();
        assert_eq!((got.uid, got.gid, got.groups), (26, 27, vec![27, 30]));
        let got = of(
            json!({"runAsUser": 26, "runAsGroup": 5}),
            json!({"runAsUser": 7, "allowPrivilegeEscalation": false}),
        );
        let got = got.unwrap();
        assert_eq!((got.uid, got.gid, got.no_new_privileges), (7, 5, true));
    }

    #[test]
    fn root_is_refused_when_it_must_not_be() {
        assert_eq!(
            of(json!({"runAsNonRoot": true}), json!({})),
            Err(SecurityError::Root)
        );
        assert!(of(json!({"runAsNonRoot": true, "runAsUser": 26}), json!({})).is_ok());
        assert_eq!(
            of(json!({"runAsUser": -1}), json!({})),
            Err(SecurityError::Id(-1))
        );
    }
}
