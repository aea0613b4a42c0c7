//! An API server and a kubelet in the namespaces of a test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use hasteward_lab_apiserver::{Config, Server};
use hasteward_lab_kubelet::runtime::{cgroup, mountinfo};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{Api, DeleteParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::until;

/// Namespace of everything in a test.
pub(crate) const NAMESPACE: &str = "db";
const API: &str = "https://10.243.0.1:6443";

/// What a test plays in.
pub(crate) struct World {
    /// All rights.
    pub client: Client,
    /// Directories of the node.
    pub dir: tempfile::TempDir,
    _server: Server,
    kubelet: Child,
    prefix: String,
}

fn ip(arguments: &[&str]) {
    assert!(
        Command::new("ip").args(arguments).status().expect("ip").success(),
        "ip {arguments:?}"
    );
}

impl World {
    /// Starts both; `flags` are further flags of the kubelet.
    pub(crate) async fn new(flags: &[&str]) -> Self {
        ip(&["link", "set", "lo", "up"]);
        ip(&["addr", "add", "10.243.0.1/32", "dev", "lo"]);
        ip(&["addr", "add", "10.243.0.11/32", "dev", "lo"]);
        let dir = tempfile::tempdir().unwrap();
        let listener = tokio::net::TcpListener::bind("10.243.0.1:6443").await.unwrap();
        let server = Server::start(&Config::new(dir.path().join("api")), vec![listener]).unwrap();
        let admin = dir.path().join("admin");
        hasteward_lab_apiserver::server::write_admin_kubeconfig(server.api(), API, &admin).unwrap();
        let authority = hasteward_lab_apiserver::pki::Authority::load(&dir.path().join("api")).unwrap();
        let own = authority
            .kubeconfig("system:node:n1", &["system:nodes"], API)
            .unwrap();
        fs::write(dir.path().join("kubeconfig"), own).unwrap();
        let config = Kubeconfig::read_from(&admin).unwrap();
        let config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default())
            .await
            .unwrap();
        let client = Client::try_from(config).unwrap();
        let prefix = format!(
            "hasteward-lab-test-{}",
            dir.path().file_name().unwrap().to_string_lossy()
        );
        let binds: Vec<Value> = ["/usr", "/bin", "/sbin", "/lib", "/lib64"]
            .into_iter()
            .filter(|path| Path::new(path).exists())
            .map(|path| json!({"from": path, "to": path}))
            .collect();
        let images = json!({"lab/base": {"binds": binds,
            "files": {"/etc/passwd": "root:x:0:0::/root:/bin/sh\npostgres:x:26:26::/pg:/bin/sh\n"}}});
        fs::write(dir.path().join("images.json"), images.to_string()).unwrap();
        let kubelet = Self::start_kubelet(dir.path(), &prefix, flags);
        let world = Self {
            client,
            dir,
            _server: server,
            kubelet,
            prefix,
        };
        let namespace = json!({"metadata": {"name": NAMESPACE}});
        let namespaces: Api<Namespace> = Api::all(world.client.clone());
        namespaces
            .create(
                &PostParams::default(),
                &serde_json::from_value(namespace).unwrap(),
            )
            .await
            .unwrap();
        world
    }

    fn start_kubelet(dir: &Path, prefix: &str, flags: &[&str]) -> Child {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(dir.join("kubelet.log"))
            .unwrap();
        Command::new(env!("CARGO_BIN_EXE_hasteward-lab-kubelet"))
            .args([
                "--node",
                "n1",
                "--node-ip",
                "10.243.0.11",
                "--pod-cidr",
                "10.244.1.0/24",
                "--api-server",
                API,
            ])
            .args(["--cgroup-prefix", prefix])
            .arg("--kubeconfig")
            .arg(dir.join("kubeconfig"))
            .arg("--root")
            .arg(dir.join("kubelet"))
            .arg("--images")
            .arg(dir.join("images.json"))
            .arg("--state")
            .arg(dir.join("state"))
            .args(flags)
            .env("RUST_LOG", "info,hasteward_lab_kubelet=debug")
            .stderr(Stdio::from(log))
            .spawn()
            .unwrap()
    }

    /// The kubelet again, after [`Self::end_kubelet`].
    pub(crate) fn restart_kubelet(&mut self, flags: &[&str]) {
        self.kubelet = Self::start_kubelet(self.dir.path(), &self.prefix, flags);
    }

    /// Sends a signal to the kubelet and waits for its end.
    pub(crate) fn end_kubelet(&mut self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(self.kubelet.id().cast_signed());
        nix::sys::signal::kill(pid, signal).unwrap();
        self.kubelet.wait().unwrap();
    }

    /// Below the node's root.
    pub(crate) fn root(&self) -> PathBuf {
        fs::canonicalize(self.dir.path()).unwrap().join("kubelet")
    }

    /// Below the node's state.
    pub(crate) fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// The node's cgroup directory.
    pub(crate) fn cgroup(&self) -> PathBuf {
        let mounts = mountinfo::read().unwrap();
        let systemd = mounts
            .iter()
            .find(|m| m.fs_type == "cgroup" && m.has_super_option("name=systemd"));
        let mount = systemd
            .or_else(|| mounts.iter().find(|m| m.fs_type == "cgroup2"))
            .unwrap();
        mount.mount_point.join(&self.prefix)
    }

    /// Pids of all containers.
    pub(crate) fn processes(&self) -> Vec<i32> {
        cgroup::processes_below(&self.cgroup())
    }

    /// Mounts below the node's root, without the root itself.
    pub(crate) fn mounts(&self) -> Vec<PathBuf> {
        let mounts = mountinfo::read()
            .unwrap()
            .into_iter()
            .map(|entry| entry.mount_point);
        let root = self.root();
        mounts
            .filter(|point| point != &root && mountinfo::is_below(point, &root))
            .collect()
    }

    /// Makes an object of the test's namespace.
    pub(crate) async fn create<K>(&self, object: Value) -> K
    where
        K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + Serialize
            + DeserializeOwned,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), NAMESPACE);
        api.create(&PostParams::default(), &serde_json::from_value(object).unwrap())
            .await
            .unwrap()
    }

    /// Pods of the test's namespace.
    pub(crate) fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    /// Makes a pod on the node; its containers get the image.
    pub(crate) async fn pod(&self, name: &str, mut spec: Value) -> Pod {
        spec["nodeName"] = json!("n1");
        for kind in ["containers", "initContainers"] {
            for container in spec
                .get_mut(kind)
                .and_then(Value::as_array_mut)
                .into_iter()
                .flatten()
            {
                container["image"] = json!("lab/base");
            }
        }
        self.create(json!({"metadata": {"name": name, "labels": {"app": name}}, "spec": spec}))
            .await
    }

    /// Waits until `condition` holds for the pod.
    pub(crate) async fn pod_until(
        &self,
        name: &str,
        what: &str,
        condition: impl Fn(&Value) -> bool,
    ) -> Value {
        let pods = self.pods();
        let mut last = Value::Null;
        let what = format!("{name}: {what}");
        let found = std::panic::AssertUnwindSafe(until(&what, 20, async || {
            last = json!(pods.get_opt(name).await.unwrap());
            condition(&last).then(|| last.clone())
        }));
        let result = futures::FutureExt::catch_unwind(found).await;
        result.unwrap_or_else(|panic| {
            let log = fs::read_to_string(self.dir.path().join("kubelet.log")).unwrap_or_default();
            println!("{log}\n{last:#}");
            std::panic::resume_unwind(panic)
        })
    }

    /// Waits until the pod is ready.
    pub(crate) async fn ready(&self, name: &str) -> Value {
        self.pod_until(name, "ready", |pod| condition(pod, "Ready") == "True")
            .await
    }

    /// The log of a container, through the API server.
    pub(crate) async fn log(&self, name: &str) -> String {
        self.pods()
            .logs(name, &kube::api::LogParams::default())
            .await
            .unwrap()
    }

    /// Deletes a pod and waits until its object is gone.
    pub(crate) async fn delete(&self, name: &str) {
        self.pods().delete(name, &DeleteParams::default()).await.unwrap();
        self.pod_until(name, "gone", Value::is_null).await;
    }
}

impl Drop for World {
    /// Also after a failed test.
    fn drop(&mut self) {
        let _ = self.kubelet.kill();
        let _ = self.kubelet.wait();
        let _ = cgroup::Cgroups::destroy(&self.cgroup());
        let _ = mountinfo::unmount_below(&self.root());
    }
}

/// Status of a condition of a pod.
pub(crate) fn condition(pod: &Value, kind: &str) -> String {
    let all = pod["status"]["conditions"].as_array().into_iter().flatten();
    let found = all.into_iter().find(|condition| condition["type"] == kind);
    found.map_or_else(String::new, |condition| {
        condition["status"].as_str().unwrap_or_default().to_owned()
    })
}
