//! Finding a pod's processes and its postmaster.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use hasteward_agent::hands::{ProcessError, Processes};

use crate::stage::{CONTAINER, Cgroup, Running, Stage, container_id, until};

/// One process of a process table made of plain files, as `/proc` shows it.
struct Fake<'a> {
    pid: u32,
    parent: u32,
    exe: &'a str,
    cgroup: String,
    uid: u32,
    state: char,
    started: u64,
    command: &'a str,
}

impl Fake<'_> {
    fn write(&self, proc: &Path) {
        let directory = proc.join(self.pid.to_string());
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("cgroup"), &self.cgroup).unwrap();
        symlink(self.exe, directory.join("exe")).unwrap();
        let fields = "1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0";
        let Self {
            pid,
            parent,
            state,
            started,
            uid,
            ..
        } = self;
        fs::write(
            directory.join("stat"),
            format!("{pid} (a) b) {state} {parent} {fields} {started} 0 0"),
        )
        .unwrap();
        fs::write(
            directory.join("status"),
            format!("Name:\tx\nUid:\t0\t{uid}\t0\t0\nGid:\t0\t{uid}\t0\t0\n"),
        )
        .unwrap();
        fs::write(directory.join("cmdline"), self.command.replace(' ', "\0")).unwrap();
    }
}

fn table(name: &str) -> Stage {
    let mut stage = Stage::new();
    stage.proc = stage.at(name);
    fs::create_dir(&stage.proc).unwrap();
    fs::write(stage.proc.join("stat"), "cpu 1 2\nbtime 1700000000\n").unwrap();
    // What is no process does not disturb.
    fs::create_dir(stage.proc.join("sys")).unwrap();
    stage
}

fn fake<'a>(stage: &Stage, pid: u32, parent: u32, exe: &'a str, command: &'a str) -> Fake<'a> {
    let cgroup = format!("0::/kubepods/burstable/pod{}/{CONTAINER}\n", stage.pod);
    Fake {
        pid,
        parent,
        exe,
        cgroup,
        uid: 26,
        state: 'S',
        started: u64::from(pid),
        command,
    }
}

const POSTGRES: &str = "/usr/lib/postgresql/15/bin/postgres";

fn found(stage: &Stage) -> Result<Processes, ProcessError> {
    let hands = stage.hands();
    stage.session(&hands, Vec::new()).processes()
}

pub(crate) fn shapes() {
    let slice = |stage: &Stage| stage.pod.as_str().replace('-', "_");
    let shapes: [fn(&str, &str) -> String; 8] = [
        |uid, _| format!("0::/kubepods/burstable/pod{uid}/{CONTAINER}\n"),
        |_, slice| format!("0::/kubepods.slice/kubepods-pod{slice}.slice/cri-containerd-{CONTAINER}.scope\n"),
        |_, slice| {
            format!(
                "0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{slice}.slice/crio-{CONTAINER}.scope\n"
            )
        },
        |_, slice| {
            format!(
                "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{slice}.slice/docker-{CONTAINER}.scope\n"
            )
        },
        |uid, _| {
            format!(
                "12:pids:/kubepods/pod{uid}/{CONTAINER}\n1:name=systemd:/kubepods/pod{uid}/{CONTAINER}\n0::/\n"
            )
        },
        |_, slice| {
            format!(
                "0::/system.slice/docker-{CONTAINER}.scope/kubelet.slice/kubelet-kubepods.slice/\
                 kubelet-kubepods-pod{slice}.slice/cri-containerd-{CONTAINER}.scope\n"
            )
        },
        |uid, _| format!("0::/../../pod{uid}/{CONTAINER}\n"),
        |uid, _| format!("0::/kubepods/burstable/pod{uid}/{CONTAINER}/postgres.scope\n"),
    ];
    for shape in shapes {
        let stage = table("proc");
        let mut server = fake(&stage, 100, 50, POSTGRES, "postgres -D x");
        server.cgroup = shape(stage.pod.as_str(), &slice(&stage));
        server.write(&stage.proc);
        let mut stranger = fake(&stage, 200, 50, "/usr/bin/pg_rewind", "pg_rewind");
        stranger.cgroup = shape(
            "11111111-1111-4111-8111-111111111111",
            "11111111_1111_4111_8111_111111111111",
        );
        stranger.write(&stage.proc);
        let mut monitor = fake(&stage, 300, 1, "/usr/bin/pg_ctl", "conmon");
        monitor.cgroup = format!(
            "0::/kubepods.slice/kubepods-pod{}.slice/crio-conmon-{CONTAINER}.scope",
            slice(&stage)
        );
        monitor.write(&stage.proc);
        let found = found(&stage).unwrap();
        assert_eq!(found.postmaster.unwrap().pid, 100, "{}", server.cgroup);
        assert!(found.tools.is_empty(), "{:?}", found.tools);

        // With the container's id, another container's processes do not count.
        let hands = stage.hands();
        let mut locator = stage.locator(Vec::new());
        locator.container = Some(container_id());
        let session = hands.session(&locator, Duration::from_secs(5)).unwrap();
        assert!(session.processes().unwrap().postmaster.is_some());
        locator.container =
            Some(hasteward_agent::hands::ContainerId::new(&CONTAINER.replace('4', "5")).unwrap());
        let session = hands.session(&locator, Duration::from_secs(5)).unwrap();
        assert_eq!(
            session.processes(),
            Err(ProcessError::OtherContainer { pid: 100 }),
            "the id may be that of a container before"
        );
        // Something runs in the wanted one: the server of the other does not count.
        let mut other = fake(&stage, 400, 50, "/bin/sh", "sh");
        other.cgroup = server.cgroup.replace(CONTAINER, &CONTAINER.replace('4', "5"));
        other.write(&stage.proc);
        assert_eq!(session.processes(), Ok(Processes::default()));
        // Nothing in the wanted one, and no server in the other.
        fs::remove_dir_all(stage.proc.join("400")).unwrap();
        fs::remove_dir_all(stage.proc.join("100")).unwrap();
        fake(&stage, 100, 50, "/bin/sleep", "sleep").write(&stage.proc);
        assert_eq!(session.processes(), Ok(Processes::default()));
    }
}

/// The state is the first thread's, which may end before the others.
pub(crate) fn first_thread_ended() {
    let stage = table("proc");
    let look = |pid| {
        let outcome = found(&stage);
        assert!(
            matches!(outcome, Err(ProcessError::Look { pid: of, .. }) if of == pid),
            "{outcome:?}"
        );
    };
    let mut server = fake(&stage, 40, 10, POSTGRES, "postgres");
    server.state = 'Z';
    server.write(&stage.proc);
    let directory = stage.proc.join("40");
    fs::remove_file(directory.join("exe")).unwrap();
    fs::create_dir_all(directory.join("task/40")).unwrap();
    assert_eq!(found(&stage), Ok(Processes::default()));
    fs::create_dir(directory.join("task/41")).unwrap();
    look(40);
    // Version 1 has the thread that ended in the root cgroup.
    fs::write(directory.join("cgroup"), "4:memory:/\n1:name=systemd:/\n0::/\n").unwrap();
    for (thread, cgroup) in [("40", "4:memory:/\n"), ("41", server.cgroup.as_str())] {
        fs::write(directory.join("task").join(thread).join("cgroup"), cgroup).unwrap();
    }
    look(40);

    // No program, and yet not ended.
    fs::remove_dir_all(&directory).unwrap();
    server.state = 'S';
    server.write(&stage.proc);
    fs::remove_file(directory.join("exe")).unwrap();
    look(40);
}

/// The same with a real process, whose first thread ends and whose second goes on.
pub(crate) fn first_thread_really_ended() {
    let stage = Stage::new();
    let cgroup = Cgroup::new(&stage);
    let hands = stage.hands();
    let mut command = cgroup.command("python3");
    let script = "import ctypes,threading,time\n\
                  threading.Thread(target=time.sleep,args=(600,)).start()\n\
                  time.sleep(0.1)\n\
                  ctypes.CDLL(None).syscall(ctypes.c_long(NUMBER),0)";
    let script = script.replace("NUMBER", &libc::SYS_exit.to_string());
    command.args(["-c", &script]).stdin(Stdio::null());
    let child = Running(command.spawn().unwrap());
    let pid = child.0.id();
    until(Duration::from_secs(10), "its first thread ends", || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.contains(") Z ").then_some(())
    });
    let outcome = stage.session(&hands, Vec::new()).processes();
    assert!(
        matches!(outcome, Err(ProcessError::Look { pid: of, .. }) if of == pid),
        "{outcome:?}"
    );
}

pub(crate) fn too_many() {
    let stage = table("proc");
    fake(&stage, 2, 1, "/bin/sleep", "sleep").write(&stage.proc);
    for pid in 3..8194 {
        symlink("2", stage.proc.join(pid.to_string())).unwrap();
    }
    assert_eq!(found(&stage), Ok(Processes::default()));
    symlink("2", stage.proc.join("8194")).unwrap();
    assert_eq!(found(&stage), Err(ProcessError::TooMany));
}

pub(crate) fn choice() {
    let stage = table("proc");
    fake(&stage, 1, 0, "/pause", "/pause").write(&stage.proc);
    fake(
        &stage,
        10,
        0,
        "/controller/manager (deleted)",
        "/controller/manager instance run",
    )
    .write(&stage.proc);
    // A backend whose postmaster was killed: older, and its parent is no postgres either.
    fake(&stage, 11, 10, POSTGRES, "postgres: walwriter").write(&stage.proc);
    let mut server = fake(
        &stage,
        20,
        10,
        POSTGRES,
        "postgres -D /var/lib/postgresql/data/pgdata",
    );
    server.state = 'T';
    server.write(&stage.proc);
    for pid in 21..25 {
        fake(&stage, pid, 20, POSTGRES, "postgres: checkpointer").write(&stage.proc);
    }
    fake(
        &stage,
        30,
        10,
        "/usr/lib/postgresql/15/bin/pg_rewind",
        "pg_rewind -R",
    )
    .write(&stage.proc);
    fake(&stage, 31, 30, POSTGRES, "postgres --single -F").write(&stage.proc);
    let mut zombie = fake(&stage, 40, 10, POSTGRES, "postgres");
    zombie.state = 'Z';
    zombie.write(&stage.proc);
    // A name is no proof: comm and argv say postgres, the program is another.
    fake(&stage, 50, 10, "/bin/sleep", "postgres -D x").write(&stage.proc);
    let processes = found(&stage).unwrap();
    assert!(processes.manager);
    assert_eq!(processes.tools, ["pg_rewind", "postgres", "postgres"]);
    let postmaster = processes.postmaster.unwrap();
    assert_eq!(
        (postmaster.pid, postmaster.uid, postmaster.gid, postmaster.stopped),
        (20, 26, 26, true)
    );
    assert_eq!(postmaster.started_at_ms, 1_700_000_000_000 + 200);

    let stage = table("proc");
    let mut server = fake(&stage, 20, 10, POSTGRES, "postgres -D x");
    server.uid = 0;
    server.write(&stage.proc);
    assert_eq!(found(&stage), Err(ProcessError::Root { pid: 20 }));

    let stage = table("proc");
    assert_eq!(found(&stage), Ok(Processes::default()));
    fs::remove_file(stage.proc.join("stat")).unwrap();
    fake(&stage, 20, 10, POSTGRES, "postgres -D x").write(&stage.proc);
    assert!(matches!(found(&stage), Err(ProcessError::BootTime(_))));
}

pub(crate) fn real() {
    let stage = Stage::new();
    let cgroup = Cgroup::new(&stage);
    let program = stage.at("postgres");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let hands = stage.hands();
    let mut command = cgroup.command("setpriv");
    command
        .args(["--reuid=26", "--regid=26", "--clear-groups"])
        .arg(&program)
        .stdin(Stdio::null());
    // The directory of a test is for root only.
    fs::set_permissions(
        stage.directory.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    let child = Running(command.spawn().unwrap());
    let pid = child.0.id();
    let postmaster = until(Duration::from_secs(10), "the process is found", || {
        stage.session(&hands, Vec::new()).processes().ok()?.postmaster
    });
    assert_eq!(
        (postmaster.pid, postmaster.uid, postmaster.gid, postmaster.stopped),
        (pid, 26, 26, false)
    );
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    let age = i64::try_from(now.as_millis()).unwrap() - postmaster.started_at_ms;
    assert!((-2_000..60_000).contains(&age), "{age} ms old");
    drop(child);
    until(Duration::from_secs(5), "it is gone", || {
        stage
            .session(&hands, Vec::new())
            .processes()
            .ok()?
            .postmaster
            .is_none()
            .then_some(())
    });
}
