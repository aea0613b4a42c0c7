//! A container like mariadb-operator's: its own root, namespaces and volumes, uid 999, and a first process that starts the
//! server when told to.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use hasteward_agent::hands::Hands;
use hasteward_agent::service::AgentService;
use hasteward_proto::primitive::NodeName;
use hasteward_proto::wire::agent as wire;
use hasteward_proto::wire::agent::agent_server::Agent;
use tokio::runtime::{Builder, Runtime};
use tonic::Request;

use crate::stage::{CONTAINER, Cgroup, Running, Stage};

/// Starting, installing and recovering on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// What Debian's Galera reads first; the volume's files come after it.
const SETTINGS: &str = "[mariadbd]
datadir=/var/lib/mysql
socket=/run/mysqld/mysqld.sock
pid-file=/run/mysqld/mysqld.pid
skip-networking
binlog_format=ROW
innodb_buffer_pool_size=16M
innodb_log_file_size=8M
innodb_autoinc_lock_mode=2
wsrep_on=ON
wsrep_provider=/usr/lib/galera/libgalera_smm.so
wsrep_cluster_name=c
wsrep_cluster_address=gcomm://
wsrep_node_name=c-0
wsrep_node_address=127.0.0.1
wsrep_provider_options=\"gmcast.listen_addr=tcp://127.0.0.1:4567;gcache.size=1M\"
wsrep_sst_method=rsync
!includedir /etc/mysql/mariadb.conf.d/
";

/// Runs what `/tmp/next` says, once, whenever it is there; never ends by itself.
const SUPERVISOR: &str = "cd /tmp
while :; do
  if [ -e next ]; then mv next now; sh ./now > output 2>&1; echo $? > ended; fi
  sleep 0.05
done";

pub(crate) struct Container<'a> {
    pub(crate) stage: &'a Stage,
    pub(crate) root: PathBuf,
    pub(crate) disk: PathBuf,
    pub(crate) config: PathBuf,
    pub(crate) running: Option<Running>,
}

fn give(path: &Path) {
    chown(path, Some(999), Some(999)).unwrap();
}

impl<'a> Container<'a> {
    pub(crate) fn new(stage: &'a Stage) -> Self {
        fs::set_permissions(stage.directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let root = stage.at("rootfs");
        for name in ["usr", "lib", "lib64", "bin", "sbin", "dev"] {
            let from = PathBuf::from("/").join(name);
            if from.is_dir() {
                stage.bind_read_only(&fs::canonicalize(from).unwrap(), &root.join(name));
            }
        }
        for name in ["etc/mysql", "proc", "old", "run/mysqld", "tmp"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        give(&root.join("run/mysqld"));
        give(&root.join("tmp"));
        fs::write(
            root.join("etc/passwd"),
            "root:x:0:0::/:/bin/sh\nmysql:x:999:999::/tmp:/bin/sh\n",
        )
        .unwrap();
        fs::write(root.join("etc/group"), "mysql:x:999:\n").unwrap();
        fs::write(root.join("etc/mysql/my.cnf"), SETTINGS).unwrap();
        let (disk, config) = (stage.at("disk"), stage.at("config"));
        for (directory, pv, place) in [
            (&disk, "pvc-data", "var/lib/mysql"),
            (&config, "pvc-config", "etc/mysql/mariadb.conf.d"),
        ] {
            fs::create_dir(directory).unwrap();
            give(directory);
            stage.bind(directory, &root.join(place));
            stage.bind(directory, &stage.volume(&format!("kubernetes.io~csi/{pv}/mount")));
        }
        fs::write(config.join("0-galera.cnf"), "[mariadbd]\n").unwrap();
        Self {
            stage,
            root,
            disk,
            config,
            running: None,
        }
    }

    /// Its first process, with root's password in its environment where given.
    pub(crate) fn begin(&mut self, cgroup: &Cgroup, password: Option<&str>) {
        let enter = "set -e; ip link set lo up; mount --rbind \"$1\" \"$1\"; cd \"$1\"; pivot_root . old
            mount -t proc proc /proc; umount -l /old
            exec setpriv --reuid 999 --regid 999 --clear-groups --no-new-privs /bin/sh -c \"$2\"";
        let mut command = cgroup.command("unshare");
        command
            .args([
                "--mount",
                "--propagation=private",
                "--pid",
                "--ipc",
                "--uts",
                "--net",
                "--fork",
                "--kill-child",
                "/bin/sh",
                "-c",
                enter,
                "enter",
            ])
            .arg(&self.root)
            .arg(SUPERVISOR)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::null());
        if let Some(password) = password {
            command.env("MARIADB_ROOT_PASSWORD", password);
        }
        self.running = Some(Running(command.spawn().unwrap()));
    }

    /// Has the first process run `script`.
    pub(crate) fn tell(&self, script: &str) {
        let _ = fs::remove_file(self.root.join("tmp/ended"));
        fs::write(self.root.join("tmp/script"), script).unwrap();
        fs::rename(self.root.join("tmp/script"), self.root.join("tmp/next")).unwrap();
    }

    /// How the script ended, once it has.
    pub(crate) fn ended(&self) -> Option<String> {
        fs::read_to_string(self.root.join("tmp/ended"))
            .ok()
            .filter(|text| !text.is_empty())
    }

    /// What the script printed.
    pub(crate) fn output(&self) -> String {
        fs::read_to_string(self.root.join("tmp/output")).unwrap_or_default()
    }

    /// SQL through the socket, from outside.
    pub(crate) fn sql(&self, password: &str, sql: &str) -> Command {
        let mut command = Command::new("mariadb");
        command
            .args(["--no-defaults", "-u", "root", "-BN", "-e", sql, "-S"])
            .arg(self.root.join("run/mysqld/mysqld.sock"))
            .env("MYSQL_PWD", password)
            .stdin(Stdio::null());
        command
    }

    /// What `mariadbd --wsrep-recover` says of a copy of the data directory: its log.
    pub(crate) fn oracle(&self) -> String {
        let copy = self.stage.at("copy");
        let done = Command::new("cp")
            .arg("-a")
            .arg(&self.disk)
            .arg(&copy)
            .status()
            .unwrap();
        assert!(done.success());
        let log = Command::new("setpriv")
            .args([
                "--reuid",
                "999",
                "--regid",
                "999",
                "--clear-groups",
                "mariadbd",
                "--no-defaults",
            ])
            .args([
                "--wsrep-recover",
                "--wsrep-on=ON",
                "--wsrep-provider=/usr/lib/galera/libgalera_smm.so",
                "--wsrep-cluster-address=gcomm://",
                "--binlog-format=ROW",
                "--skip-networking",
                "--innodb-log-file-size=8M",
                "--socket=oracle.sock",
                "--pid-file=oracle.pid",
            ])
            .arg(format!("--datadir={}", copy.display()))
            .arg(format!("--tmpdir={}", copy.display()))
            .output()
            .unwrap();
        fs::remove_dir_all(&copy).unwrap();
        let text = String::from_utf8_lossy(&log.stderr).into_owned();
        assert!(log.status.success(), "{text}");
        text
    }

    pub(crate) fn target(&self) -> wire::Target {
        let volume = |role: wire::VolumeRole, name: &str, place: &str| wire::Volume {
            role: role.into(),
            tablespace: String::new(),
            name: name.to_owned(),
            source: Some(wire::volume::Source::Csi(wire::CsiVolume {})),
            mount_path: place.to_owned(),
            sub_path: String::new(),
        };
        wire::Target {
            namespace: "ns".to_owned(),
            cluster: "c".to_owned(),
            instance: "c-0".to_owned(),
            pod_uid: self.stage.pod.to_string(),
            container: "mariadb".to_owned(),
            container_id: CONTAINER.to_owned(),
            volumes: vec![
                volume(wire::VolumeRole::MariadbData, "pvc-data", "/var/lib/mysql"),
                volume(
                    wire::VolumeRole::GaleraConfig,
                    "pvc-config",
                    "/etc/mysql/mariadb.conf.d",
                ),
            ],
        }
    }
}

/// Every file of a volume: owner, mode, times, content.
pub(crate) fn fingerprint(directory: &Path) -> BTreeMap<PathBuf, String> {
    let mut all = BTreeMap::new();
    let mut left = vec![directory.to_owned()];
    while let Some(path) = left.pop() {
        let found = fs::symlink_metadata(&path).unwrap();
        let content = if found.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            String::new()
        } else {
            let sum = Command::new("sha256sum").arg(&path).output().unwrap();
            String::from_utf8(sum.stdout).unwrap()
        };
        let line = format!(
            "{} {}:{} {:o} {} {} {content}",
            found.ino(),
            found.uid(),
            found.gid(),
            found.mode(),
            found.mtime_nsec(),
            found.ctime_nsec()
        );
        all.insert(path, line);
    }
    all
}

/// The agent's service over hands.
pub(crate) struct Service {
    runtime: Runtime,
    agent: AgentService,
    pub(crate) target: wire::Target,
}

impl Service {
    pub(crate) fn new(target: wire::Target, hands: Hands) -> Self {
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let agent = AgentService::new(NodeName::new("n1").unwrap(), Arc::new(hands));
        Self {
            runtime,
            agent,
            target,
        }
    }

    pub(crate) fn ask(
        &self,
        recover: wire::PositionRecovery,
        budget_ms: u32,
        password: &str,
    ) -> wire::InspectGaleraReply {
        let request = wire::InspectGaleraRequest {
            target: Some(self.target.clone()),
            recover_position: recover.into(),
            budget_ms,
            root_password: password.as_bytes().to_vec().into(),
        };
        let reply = self
            .runtime
            .block_on(self.agent.inspect_galera(Request::new(request)));
        reply.unwrap().into_inner()
    }

    /// Everything but a recovery.
    pub(crate) fn look(&self) -> wire::InspectGaleraReply {
        self.ask(wire::PositionRecovery::Unspecified, 0, "")
    }

    /// With a recovery.
    pub(crate) fn recover(&self, when: wire::PositionRecovery) -> wire::InspectGaleraReply {
        self.ask(when, 60_000, "")
    }
}
