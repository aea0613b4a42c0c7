//! Pods from their binding to their deletion, with the lab's API server. Needs root.
#![allow(clippy::unwrap_used, clippy::too_many_lines, reason = "a test")]

mod common;

use std::fs;
use std::path::Path;
use std::time::Duration;

use common::world::{NAMESPACE, World, condition};
use common::{in_node, until};
use k8s_openapi::api::core::v1::{
    ConfigMap, PersistentVolume, PersistentVolumeClaim, Service, ServiceAccount,
};
use kube::api::{Api, Patch, PatchParams, PostParams};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

fn tokio(body: impl Future<Output = ()>) {
    tokio::runtime::Runtime::new().unwrap().block_on(body);
}

fn shell(name: &str, script: &str) -> Value {
    json!({"name": name, "command": ["/bin/sh", "-c", script]})
}

fn restarts(pod: &Value) -> i64 {
    pod["status"]["containerStatuses"][0]["restartCount"]
        .as_i64()
        .unwrap_or(0)
}

async fn claim(world: &World, name: &str, csi: Value) {
    let volume = json!({"metadata": {"name": format!("pv-{name}")}, "spec": {
        "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "persistentVolumeReclaimPolicy": "Retain",
        "csi": csi, "claimRef": {"namespace": NAMESPACE, "name": name},
    }});
    let volumes: Api<PersistentVolume> = Api::all(world.client.clone());
    volumes
        .create(&PostParams::default(), &serde_json::from_value(volume).unwrap())
        .await
        .unwrap();
    world
        .create::<PersistentVolumeClaim>(json!({"metadata": {"name": name}, "spec": {
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "volumeName": format!("pv-{name}"),
        }}))
        .await;
}

async fn bind(world: &World, name: &str) {
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(world.client.clone(), NAMESPACE);
    let patch = Patch::Merge(json!({"status": {"phase": "Bound"}}));
    claims
        .patch_status(name, &PatchParams::default(), &patch)
        .await
        .unwrap();
}

const SERVER: &str = "exec perl -MIO::Socket::INET -e 'my $s = IO::Socket::INET->new(Listen => 5, LocalPort => 8080, ReuseAddr => 1) or die; \
    while (my $c = $s->accept) { my $l = <$c>; print $c \"HTTP/1.0 200 OK\\r\\nContent-Length: 3\\r\\n\\r\\nyes\"; close $c }'";

#[test]
fn a_pod_with_everything_comes_and_goes() {
    in_node("a_pod_with_everything_comes_and_goes", || {
        tokio(async {
            let mut world = World::new(&["--runtime", "crio"]).await;
            claim(
                &world,
                "data",
                json!({"driver": "lab.hasteward", "volumeHandle": "vol-1"}),
            )
            .await;
            let small = json!({"driver": "lab.hasteward", "volumeHandle": "vol-2", "fsType": "ext4",
                "volumeAttributes": {"sizeBytes": "33554432"}});
            claim(&world, "small", small).await;
            world
                .create::<ConfigMap>(json!({"metadata": {"name": "cm"}, "data": {"key": "one"}}))
                .await;
            let accounts: Api<ServiceAccount> = Api::namespaced(world.client.clone(), NAMESPACE);
            until("the default account", 10, async || {
                accounts.get_opt("default").await.unwrap()
            })
            .await;
            let script = format!(
                "echo me $POD $IP $(id -u):$(id -g) $(hostname); df -k /small | tail -1; echo x > /data/file; \
                 test -s /token/token && echo token; cat /cm/key; echo; {SERVER}"
            );
            let field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
            let mut container = shell("main", &script);
            container["env"] = json!([field("POD", "metadata.name"), field("IP", "status.podIP")]);
            container["readinessProbe"] = json!({"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1});
            container["livenessProbe"] =
                json!({"exec": {"command": ["/bin/sh", "-c", "test -e /data/file"]}, "periodSeconds": 1});
            container["startupProbe"] =
                json!({"tcpSocket": {"port": 8080}, "periodSeconds": 1, "failureThreshold": 30});
            container["volumeMounts"] = json!([
                {"name": "data", "mountPath": "/data", "subPath": "sub"}, {"name": "small", "mountPath": "/small"},
                {"name": "cm", "mountPath": "/cm"}, {"name": "token", "mountPath": "/token"},
            ]);
            let spec = json!({
                "containers": [container],
                "securityContext": {"runAsUser": 26, "runAsGroup": 26, "fsGroup": 26},
                "terminationGracePeriodSeconds": 1,
                "automountServiceAccountToken": false,
                "volumes": [
                    {"name": "data", "persistentVolumeClaim": {"claimName": "data"}},
                    {"name": "small", "persistentVolumeClaim": {"claimName": "small"}},
                    {"name": "cm", "configMap": {"name": "cm"}},
                    {"name": "token", "projected": {"sources": [{"serviceAccountToken": {"path": "token", "expirationSeconds": 600, "audience": "x"}}]}},
                ],
            });
            world.pod("pg-1", spec).await;
            let message = |pod: &Value| {
                pod["status"]["containerStatuses"][0]["state"]["waiting"]["message"].to_string()
            };
            world
                .pod_until("pg-1", "waits for its claim", |pod| {
                    message(pod).contains("not bound")
                })
                .await;
            bind(&world, "data").await;
            bind(&world, "small").await;
            let pod = world.ready("pg-1").await;
            let status = &pod["status"];
            println!("{status:#}");
            let log = world.log("pg-1").await;
            println!("{log}");
            let address = status["podIP"].as_str().unwrap();
            assert!(
                log.contains(&format!("me pg-1 {address} 26:26 pg-1\n")) && log.contains("token\none\n"),
                "{log}"
            );
            assert!(log.contains("/dev/loop"), "{log}");
            assert_eq!(
                (&status["phase"], &status["hostIP"]),
                (&json!("Running"), &json!("10.243.0.11"))
            );
            for kind in [
                "PodScheduled",
                "Initialized",
                "ContainersReady",
                "PodReadyToStartContainers",
            ] {
                assert_eq!(condition(&pod, kind), "True", "{kind}");
            }
            let container = &status["containerStatuses"][0];
            assert_eq!(
                (
                    &container["started"],
                    &container["ready"],
                    &container["restartCount"]
                ),
                (&json!(true), &json!(true), &json!(0))
            );
            let id = container["containerID"]
                .as_str()
                .unwrap()
                .strip_prefix("cri-o://")
                .unwrap();
            assert!(id.len() == 64 && container["state"]["running"]["startedAt"].is_string());
            let uid = pod["metadata"]["uid"].as_str().unwrap();
            let scope = format!(
                "kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{}.slice/crio-{id}.scope",
                uid.replace('-', "_")
            );
            assert!(world.cgroup().join(&scope).exists(), "{scope}");
            on_disk(&world, uid);
            changed_config_map(&world, uid).await;
            assert!(port_forward(8080).await.ends_with("yes"));
            assert_eq!(port_forward(9).await, "HTTP/1.1 502");
            let before = world.processes();
            assert!(before.len() >= 3, "{before:?}");
            world.delete("pg-1").await;
            assert!(world.processes().is_empty(), "{:?}", world.processes());
            assert!(world.mounts().is_empty(), "{:?}", world.mounts());
            assert!(!world.root().join("pods").join(uid).exists());
            assert!(
                !world
                    .cgroup()
                    .join("kubepods.slice/kubepods-besteffort.slice")
                    .join(Path::new(&scope).parent().unwrap().file_name().unwrap())
                    .exists()
            );
            assert_eq!(
                fs::read_to_string(world.state().join("volumes/vol-1/sub/file")).unwrap(),
                "x\n"
            );
            assert!(fs::read_dir(world.state().join("logs")).unwrap().next().is_none());
            world.end_kubelet(Signal::SIGTERM);
            assert!(!world.cgroup().exists());
        });
    });
}

fn on_disk(world: &World, uid: &str) {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    let volumes = world.root().join("pods").join(uid).join("volumes");
    let data = volumes.join("kubernetes.io~csi/pv-data");
    let json: Value = serde_json::from_slice(&fs::read(data.join("vol_data.json")).unwrap()).unwrap();
    assert_eq!(
        (&json["specVolID"], &json["volumeHandle"]),
        (&json!("pv-data"), &json!("vol-1"))
    );
    assert_eq!(fs::read_to_string(data.join("mount/sub/file")).unwrap(), "x\n");
    let mounts = world.mounts();
    assert!(
        mounts.contains(&data.join("mount"))
            && mounts.contains(&volumes.join("kubernetes.io~csi/pv-small/mount")),
        "{mounts:?}"
    );
    assert!(
        mounts.iter().any(|mount| mount.ends_with("globalmount"))
            && mounts
                .iter()
                .any(|mount| mount.ends_with("volume-subpaths/data/main/0"))
    );
    let root = fs::metadata(volumes.join("kubernetes.io~csi/pv-small/mount")).unwrap();
    assert_eq!((root.gid(), root.permissions().mode() & 0o2070), (26, 0o2070));
    let token = fs::metadata(volumes.join("kubernetes.io~projected/token/token")).unwrap();
    assert_eq!((token.uid(), token.gid(), token.mode() & 0o777), (26, 26, 0o640));
}

async fn changed_config_map(world: &World, uid: &str) {
    let maps: Api<ConfigMap> = Api::namespaced(world.client.clone(), NAMESPACE);
    maps.patch(
        "cm",
        &PatchParams::default(),
        &Patch::Merge(json!({"data": {"key": "two"}})),
    )
    .await
    .unwrap();
    let file = world
        .root()
        .join("pods")
        .join(uid)
        .join("volumes/kubernetes.io~configmap/cm/key");
    until("the volume shows the change", 10, async || {
        (fs::read_to_string(&file).unwrap() == "two").then_some(())
    })
    .await;
}

/// As the API server asks for it.
async fn port_forward(port: u16) -> String {
    let mut stream = tokio::net::TcpStream::connect("10.243.0.11:10250").await.unwrap();
    let head = format!(
        "GET /portForward/db/pg-1/{port} HTTP/1.1\r\nHost: n1\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    if answer.ends_with(b"101") {
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
        let end = stream.read_to_end(&mut answer);
        tokio::time::timeout(Duration::from_secs(10), end)
            .await
            .unwrap()
            .unwrap();
    }
    String::from_utf8(answer).unwrap()
}

#[test]
fn a_crash_loop_is_ordered_by_a_file() {
    in_node("a_crash_loop_is_ordered_by_a_file", || {
        tokio(async {
            let mut world = World::new(&["--backoff-base-ms", "100", "--cgroup-driver", "cgroupfs"]).await;
            world
                .pod(
                    "p",
                    json!({"containers": [shell("main", "echo run; exec sleep 1000")]}),
                )
                .await;
            world.ready("p").await;
            let fault = world.state().join("faults/db.p");
            fs::write(&fault, r#"{"crashLoop": true}"#).unwrap();
            let pod = world
                .pod_until("p", "crash loop", |pod| {
                    let status = &pod["status"]["containerStatuses"][0];
                    restarts(pod) >= 2 && status["state"]["waiting"]["reason"] == "CrashLoopBackOff"
                })
                .await;
            let status = &pod["status"]["containerStatuses"][0];
            let last = &status["lastState"]["terminated"];
            assert_eq!(
                (&last["exitCode"], &last["reason"]),
                (&json!(137), &json!("Error"))
            );
            assert_eq!(
                (&pod["status"]["phase"], condition(&pod, "Ready").as_str()),
                (&json!("Running"), "False")
            );
            fs::remove_file(&fault).unwrap();
            world.ready("p").await;
            let uid = pod["metadata"]["uid"].as_str().unwrap();
            let first = world.state().join(format!("logs/db_p_{uid}/main/0.log"));
            assert!(fs::read_to_string(first).unwrap().ends_with(" stdout F run\n"));
            // A kubelet that is killed takes its containers along; the next one starts them again.
            let before = world.processes();
            world.end_kubelet(Signal::SIGKILL);
            until("all containers are gone", 10, async || {
                world.processes().is_empty().then_some(())
            })
            .await;
            let count = restarts(&world.ready("p").await);
            world.restart_kubelet(&[]);
            let pod = world
                .pod_until("p", "another run", |pod| {
                    restarts(pod) > count && condition(pod, "Ready") == "True"
                })
                .await;
            assert!(
                before.iter().all(|pid| !world.processes().contains(pid)),
                "{pod:#}"
            );
        });
    });
}

#[test]
fn init_containers_sidecars_and_ends() {
    in_node("init_containers_sidecars_and_ends", || {
        tokio(async {
            let world = World::new(&["--backoff-base-ms", "100"]).await;
            let mounted = |mut container: Value| {
                container["volumeMounts"] = json!([{"name": "v", "mountPath": "/v"}]);
                container
            };
            let mut sidecar = mounted(shell(
                "side",
                "trap 'cat /v/order > /dev/termination-log; exit 0' TERM; echo side >> /v/order; while :; do sleep 0.05; done",
            ));
            sidecar["restartPolicy"] = json!("Always");
            let init = mounted(shell(
                "init",
                "test -e /v/tried || { touch /v/tried; exit 3; }; echo init >> /v/order",
            ));
            let main = mounted(shell(
                "main",
                "echo main >> /v/order; cat /v/order; echo done > /dev/termination-log",
            ));
            let spec = json!({
                "initContainers": [init, sidecar], "containers": [main], "restartPolicy": "OnFailure",
                "volumes": [{"name": "v", "emptyDir": {}}],
            });
            world.pod("job", spec).await;
            let pod = world
                .pod_until("job", "succeeds", |pod| pod["status"]["phase"] == "Succeeded")
                .await;
            let status = &pod["status"];
            assert_eq!(
                status["initContainerStatuses"][0]["restartCount"], 1,
                "{status:#}"
            );
            assert_eq!(
                status["containerStatuses"][0]["state"]["terminated"]["message"],
                "done\n"
            );
            assert_eq!(
                status["initContainerStatuses"][1]["state"]["terminated"]["message"],
                "init\nside\nmain\n"
            );
            assert_eq!(world.log("job").await, "init\nside\nmain\n");
            until("nothing is left", 10, async || {
                (world.processes().is_empty() && world.mounts().is_empty()).then_some(())
            })
            .await;
            let spec = json!({"containers": [shell("main", "exit 4")], "restartPolicy": "Never"});
            world.pod("fails", spec).await;
            let pod = world
                .pod_until("fails", "fails", |pod| pod["status"]["phase"] == "Failed")
                .await;
            assert_eq!(
                pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"],
                4
            );
            world.delete("fails").await;
            world.delete("job").await;
        });
    });
}

#[test]
fn probes_restart_and_names_resolve() {
    in_node("probes_restart_and_names_resolve", || {
        tokio(async {
            let world = World::new(&["--backoff-base-ms", "100"]).await;
            world.create::<Service>(json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 8080}]}})).await;
            let mut web = shell("main", SERVER);
            web["readinessProbe"] = json!({"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1});
            world.pod("web", json!({"containers": [web]})).await;
            // Not verified: the API server's certificate is its own CA's.
            let mut client = shell(
                "main",
                "until getent hosts web.db.svc; do sleep 0.1; done; getent hosts kubernetes.default.svc; \
                perl -MIO::Socket::INET -e 'my $c = IO::Socket::INET->new(PeerAddr => \"web:8080\") or die; print $c \"GET / HTTP/1.0\\r\\n\\r\\n\"; print <$c>'; \
                echo; touch /alive; sleep 2; rm /alive; exec sleep 1000",
            );
            client["readinessProbe"] = json!({"httpGet": {"host": "10.243.0.1", "path": "/healthz", "port": 6443, "scheme": "HTTPS"}, "periodSeconds": 1});
            client["livenessProbe"] = json!({"exec": {"command": ["cat", "/alive"]}, "periodSeconds": 1, "failureThreshold": 2,
                "initialDelaySeconds": 1, "terminationGracePeriodSeconds": 0});
            world.pod("client", json!({"containers": [client]})).await;
            world.ready("client").await;
            world
                .pod_until("client", "a restart by its probe", |pod| restarts(pod) >= 1)
                .await;
            let previous = kube::api::LogParams {
                previous: true,
                ..Default::default()
            };
            let log = world.pods().logs("client", &previous).await.unwrap();
            assert!(
                log.contains("web.db.svc") && log.contains("10.243.0.1") && log.contains("yes"),
                "{log}"
            );
        });
    });
}

#[test]
fn an_agent_sees_the_volumes_and_processes_of_its_node() {
    in_node("an_agent_sees_the_volumes_and_processes_of_its_node", || {
        tokio(async {
            let world = World::new(&[]).await;
            let pods = world.root().join("pods");
            let mut agent = shell(
                "agent",
                "until cat /host/pods/*/volumes/kubernetes.io~csi/pv-data/mount/file; do sleep 0.05; done; \
                 touch /x; grep CapEff /proc/self/status; hostname; \
                 for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline | grep -q 'sleep 12345' && cat $p/root/data/file && head -1 $p/cgroup; done; \
                 echo seen; while test -e /host/pods/*/volumes/kubernetes.io~csi/pv-data/mount/file; do sleep 0.05; done; echo gone; exec sleep 1000",
            );
            agent["volumeMounts"] = json!([{"name": "pods", "mountPath": "/host/pods", "readOnly": true, "mountPropagation": "HostToContainer"}]);
            agent["securityContext"] = json!({"readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"], "add": ["DAC_READ_SEARCH", "SYS_PTRACE"]}});
            let spec = json!({
                "hostPID": true, "containers": [agent], "terminationGracePeriodSeconds": 1,
                "volumes": [{"name": "pods", "hostPath": {"path": pods, "type": "DirectoryOrCreate"}}],
            });
            world.pod("agent", spec).await;
            world.ready("agent").await;
            claim(
                &world,
                "data",
                json!({"driver": "lab.hasteward", "volumeHandle": "vol-1"}),
            )
            .await;
            bind(&world, "data").await;
            let mut database = shell("main", "echo content > /data/file; exec sleep 12345");
            database["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
            let spec = json!({
                "containers": [database], "terminationGracePeriodSeconds": 1,
                "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
            });
            world.pod("pg-1", spec).await;
            let log = async |what: &str| {
                until(what, 10, async || {
                    Some(world.log("agent").await).filter(|log| log.contains(what))
                })
                .await
            };
            let text = log("seen").await;
            println!("{text}");
            for expected in [
                "content\n",
                "Read-only file system",
                "CapEff:\t0000000000080004",
                "agent\n",
                "cri-containerd-",
            ] {
                assert!(text.contains(expected), "{expected:?} in {text}");
            }
            assert_eq!(text.matches("content").count(), 2, "{text}");
            world.delete("pg-1").await;
            log("gone").await;
            world.delete("agent").await;
            assert!(world.processes().is_empty() && world.mounts().is_empty());
        });
    });
}

#[test]
fn a_pod_that_takes_too_long_fails() {
    in_node("a_pod_that_takes_too_long_fails", || {
        tokio(async {
            let world = World::new(&[]).await;
            let spec = json!({"containers": [shell("main", "exec sleep 1000")], "activeDeadlineSeconds": 1,
                "restartPolicy": "OnFailure", "hostNetwork": true});
            world.pod("late", spec).await;
            let pod = world
                .pod_until("late", "fails", |pod| pod["status"]["phase"] == "Failed")
                .await;
            assert_eq!(
                (&pod["status"]["reason"], &pod["status"]["podIP"]),
                (&json!("DeadlineExceeded"), &json!("10.243.0.11"))
            );
            world.delete("late").await;
        });
    });
}
