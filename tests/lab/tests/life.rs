//! A lab's life: up, down, crashes, and that nothing is ever left.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use hasteward_lab::down::{Leftovers, down};
use hasteward_lab::options::{UpOptions, Which};
use hasteward_lab::place::{LabName, Place};
use hasteward_lab::process::ProcessIdentity;
use hasteward_lab::supervise::report::Report;
use hasteward_lab::wait::{Look, until};
use hasteward_lab::{Lab, kubernetes};

const SMALL: UpOptions = UpOptions {
    nodes: 2,
    bare: true,
    ..UpOptions::NOTHING
};

/// Everything that could be left of a lab, noted while it ran.
struct Remembered {
    place: Place,
    supervisor: ProcessIdentity,
    port: u16,
}

impl Remembered {
    fn of(place: &Place) -> Self {
        let supervisor = ProcessIdentity::read(&place.pid_file()).expect("a pid file");
        let port = Report::read(place).expect("a report").port;
        assert!(supervisor.is_alive());
        assert!(
            TcpStream::connect(("127.0.0.1", port)).is_ok(),
            "the API server listens"
        );
        Self {
            place: place.clone(),
            supervisor,
            port,
        }
    }

    fn assert_gone(&self) {
        let left = Leftovers::find(&self.place, Some(&self.supervisor), Some(self.port));
        assert!(left.is_empty(), "left: {left}");
    }
}

#[tokio::test]
async fn a_lab_comes_up_and_leaves_nothing() {
    let lab = Lab::up(SMALL).await.unwrap();
    let remembered = Remembered::of(lab.place());
    kubernetes::nodes_ready(lab.client(), &["n1".into(), "n2".into()], Duration::from_secs(1))
        .await
        .unwrap();
    lab.down().unwrap();
    remembered.assert_gone();
    down(&remembered.place).unwrap();
}

#[tokio::test]
async fn two_labs_live_side_by_side() {
    let (one, two) = tokio::join!(Lab::up(SMALL), Lab::up(SMALL));
    let (one, two) = (one.unwrap(), two.unwrap());
    let (first, second) = (Remembered::of(one.place()), Remembered::of(two.place()));
    assert_ne!(first.port, second.port);
    one.down().unwrap();
    first.assert_gone();
    assert!(second.supervisor.is_alive());
    kubernetes::nodes_ready(two.client(), &["n1".into(), "n2".into()], Duration::from_secs(5))
        .await
        .unwrap();
    drop(two);
    second.assert_gone();
}

#[tokio::test]
async fn killing_the_supervisor_ends_everything_and_down_removes_the_rest() {
    let lab = Lab::up(SMALL).await.unwrap();
    let remembered = Remembered::of(lab.place());
    remembered.supervisor.kill().unwrap();
    until("everything gone", Duration::from_secs(20), async || {
        let left = Leftovers::find(
            &remembered.place,
            Some(&remembered.supervisor),
            Some(remembered.port),
        );
        let quiet = left.processes.is_empty() && left.mounts.is_empty() && left.listening.is_empty();
        Ok(if quiet {
            Look::Done(())
        } else {
            Look::not_yet(left)
        })
    })
    .await
    .unwrap();
    assert!(
        remembered.place.state().exists(),
        "files are left for `down`, and for a look at the logs"
    );
    lab.down().unwrap();
    remembered.assert_gone();
}

#[tokio::test]
async fn a_lab_ends_with_its_owner() {
    let which = fresh("owner");
    let mut owner = command(&which, &["up", "--bare", "--nodes", "1", "--attached"])
        .spawn()
        .unwrap();
    let place = which.place().unwrap();
    let up = until("the lab up", Duration::from_secs(60), async || {
        let started = Report::read(&place).is_some_and(|report| report.started);
        Ok(if started {
            Look::Done(())
        } else {
            Look::not_yet("starting")
        })
    })
    .await;
    let remembered = up.is_ok().then(|| Remembered::of(&place));
    kill(&mut owner);
    let gone = until("everything gone", Duration::from_secs(30), async || {
        Ok(if place.state().exists() {
            Look::not_yet("the state directory is there")
        } else {
            Look::Done(())
        })
    })
    .await;
    down(&place).unwrap();
    up.unwrap();
    gone.unwrap();
    remembered.unwrap().assert_gone();
}

#[test]
fn down_spares_a_stranger_with_the_supervisors_process_id() {
    let place = fresh("stranger").place().unwrap();
    let mut stranger = Command::new("sleep").arg("600").spawn().unwrap();
    let pid = i32::try_from(stranger.id()).unwrap();
    let actual = ProcessIdentity::of(pid).unwrap();
    std::fs::create_dir_all(place.state()).unwrap();
    ProcessIdentity {
        start_time: actual.start_time + 1,
        ..actual.clone()
    }
    .write(&place.pid_file())
    .unwrap();
    let result = down(&place);
    let spared = actual.is_alive();
    kill(&mut stranger);
    result.unwrap();
    assert!(spared);
    assert!(!place.state().exists());
}

#[test]
fn down_removes_what_a_broken_up_left() {
    let place = fresh("half").place().unwrap();
    std::fs::create_dir_all(place.log()).unwrap();
    // Cut short by a crash.
    std::fs::write(place.pid_file(), "{\"pid\":1").unwrap();
    std::fs::write(place.report(), "").unwrap();
    down(&place).unwrap();
    assert!(Leftovers::find(&place, None, None).is_empty());
}

#[test]
fn status_and_env_of_a_lab_that_is_down_say_so() {
    let which = fresh("down");
    let status = command(&which, &["status"]).output().unwrap();
    assert_eq!(status.status.code(), Some(4));
    assert!(String::from_utf8_lossy(&status.stdout).contains(": down"));
    let env = command(&which, &["env"]).output().unwrap();
    assert_eq!(env.status.code(), Some(1));
    assert!(env.stdout.is_empty(), "nothing that a shell would evaluate");
}

fn fresh(prefix: &str) -> Which {
    Which {
        name: LabName::unique(prefix),
        root: PathBuf::from(hasteward_lab::place::DEFAULT_ROOT),
    }
}

fn command(which: &Which, arguments: &[&str]) -> Command {
    let mut command = Command::new(Path::new(env!("CARGO_BIN_EXE_hasteward-lab")));
    command
        .arg("--name")
        .arg(which.name.to_string())
        .arg("--root")
        .arg(&which.root)
        .args(arguments);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn kill(child: &mut Child) {
    child.kill().expect("kill");
    child.wait().expect("wait");
}
