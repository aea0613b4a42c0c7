//! The service, from request to reply, over hands and a real PostgreSQL.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hasteward_agent::hands::Hands;
use hasteward_agent::service::AgentService;
use hasteward_proto::primitive::NodeName;
use hasteward_proto::wire::agent as wire;
use hasteward_proto::wire::agent::agent_server::Agent;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::runtime::{Builder, Runtime};
use tonic::Request;

use crate::postgres::{container, start};
use crate::stage::{CONTAINER, Cgroup, Stage, until};

struct Service {
    runtime: Runtime,
    agent: AgentService,
    target: wire::Target,
}

impl Service {
    fn new(stage: &Stage, hands: Hands) -> Self {
        let volume = |role: wire::VolumeRole, name: &str, mount_path: &str, source| wire::Volume {
            role: role.into(),
            tablespace: String::new(),
            name: name.to_owned(),
            source: Some(source),
            mount_path: mount_path.to_owned(),
            sub_path: String::new(),
        };
        let csi = wire::volume::Source::Csi(wire::CsiVolume {});
        let empty = wire::volume::Source::EmptyDir(wire::EmptyDirVolume {});
        let target = wire::Target {
            namespace: "ns".to_owned(),
            cluster: "c".to_owned(),
            instance: "c-1".to_owned(),
            pod_uid: stage.pod.to_string(),
            container: "postgres".to_owned(),
            container_id: CONTAINER.to_owned(),
            volumes: vec![
                volume(wire::VolumeRole::PgData, "pvc-1", "/var/lib/postgresql/data", csi),
                volume(wire::VolumeRole::Scratch, "scratch-data", "/controller", empty),
            ],
        };
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

    fn inspect(&self, always_scan_wal: bool, budget_ms: u32) -> wire::InspectPostgresReply {
        let request = wire::InspectPostgresRequest {
            target: Some(self.target.clone()),
            always_scan_wal,
            budget_ms,
        };
        let reply = self
            .runtime
            .block_on(self.agent.inspect_postgres(Request::new(request)));
        reply.unwrap().into_inner()
    }

    fn count(&self, timeline: u32, past_lsn: u64) -> wire::CountCommitsReply {
        let request = wire::CountCommitsRequest {
            target: Some(self.target.clone()),
            timeline,
            past_lsn,
            budget_ms: 0,
        };
        let reply = self
            .runtime
            .block_on(self.agent.count_commits(Request::new(request)));
        reply.unwrap().into_inner()
    }
}

/// The known value of an item, or a panic that shows why not.
macro_rules! known {
    ($reading:expr, $module:ident) => {
        match $reading.clone().unwrap().outcome.unwrap() {
            wire::$module::Outcome::Known(known) => known,
            other => panic!("{other:?}"),
        }
    };
}

/// Why an item is unread.
macro_rules! unread {
    ($reading:expr, $module:ident) => {
        match $reading.clone().unwrap().outcome.unwrap() {
            wire::$module::Outcome::Unread(unread) => unread.kind(),
            other => panic!("{other:?}"),
        }
    };
}

pub(crate) fn inspect() {
    let stage = Stage::new();
    let cgroup = Cgroup::new(&stage);
    let root = container(&stage);
    let service = Service::new(&stage, stage.hands());

    // Before anything runs: PGDATA is proven absent, and so is the server.
    let empty = service.inspect(false, 0);
    let absent = |outcome| matches!(outcome, wire::control_file_reading::Outcome::Absent(_));
    assert!(empty.control_file.unwrap().outcome.is_some_and(absent));
    assert_eq!(
        unread!(empty.server, server_reading),
        wire::UnreadKind::ServerDown
    );

    let running = start(&cgroup, &root);
    let reply = until(Duration::from_secs(60), "the server answers", || {
        let reply = service.inspect(false, 0);
        let known = |outcome: &wire::server_reading::Outcome| {
            matches!(outcome, wire::server_reading::Outcome::Known(_))
        };
        reply
            .server
            .as_ref()?
            .outcome
            .as_ref()
            .is_some_and(known)
            .then_some(reply)
    });
    let server = known!(reply.server, server_reading);
    let control = known!(reply.control_file, control_file_reading);
    assert_eq!(server.system_id, control.system_id);
    assert!(!server.in_recovery && server.timeline == 1 && server.flush_lsn >= control.checkpoint_lsn);
    let processes = known!(reply.processes, processes_reading);
    assert!(processes.manager && processes.tools.is_empty());
    let postmaster = processes.postmaster.unwrap();
    assert_eq!(
        (postmaster.uid, postmaster.gid, postmaster.stopped),
        (26, 26, false)
    );
    assert_eq!(
        unread!(reply.wal_end, wal_end_reading),
        wire::UnreadKind::NotNeeded
    );
    assert!(known!(reply.wal_directory, wal_directory_reading).segments >= 1);
    assert!(known!(Some(reply.volumes[0].clone()), volume_space_reading).total_bytes > 0);
    assert!(!known!(reply.signals, signals_reading).standby);

    let scanned = service.inspect(true, 0);
    let end = known!(scanned.wal_end, wal_end_reading);
    assert!(end.end_lsn >= server.flush_lsn && end.timeline == 1 && end.system_id == server.system_id);

    let begun = Instant::now();
    for _ in 0..20 {
        service.inspect(false, 0);
    }
    println!("one inspection: {:?}", begun.elapsed() / 20);

    // Stopped: known to run, known to be stopped, its files read meanwhile, all of it in time.
    let pid = Pid::from_raw(postmaster.pid.cast_signed());
    kill(pid, Signal::SIGSTOP).unwrap();
    let begun = Instant::now();
    let stopped = until(Duration::from_secs(5), "it is stopped", || {
        let reply = service.inspect(false, 2000);
        known!(reply.processes, processes_reading)
            .postmaster?
            .stopped
            .then_some(reply)
    });
    assert!(begun.elapsed() < Duration::from_secs(4));
    assert_eq!(
        unread!(stopped.server, server_reading),
        wire::UnreadKind::ServerHung
    );
    assert_eq!(known!(stopped.wal_end, wal_end_reading).timeline, 1);

    // Dead: the end of WAL comes from the files.
    kill(pid, Signal::SIGKILL).unwrap();
    let dead = until(Duration::from_secs(10), "it is gone", || {
        let reply = service.inspect(false, 0);
        known!(reply.processes, processes_reading)
            .postmaster
            .is_none()
            .then_some(reply)
    });
    assert_eq!(unread!(dead.server, server_reading), wire::UnreadKind::ServerDown);
    let end = known!(dead.wal_end, wal_end_reading);
    assert!(end.end_lsn >= server.flush_lsn);
    match service.count(1, server.flush_lsn).outcome.unwrap() {
        wire::count_commits_reply::Outcome::Known(commits) => {
            assert_eq!((commits.count, commits.end_lsn), (0, end.end_lsn));
        }
        wire::count_commits_reply::Outcome::Unread(unread) => panic!("{unread:?}"),
    }
    drop(running);
}

pub(crate) fn in_time() {
    let stage = Stage::new();
    let hands = stage.hands();
    let pid = hands.pid();
    let service = Service::new(&stage, hands);
    let describe = || {
        service
            .runtime
            .block_on(service.agent.describe(Request::new(wire::DescribeRequest {})))
    };
    let reply = describe().unwrap().into_inner();
    assert!(
        reply.node == "n1"
            && reply.head_rss_bytes > 0
            && reply.hands_rss_bytes > 0
            && !reply.kernel.is_empty()
    );

    // Not mounted: everything is unread with that reason, and nothing is absent.
    let reply = service.inspect(false, 0);
    assert_eq!(
        unread!(reply.control_file, control_file_reading),
        wire::UnreadKind::NotMounted
    );
    assert_eq!(
        unread!(reply.signals, signals_reading),
        wire::UnreadKind::NotMounted
    );
    assert_eq!(
        unread!(Some(reply.volumes[0].clone()), volume_space_reading),
        wire::UnreadKind::NotMounted
    );
    assert!(known!(reply.processes, processes_reading).postmaster.is_none());

    kill(pid, Signal::SIGSTOP).unwrap();
    let begun = Instant::now();
    let reply = service.inspect(false, 300);
    kill(pid, Signal::SIGCONT).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(
        unread!(reply.processes, processes_reading),
        wire::UnreadKind::Timeout
    );
    assert_eq!(
        unread!(reply.control_file, control_file_reading),
        wire::UnreadKind::Timeout
    );
    assert_eq!(unread!(reply.server, server_reading), wire::UnreadKind::Timeout);
    // And once they go on, so does the agent.
    assert!(describe().is_ok());
    let reply = service.inspect(false, 0);
    assert_eq!(
        unread!(reply.control_file, control_file_reading),
        wire::UnreadKind::NotMounted
    );

    // What cannot be is refused as input.
    let mut request = wire::InspectPostgresRequest {
        target: Some(service.target.clone()),
        ..Default::default()
    };
    "..".clone_into(&mut request.target.as_mut().unwrap().pod_uid);
    let status = service
        .runtime
        .block_on(service.agent.inspect_postgres(Request::new(request)))
        .unwrap_err();
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
}
