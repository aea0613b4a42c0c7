//! The node's hosts files: names of Services and of their pods. One a namespace, for the short names.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::IpAddr;
use std::path::Path;

use k8s_openapi::api::core::v1::{Pod, Service};
use kube::ResourceExt as _;

const ZONE: &str = "svc.cluster.local";

/// The text for pods of `namespace`; `api` is the API server's address.
pub fn render<'a>(
    namespace: &str,
    api: Option<IpAddr>,
    services: impl Iterator<Item = &'a Service>,
    pods: &(impl Iterator<Item = &'a Pod> + Clone),
) -> String {
    let mut text = String::from("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n");
    if let Some(api) = api {
        let _ = writeln!(text, "{api} {}", names(namespace, "", "kubernetes", "default"));
    }
    let mut own: BTreeMap<String, String> = BTreeMap::new();
    for pod in pods
        .clone()
        .filter(|pod| pod.namespace().as_deref() == Some(namespace))
    {
        if let Some(ip) = ip(pod) {
            own.insert(pod.name_any(), ip);
        }
    }
    for (name, ip) in own {
        let _ = writeln!(text, "{ip} {name}");
    }
    let mut lines: Vec<String> = services
        .filter(|service| {
            (service.name_any(), service.namespace()) != ("kubernetes".to_owned(), Some("default".to_owned()))
        })
        .flat_map(|service| service_lines(namespace, service, pods.clone()))
        .collect();
    lines.sort();
    text += &lines.concat();
    text
}

fn ip(pod: &Pod) -> Option<String> {
    pod.status.as_ref()?.pod_ip.clone().filter(|ip| !ip.is_empty())
}

fn service_lines<'a>(from: &str, service: &Service, pods: impl Iterator<Item = &'a Pod>) -> Vec<String> {
    let Some(spec) = &service.spec else {
        return Vec::new();
    };
    let Some(selector) = spec.selector.as_ref().filter(|selector| !selector.is_empty()) else {
        return Vec::new();
    };
    let (name, namespace) = (service.name_any(), service.namespace().unwrap_or_default());
    let headless = spec.cluster_ip.as_deref() == Some("None");
    let unready = spec.publish_not_ready_addresses == Some(true);
    let mut lines = Vec::new();
    for pod in pods.filter(|pod| pod.namespace().as_deref() == Some(&namespace)) {
        let labels = pod.labels();
        let matches = selector.iter().all(|(key, value)| labels.get(key) == Some(value));
        if !matches || is_over(pod) || !(unready || is_ready(pod)) {
            continue;
        }
        let Some(ip) = ip(pod) else { continue };
        lines.push(format!("{ip} {}\n", names(from, "", &name, &namespace)));
        if headless {
            let hostname = pod
                .spec
                .as_ref()
                .and_then(|spec| spec.hostname.clone())
                .filter(|name| !name.is_empty());
            let host = hostname.unwrap_or_else(|| pod.name_any());
            lines.push(format!(
                "{ip} {}\n",
                names(from, &format!("{host}."), &name, &namespace)
            ));
        }
    }
    lines
}

/// All names of a Service as seen from the namespace `from`, longest first.
fn names(from: &str, prefix: &str, service: &str, namespace: &str) -> String {
    let mut all = vec![
        format!("{prefix}{service}.{namespace}.{ZONE}"),
        format!("{prefix}{service}.{namespace}.svc"),
        format!("{prefix}{service}.{namespace}"),
    ];
    if from == namespace {
        all.push(format!("{prefix}{service}"));
    }
    all.join(" ")
}

fn is_over(pod: &Pod) -> bool {
    matches!(
        pod.status.as_ref().and_then(|status| status.phase.as_deref()),
        Some("Succeeded" | "Failed")
    )
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    pod.metadata.deletion_timestamp.is_none()
        && conditions
            .into_iter()
            .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Rewrites the file in place, as it is bound into containers; true when it changed.
///
/// # Errors
/// What the file system says.
pub fn write(path: &Path, text: &str) -> std::io::Result<bool> {
    if std::fs::read(path).is_ok_and(|have| have == text.as_bytes()) {
        return Ok(false);
    }
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(false)
        .open(path)?;
    // One write, then the old tail: a reader never sees an empty file.
    file.write_all(text.as_bytes())?;
    file.set_len(text.len() as u64)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::needless_pass_by_value, reason = "json!() at every call")]

    use super::*;
    use serde_json::json;
    use std::os::unix::fs::MetadataExt as _;

    fn pod(name: &str, ip: &str, ready: bool) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "db", "labels": {"app": "pg"}},
            "status": {"podIP": ip, "phase": "Running",
                "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]},
        }))
        .unwrap()
    }

    fn service(name: &str, more: serde_json::Value) -> Service {
        let mut spec = json!({"selector": {"app": "pg"}});
        spec.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        serde_json::from_value(json!({"metadata": {"name": name, "namespace": "db"}, "spec": spec})).unwrap()
    }

    #[test]
    fn ready_pods_of_services() {
        let pods = [pod("pg-1", "10.244.1.2", true), pod("pg-2", "10.244.1.3", false)];
        let services = [
            service("pg-rw", json!({})),
            service(
                "pg",
                json!({"clusterIP": "None", "publishNotReadyAddresses": true}),
            ),
        ];
        let text = render("db", "10.243.0.1".parse().ok(), services.iter(), &pods.iter());
        let lines: Vec<&str> = text.lines().skip(2).collect();
        assert_eq!(
            lines,
            [
                "10.243.0.1 kubernetes.default.svc.cluster.local kubernetes.default.svc kubernetes.default",
                "10.244.1.2 pg-1",
                "10.244.1.3 pg-2",
                "10.244.1.2 pg-1.pg.db.svc.cluster.local pg-1.pg.db.svc pg-1.pg.db pg-1.pg",
                "10.244.1.2 pg-rw.db.svc.cluster.local pg-rw.db.svc pg-rw.db pg-rw",
                "10.244.1.2 pg.db.svc.cluster.local pg.db.svc pg.db pg",
                "10.244.1.3 pg-2.pg.db.svc.cluster.local pg-2.pg.db.svc pg-2.pg.db pg-2.pg",
                "10.244.1.3 pg.db.svc.cluster.local pg.db.svc pg.db pg",
            ]
        );
    }

    #[test]
    fn short_names_are_those_of_the_own_namespace() {
        let pods = [pod("pg-1", "10.244.1.2", true)];
        let services = [service("pg-rw", json!({}))];
        let text = render("default", None, services.iter(), &pods.iter());
        assert_eq!(
            text.lines().skip(2).collect::<Vec<_>>(),
            ["10.244.1.2 pg-rw.db.svc.cluster.local pg-rw.db.svc pg-rw.db"]
        );
    }

    #[test]
    fn same_file_new_text() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(write(file.path(), "a long text\n").unwrap());
        let inode = std::fs::metadata(file.path()).unwrap().ino();
        assert!(write(file.path(), "short\n").unwrap() && !write(file.path(), "short\n").unwrap());
        assert_eq!(std::fs::read_to_string(file.path()).unwrap(), "short\n");
        assert_eq!(std::fs::metadata(file.path()).unwrap().ino(), inode);
    }
}
