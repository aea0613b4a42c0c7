//! The container runtime without an API server: real namespaces, real cgroups. Needs root.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::{in_node, until};
use hasteward_lab_kubelet::runtime::cgroup::{Cgroups, Driver, Flavour, Names, Qos, processes_below};
use hasteward_lab_kubelet::runtime::children::Children;
use hasteward_lab_kubelet::runtime::mountinfo::MountEntry;
use hasteward_lab_kubelet::runtime::network::Addresses;
use hasteward_lab_kubelet::runtime::spec::{
    Bind, Command, ContainerSpec, Credentials, ExecSpec, Propagation, RootFile, RootFs, SandboxSpec,
};
use hasteward_lab_kubelet::runtime::{Container, Runtime, RuntimeError, Sandbox, is_alive, mountinfo};
use nix::mount::{MsFlags, mount};
use nix::sys::signal::Signal;

const UID: &str = "11111111-2222-4333-8444-555555555555";

struct Stage {
    runtime: Runtime,
    dir: tempfile::TempDir,
    names: Names,
}

impl Stage {
    async fn new(driver: Driver, flavour: Flavour) -> Self {
        Self::on(driver, flavour, &mountinfo::read().unwrap()).await
    }

    async fn on(driver: Driver, flavour: Flavour, mounts: &[MountEntry]) -> Self {
        let names = Names { driver, flavour };
        let prefix = format!("hasteward-lab-test-{}", std::process::id().wrapping_add(rand()));
        let cgroups = Cgroups::find(mounts, &prefix, names).unwrap();
        let addresses = Addresses::new("10.244.9.0/24".parse().unwrap());
        let helper = PathBuf::from(env!("CARGO_BIN_EXE_hasteward-lab-kubelet"));
        let runtime = Runtime::new(Children::start().unwrap(), cgroups, addresses, helper);
        runtime.prepare_network().await.unwrap();
        Self {
            runtime,
            dir: tempfile::tempdir().unwrap(),
            names,
        }
    }

    fn pod(&self) -> PathBuf {
        self.runtime.cgroups.pod(Qos::Burstable, UID)
    }

    async fn sandbox(&self) -> Sandbox {
        let spec = SandboxSpec {
            hostname: Some("pod-a".to_owned()),
            host_network: false,
            host_ipc: false,
            cgroup: self.pod().join(self.names.container(&"0".repeat(64))),
        };
        self.runtime.start_sandbox(&spec).await.unwrap()
    }

    fn spec(&self, sandbox: &Sandbox, id: char, script: &str) -> ContainerSpec {
        let id = id.to_string().repeat(64);
        let bind = |path: &str| Bind {
            from: path.into(),
            to: path.into(),
            read_only: true,
            recursive: false,
            propagation: Propagation::None,
        };
        let image = ["/usr", "/bin", "/lib", "/lib64"]
            .into_iter()
            .filter(|path| Path::new(path).exists());
        ContainerSpec {
            sandbox: sandbox.pid,
            host_pid: false,
            cgroup: self.pod().join(self.names.container(&id)),
            monitor_cgroup: self.names.monitor(&id).map(|name| self.pod().join(name)),
            root: RootFs {
                scratch: self.dir.path().join("rootfs"),
                image: image.map(bind).collect(),
                files: vec![RootFile {
                    path: "/etc/passwd".into(),
                    content: "root:x:0:0::/:/bin/sh\n".into(),
                }],
                ..RootFs::default()
            },
            command: Command {
                argv: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
                env: BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin:/usr/sbin".to_owned())]),
                cwd: "/work".into(),
            },
            credentials: Credentials {
                uid: 26,
                gid: 26,
                groups: vec![26, 77],
                capabilities: vec!["CAP_SETUID".to_owned()],
                no_new_privileges: true,
            },
        }
    }

    async fn start(&self, spec: &ContainerSpec) -> (Container, std::io::PipeReader) {
        let (reader, writer) = std::io::pipe().unwrap();
        let err = writer.try_clone().unwrap();
        (
            self.runtime
                .start_container(spec, writer.into(), err.into())
                .await
                .unwrap(),
            reader,
        )
    }

    /// Runs a script to its end: its output and exit code.
    async fn output(&self, spec: &ContainerSpec) -> (String, i32) {
        let (container, mut reader) = self.start(spec).await;
        let mut text = String::new();
        let text = tokio::task::spawn_blocking(move || {
            reader.read_to_string(&mut text).unwrap();
            text
        })
        .await
        .unwrap();
        (text, container.ended().await.code)
    }

    async fn end(self, sandbox: Sandbox) {
        self.runtime.stop_sandbox(sandbox).await;
        let root = self.runtime.cgroups.root().to_owned();
        Cgroups::destroy(&root).unwrap();
        assert!(!root.exists());
    }
}

impl Drop for Stage {
    /// Also after a failed test: directories of cgroups outlive the namespaces.
    fn drop(&mut self) {
        let _ = Cgroups::destroy(self.runtime.cgroups.root());
    }
}

fn rand() -> u32 {
    let id = hasteward_lab_kubelet::pod::container::container_id().unwrap();
    u32::from_str_radix(&id[..8], 16).unwrap()
}

fn tokio(body: impl Future<Output = ()>) {
    tokio::runtime::Runtime::new().unwrap().block_on(body);
}

#[test]
fn identity_namespaces_and_root() {
    in_node("identity_namespaces_and_root", || {
        tokio(async {
            let stage = Stage::new(Driver::Systemd, Flavour::Containerd).await;
            let sandbox = stage.sandbox().await;
            let script = "id -u; id -g; id -G; pwd; hostname; echo $$; grep -E 'Cap(Eff|Bnd)|NoNewPrivs' /proc/self/status; \
                ls /; ls /dev; touch /usr/x 2>&1; touch /ok; cat /proc/1/cgroup | grep -o cri-containerd.*; cat /proc/self/fd/0; \
                ip -4 -o addr show eth0 | grep -o 10.244.9.[0-9]*/24; ip route; exit 3";
            let mut spec = stage.spec(&sandbox, 'a', script);
            spec.credentials.groups = vec![26];
            spec.credentials.uid = 0;
            let (text, code) = stage.output(&spec).await;
            println!("{text}");
            assert_eq!(code, 3);
            for expected in [
                "0\n26\n26\n/work\npod-a\n1\n",
                "CapEff:\t0000000000000080",
                "CapBnd:\t0000000000000080",
                "NoNewPrivs:\t1",
                "fd\nfull\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero\n",
                "Read-only file system",
                &format!("cri-containerd-{}.scope", "a".repeat(64)),
                "10.244.9.2/24\ndefault via 10.244.9.1 dev eth0",
            ] {
                assert!(text.contains(expected), "{expected:?} in {text}");
            }
            // A user that is not root has no effective capability at all.
            let spec = stage.spec(
                &sandbox,
                'b',
                "id -u; grep CapEff /proc/self/status; touch /no 2>&1; echo x > /dev/shm/y && echo shm",
            );
            let (text, code) = stage.output(&spec).await;
            assert!(
                text.contains("26\n") && text.contains("CapEff:\t0000000000000000") && text.contains("shm"),
                "{text}"
            );
            assert_eq!(code, 0);
            stage.end(sandbox).await;
        });
    });
}

#[test]
fn signals_and_the_death_of_the_monitor() {
    in_node("signals_and_the_death_of_the_monitor", || {
        tokio(async {
            let stage = Stage::new(Driver::Cgroupfs, Flavour::Crio).await;
            let sandbox = stage.sandbox().await;
            let spec = stage.spec(
                &sandbox,
                'a',
                "trap 'exit 7' TERM; echo up; while :; do sleep 0.05; done",
            );
            let (container, mut reader) = stage.start(&spec).await;
            let mut up = [0; 3];
            reader.read_exact(&mut up).unwrap();
            let cgroup = fs::read_to_string(format!("/proc/{}/cgroup", container.pid)).unwrap();
            assert!(
                cgroup.contains(&format!("kubepods/burstable/pod{UID}/crio-{}", "a".repeat(64))),
                "{cgroup}"
            );
            assert_eq!(processes_below(spec.monitor_cgroup.as_ref().unwrap()).len(), 1);
            let exit = container.stop(Duration::from_secs(10)).await;
            assert_eq!((exit.code, exit.signal), (7, None));
            // Deaf to SIGTERM, as every pid 1 without a handler is: SIGKILL after the grace.
            let spec = stage.spec(&sandbox, 'b', "while :; do sleep 0.05; done");
            let (container, _reader) = stage.start(&spec).await;
            let exit = container.stop(Duration::from_millis(300)).await;
            assert_eq!((exit.code, exit.signal), (137, Some(9)));
            assert!(!is_alive(container.pid));
            // A monitor that is killed takes the container with it.
            let spec = stage.spec(&sandbox, 'c', "sleep 1000 & sleep 1000");
            let (container, _reader) = stage.start(&spec).await;
            let monitor = processes_below(spec.monitor_cgroup.as_ref().unwrap())[0];
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(monitor), Signal::SIGKILL).unwrap();
            assert_eq!(container.ended().await.code, 137);
            let pid = container.pid;
            until("the container is gone", 5, async || {
                (!is_alive(pid)).then_some(())
            })
            .await;
            stage.end(sandbox).await;
        });
    });
}

#[test]
fn a_container_in_the_nodes_pid_namespace_leaves_nothing() {
    in_node("a_container_in_the_nodes_pid_namespace_leaves_nothing", || {
        tokio(async {
            let stage = Stage::new(Driver::Systemd, Flavour::Crio).await;
            let sandbox = stage.sandbox().await;
            let mut spec = stage.spec(
                &sandbox,
                'a',
                "setsid sleep 1000 & echo $! $$; cat /proc/1/comm; sleep 0.2; exit 0",
            );
            spec.host_pid = true;
            let (text, code) = stage.output_without_eof(&spec).await;
            let own: i32 = text.split_whitespace().nth(1).unwrap().parse().unwrap();
            let left: i32 = text.split_whitespace().next().unwrap().parse().unwrap();
            assert_eq!(code, 0);
            assert!(own > 1 && !is_alive(own) && !is_alive(left), "{text}");
            stage.end(sandbox).await;
        });
    });
}

impl Stage {
    /// As `output`, for a script whose children keep the output open.
    async fn output_without_eof(&self, spec: &ContainerSpec) -> (String, i32) {
        let (container, mut reader) = self.start(spec).await;
        let code = container.ended().await.code;
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        (text, code)
    }
}

#[test]
fn mounts_made_later_reach_a_container_that_asks() {
    in_node("mounts_made_later_reach_a_container_that_asks", || {
        tokio(async {
            let stage = Stage::new(Driver::Systemd, Flavour::Containerd).await;
            let sandbox = stage.sandbox().await;
            let shared = stage.dir.path().join("shared");
            fs::create_dir_all(shared.join("late")).unwrap();
            let none: Option<&str> = None;
            mount(Some(&shared), &shared, none, MsFlags::MS_BIND, none).unwrap();
            mount(none, &shared, none, MsFlags::MS_SHARED, none).unwrap();
            let mut spec = stage.spec(
                &sandbox,
                'a',
                "while ! test -e /in/late/file; do sleep 0.02; done; test ! -e /not/late/file",
            );
            let bind = |to: &str, propagation| Bind {
                from: shared.clone(),
                to: to.into(),
                read_only: false,
                recursive: true,
                propagation,
            };
            spec.root.mounts = vec![
                bind("/in", Propagation::HostToContainer),
                bind("/not", Propagation::None),
            ];
            let (container, _reader) = stage.start(&spec).await;
            let late = shared.join("late");
            mount(Some("tmpfs"), &late, Some("tmpfs"), MsFlags::empty(), none).unwrap();
            fs::write(late.join("file"), "").unwrap();
            assert_eq!(container.ended().await.code, 0);
            // Nothing of a container's mounts is seen outside.
            assert!(!stage.dir.path().join("rootfs/usr").exists());
            mountinfo::unmount_below(&shared).unwrap();
            stage.end(sandbox).await;
        });
    });
}

#[test]
fn programs_run_inside_and_are_killed_when_late() {
    in_node("programs_run_inside_and_are_killed_when_late", || {
        tokio(async {
            let stage = Stage::new(Driver::Systemd, Flavour::Containerd).await;
            let sandbox = stage.sandbox().await;
            let spec = stage.spec(&sandbox, 'a', "exec sleep 1000");
            let (container, _reader) = stage.start(&spec).await;
            let exec = |script: &str| ExecSpec {
                pid: container.pid,
                cgroup: spec.cgroup.clone(),
                command: Command {
                    argv: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
                    ..spec.command.clone()
                },
                credentials: spec.credentials.clone(),
            };
            let script = "test $(id -u) = 26 && test $(hostname) = pod-a && test $(cat /proc/1/comm) = sleep && exit 5";
            let second = Duration::from_secs(5);
            assert_eq!(stage.runtime.exec(&exec(script), second).await.unwrap(), Some(5));
            let begin = Instant::now();
            let late = stage
                .runtime
                .exec(&exec("exec sleep 500"), Duration::from_millis(300))
                .await
                .unwrap();
            assert!(late.is_none() && begin.elapsed() < Duration::from_secs(3));
            until("the late program is gone", 5, async || {
                (processes_below(&spec.cgroup).len() == 1).then_some(())
            })
            .await;
            container.stop(Duration::ZERO).await;
            stage.end(sandbox).await;
        });
    });
}

#[test]
fn what_cannot_start_says_why() {
    in_node("what_cannot_start_says_why", || {
        tokio(async {
            let stage = Stage::new(Driver::Systemd, Flavour::Containerd).await;
            let sandbox = stage.sandbox().await;
            let mut spec = stage.spec(&sandbox, 'a', "");
            spec.command.argv = vec!["/no/such/program".to_owned()];
            let start = async |spec: &ContainerSpec| {
                let (_reader, writer) = std::io::pipe().unwrap();
                let err = writer.try_clone().unwrap();
                match stage
                    .runtime
                    .start_container(spec, writer.into(), err.into())
                    .await
                {
                    Err(RuntimeError::Setup(text)) => text,
                    other => panic!("{other:?}"),
                }
            };
            assert!(start(&spec).await.contains("exec /no/such/program: No such file"));
            spec.root.image[0].from = "/no/such/directory".into();
            assert!(start(&spec).await.contains("/no/such/directory"));
            stage.end(sandbox).await;
        });
    });
}

#[test]
fn a_start_takes_less_than_a_tenth_of_a_second() {
    in_node("a_start_takes_less_than_a_tenth_of_a_second", || {
        tokio(async {
            let stage = Stage::new(Driver::Systemd, Flavour::Containerd).await;
            let begin = Instant::now();
            let sandbox = stage.sandbox().await;
            println!("sandbox: {:?}", begin.elapsed());
            let mut took = Vec::new();
            for id in ['a', 'b', 'c', 'd', 'e', 'f', '1', '2', '3'] {
                let spec = stage.spec(&sandbox, id, "exec sleep 1000");
                let begin = Instant::now();
                let (container, _reader) = stage.start(&spec).await;
                took.push(begin.elapsed());
                container.stop(Duration::ZERO).await;
            }
            took.sort();
            println!("container: median {:?}, longest {:?}", took[4], took[8]);
            assert!(took[4] < Duration::from_millis(100), "{took:?}");
            stage.end(sandbox).await;
        });
    });
}

#[test]
fn the_unified_hierarchy_alone_is_enough() {
    in_node("the_unified_hierarchy_alone_is_enough", || {
        tokio(async {
            let mounts = mountinfo::read().unwrap();
            let unified: Vec<MountEntry> = mounts
                .into_iter()
                .filter(|entry| entry.fs_type == "cgroup2")
                .collect();
            if unified.is_empty() {
                println!("skipped: no cgroup2 is mounted here");
                return;
            }
            let stage = Stage::on(Driver::Systemd, Flavour::Containerd, &unified).await;
            let sandbox = stage.sandbox().await;
            let spec = stage.spec(&sandbox, 'a', "cat /proc/self/cgroup");
            let (text, code) = stage.output(&spec).await;
            let line = text.lines().find(|line| line.starts_with("0::")).unwrap();
            assert!(
                code == 0 && line.ends_with(&format!("/cri-containerd-{}.scope", "a".repeat(64))),
                "{text}"
            );
            stage.end(sandbox).await;
        });
    });
}
