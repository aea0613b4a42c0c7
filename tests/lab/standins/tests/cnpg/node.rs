//! A node small enough for a test: it runs the pods of one namespace as processes in their own mount and pid
//! namespaces, each on a loopback address of its own. Whatever it starts dies with the test.

use anyhow::Context;
use hasteward_lab_standins::cnpg::{Scope, names};
use hasteward_lab_standins::tls::StatusClient;
use k8s_openapi::api::core::v1::{Container, PersistentVolumeClaim, Pod, Secret};
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::process::{Child, Command};

/// Pause between two looks at a pod, and before a container starts again.
const TICK: Duration = Duration::from_millis(200);

/// What the pods of one lab share.
pub(crate) struct Node {
    pub(crate) scope: Scope,
    pub(crate) root: PathBuf,
    pub(crate) kubeconfig: PathBuf,
    next_address: Mutex<u8>,
}

impl Node {
    pub(crate) fn new(scope: Scope, root: &Path, kubeconfig: &Path) -> Arc<Self> {
        fs::write(root.join("hosts"), "127.0.0.1 localhost\n").unwrap();
        Arc::new(Self {
            scope,
            root: root.to_owned(),
            kubeconfig: kubeconfig.to_owned(),
            next_address: Mutex::new(1),
        })
    }

    fn address(&self) -> String {
        let mut next = self.next_address.lock().unwrap();
        *next += 1;
        let process = std::process::id();
        format!("127.{}.{}.{}", 64 + (process >> 8) % 64, process % 256, *next)
    }

    /// Directory of a volume of a pod.
    pub(crate) fn volume(&self, pod: &Pod, volume: &str) -> PathBuf {
        self.root.join("pods").join(pod.uid().unwrap()).join(volume)
    }

    /// Directory behind a claim.
    pub(crate) async fn claim(&self, name: &str) -> anyhow::Result<PathBuf> {
        let claim = self.scope.api::<PersistentVolumeClaim>().get(name).await?;
        Ok(self.root.join("claims").join(claim.uid().unwrap()))
    }

    /// Size of a claim that is small enough to get a file system of its own, so that it can be full.
    async fn megabytes(&self, claim: &str) -> anyhow::Result<Option<u32>> {
        let claim = self.scope.api::<PersistentVolumeClaim>().get(claim).await?;
        let requests = claim
            .spec
            .and_then(|spec| spec.resources)
            .and_then(|resources| resources.requests);
        let size = requests
            .and_then(|mut requests| requests.remove("storage"))
            .map(|size| size.0);
        Ok(size
            .and_then(|size| size.strip_suffix("Mi")?.parse().ok())
            .filter(|size| *size < 256))
    }

    /// Runs pods until it is dropped.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut known = BTreeSet::new();
        let mut tasks = tokio::task::JoinSet::new();
        loop {
            if let Ok(pods) = self.scope.api::<Pod>().list(&ListParams::default()).await {
                self.write_hosts(&pods.items);
                for pod in pods {
                    if known.insert(pod.uid().unwrap()) {
                        let node = self.clone();
                        tasks.spawn(async move {
                            let name = pod.name_any();
                            if let Err(error) = node.run_pod(pod).await {
                                eprintln!("pod {name}: {error:#}");
                            }
                        });
                    }
                }
            }
            tokio::time::sleep(TICK).await;
        }
    }

    /// `<cluster>-rw` is whatever pod carries the role and is Ready.
    fn write_hosts(&self, pods: &[Pod]) {
        let mut text = String::from("127.0.0.1 localhost\n");
        for pod in pods {
            let role = pod.labels().get(names::INSTANCE_ROLE).map(String::as_str);
            let ip = pod.status.as_ref().and_then(|status| status.pod_ip.clone());
            let cluster = pod.labels().get(names::CLUSTER);
            if let (Some("primary"), Some(ip), Some(cluster)) = (role, ip, cluster)
                && is_ready(pod)
                && pod.metadata.deletion_timestamp.is_none()
            {
                let _ = writeln!(text, "{ip} {cluster}-rw");
            }
        }
        fs::write(self.root.join("hosts"), text).unwrap();
    }

    async fn run_pod(self: Arc<Self>, pod: Pod) -> anyhow::Result<()> {
        let address = self.address();
        let spec = pod.spec.clone().context("a pod has a spec")?;
        let mut binds = Vec::new();
        for volume in spec.volumes.iter().flatten() {
            let directory = match &volume.persistent_volume_claim {
                Some(source) => self.claim(&source.claim_name).await.context("finding a claim")?,
                None => match &volume.host_path {
                    Some(source) => PathBuf::from(&source.path),
                    None => self.volume(&pod, &volume.name),
                },
            };
            fs::create_dir_all(&directory)?;
            nix::unistd::chown(&directory, Some(26.into()), Some(26.into()))?;
            if directory.join("pgdata").is_dir() {
                // As the kubelet does for an fsGroup; a server refuses such a directory.
                fs::set_permissions(directory.join("pgdata"), fs::Permissions::from_mode(0o2770))?;
            }
            let megabytes = match &volume.persistent_volume_claim {
                Some(source) => self.megabytes(&source.claim_name).await?,
                None => None,
            };
            binds.push(Bind {
                volume: volume.name.clone(),
                directory,
                megabytes,
            });
        }
        let mut statuses = Vec::new();
        for container in spec.init_containers.iter().flatten() {
            loop {
                let status = self.start(&pod, container, &binds, &address)?.wait().await?;
                if status.success() {
                    break;
                }
                if self.deleted(&pod).await? {
                    return self.forget(&pod).await;
                }
                tokio::time::sleep(TICK).await;
            }
            statuses.push(json!({
                "name": container.name, "image": "lab", "imageID": "lab", "ready": true, "restartCount": 0,
                "state": {"terminated": {"exitCode": 0, "reason": "Completed"}},
            }));
            self.report(
                &pod,
                &json!({
                    "phase": "Pending", "podIP": address, "initContainerStatuses": statuses,
                }),
            )
            .await?;
        }
        self.run_main(&pod, &spec.containers[0], &binds, &address).await
    }

    async fn run_main(
        &self,
        pod: &Pod,
        container: &Container,
        binds: &[Bind],
        address: &str,
    ) -> anyhow::Result<()> {
        let mut restarts = 0;
        let mut last = json!({});
        loop {
            let mut child = self.start(pod, container, binds, address)?;
            let mut reported = Value::Null;
            let mut ready = Readiness::default();
            let code = loop {
                if let Ok(status) = tokio::time::timeout(TICK, child.wait()).await {
                    break status?.code().unwrap_or(137);
                }
                ready.observe(self.ready(pod, address).await);
                let ready = ready.is();
                let status = status_of(
                    container,
                    ready,
                    restarts,
                    &json!({"running": {}}),
                    &last,
                    address,
                );
                if status != reported {
                    self.report(pod, &status).await?;
                    reported = status;
                }
                if self.deleted(pod).await? {
                    if let Some(inner) = inner_pid(&child) {
                        let _ = nix::sys::signal::kill(inner, nix::sys::signal::Signal::SIGTERM);
                    }
                    let _ = tokio::time::timeout(Duration::from_secs(30), child.wait()).await;
                    return self.forget(pod).await;
                }
            };
            last = json!({"terminated": {"exitCode": code, "reason": if code == 0 { "Completed" } else { "Error" }}});
            restarts += 1;
            self.report(pod, &status_of(container, false, restarts, &last, &last, address))
                .await?;
            if self.deleted(pod).await? {
                return self.forget(pod).await;
            }
            tokio::time::sleep(TICK).await;
        }
    }

    async fn ready(&self, pod: &Pod, address: &str) -> bool {
        let Some(cluster) = pod.labels().get(names::CLUSTER) else {
            return false;
        };
        let Ok(secret) = self.scope.api::<Secret>().get(&format!("{cluster}-ca")).await else {
            return false;
        };
        let ca = secret
            .data
            .unwrap_or_default()
            .remove("ca.crt")
            .map(|bytes| bytes.0)
            .unwrap_or_default();
        let Ok(client) = StatusClient::new(&String::from_utf8_lossy(&ca), &format!("{cluster}-rw")) else {
            return false;
        };
        client
            .get(address, names::STATUS_PORT, "/readyz", Duration::from_secs(5))
            .await
            .is_ok()
    }

    async fn deleted(&self, pod: &Pod) -> anyhow::Result<bool> {
        let now = self.scope.api::<Pod>().get_opt(&pod.name_any()).await?;
        Ok(now.is_none_or(|now| now.uid() != pod.uid() || now.metadata.deletion_timestamp.is_some()))
    }

    async fn forget(&self, pod: &Pod) -> anyhow::Result<()> {
        let now = self.scope.api::<Pod>().get_opt(&pod.name_any()).await?;
        if now.is_some_and(|now| now.uid() == pod.uid()) {
            let parameters = DeleteParams::default().grace_period(0);
            self.scope
                .api::<Pod>()
                .delete(&pod.name_any(), &parameters)
                .await?;
        }
        Ok(())
    }

    async fn report(&self, pod: &Pod, status: &Value) -> anyhow::Result<()> {
        let patch = json!({ "status": status });
        match self
            .scope
            .api::<Pod>()
            .patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Merge(&patch))
            .await
        {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn start(
        &self,
        pod: &Pod,
        container: &Container,
        binds: &[Bind],
        address: &str,
    ) -> anyhow::Result<Child> {
        let root = self.root.join("roots").join(pod.uid().unwrap());
        fs::create_dir_all(&root)?;
        let mut script = format!("set -e\nR={}\n", root.display());
        script.push_str(ROOT);
        let _ = writeln!(script, "bind {} $R/etc/hosts", self.root.join("hosts").display());
        let _ = writeln!(script, "bind {} $R/kubeconfig", self.kubeconfig.display());
        let _ = writeln!(
            script,
            "bind {} $R/manager",
            env!("CARGO_BIN_EXE_hasteward-lab-standins")
        );
        for mount in container.volume_mounts.iter().flatten() {
            let Some(bind) = binds.iter().find(|bind| bind.volume == mount.name) else {
                continue;
            };
            // The real one is a memory volume below the bind of /dev; the test needs no service account.
            if mount.name == "kube-api-access" || mount.name == "shm" {
                continue;
            }
            let target = &mount.mount_path;
            let directory = bind.directory.display();
            let _ = match bind.megabytes {
                None => writeln!(script, "mkdir -p $R{target}\nmount --bind {directory} $R{target}"),
                Some(size) => writeln!(
                    script,
                    "[ -e {directory}/image ] || {{ truncate -s {size}M {directory}/image; \
                     mkfs.ext4 -q -m 0 {directory}/image; }}\nmkdir -p $R{target}\n\
                     until mount -o loop {directory}/image $R{target} 2>/dev/null; do sleep 0.05; done\n\
                     chown 26:26 $R{target}"
                ),
            };
        }
        // Changing the user clears the death signal, so it is set again after that.
        script.push_str(
            "exec chroot $R /usr/bin/setpriv --reuid 26 --regid 26 --clear-groups \
             /usr/bin/setpriv --pdeathsig KILL /usr/bin/env -i PATH=/usr/bin:/bin",
        );
        for variable in container.env.iter().flatten() {
            let _ = write!(
                script,
                " {}='{}'",
                variable.name,
                variable.value.as_deref().unwrap_or_default()
            );
        }
        let _ = write!(
            script,
            " KUBECONFIG=/kubeconfig LAB_LISTEN_ADDRESS={address} RUST_LOG=info"
        );
        for word in container.command.iter().flatten() {
            let _ = write!(script, " '{word}'");
        }
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.root.join(format!("{}.log", pod.name_any())))?;
        Ok(Command::new("setpriv")
            .args([
                "--pdeathsig",
                "KILL",
                "unshare",
                "--mount",
                "--pid",
                "--fork",
                "--kill-child",
                "sh",
                "-c",
            ])
            .arg(&script)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()?)
    }
}

/// Readiness as a kubelet sees it: lost only after failing for a while, with the period and threshold of the pod.
#[derive(Default)]
struct Readiness {
    ready: bool,
    failing: Option<Instant>,
}

impl Readiness {
    fn observe(&mut self, good: bool) {
        if good {
            *self = Self {
                ready: true,
                failing: None,
            };
        } else if self.failing.get_or_insert_with(Instant::now).elapsed() > Duration::from_secs(2) {
            self.ready = false;
        }
    }

    fn is(&self) -> bool {
        self.ready
    }
}

/// A volume of a pod.
struct Bind {
    volume: String,
    directory: PathBuf,
    /// Set for a file system of its own.
    megabytes: Option<u32>,
}

/// A root file system of what is installed here.
const ROOT: &str = r#"
bind() { touch "$2"; mount --bind "$1" "$2"; }
mount -t tmpfs -o mode=755 tmpfs $R
cd $R
mkdir -p usr etc dev proc tmp
mount --rbind /usr usr
for d in bin sbin lib lib64; do [ -L /$d ] && cp -P /$d $d || { mkdir $d; mount --rbind /$d $d; }; done
for f in ld.so.cache nsswitch.conf localtime; do [ -e /etc/$f ] && cp -L /etc/$f etc/$f; done
echo 'root:x:0:0::/:/bin/sh
postgres:x:26:26::/var/lib/postgresql:/bin/sh' > etc/passwd
echo 'postgres:x:26:' > etc/group
mount --rbind /dev dev
mount -t tmpfs -o mode=1777 tmpfs dev/shm
mount -t proc proc proc
chmod 1777 tmp
"#;

fn status_of(
    container: &Container,
    ready: bool,
    restarts: u32,
    state: &Value,
    last: &Value,
    address: &str,
) -> Value {
    let word = if ready { "True" } else { "False" };
    json!({
        "phase": "Running", "podIP": address,
        "conditions": [{"type": "Ready", "status": word, "lastTransitionTime": null}],
        "containerStatuses": [{
            "name": container.name, "image": "lab", "imageID": "lab", "ready": ready, "restartCount": restarts,
            "state": state, "lastState": last,
        }],
    })
}

pub(crate) fn is_ready(pod: &Pod) -> bool {
    pod.status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten())
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// PID 1 of a container, as the host counts.
fn inner_pid(child: &Child) -> Option<nix::unistd::Pid> {
    let outer = child.id()?;
    let children = fs::read_to_string(format!("/proc/{outer}/task/{outer}/children")).ok()?;
    children
        .split_whitespace()
        .next()?
        .parse()
        .ok()
        .map(nix::unistd::Pid::from_raw)
}
