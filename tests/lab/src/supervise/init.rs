//! Process 1 of the lab: starts the lab's processes in order, then collects what ends and says so.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, sethostname};

use super::children::Children;
use super::node::private_proc;
use super::report::Report;
use super::{disk, itself, log_file, network, program};
use crate::options::{UpOptions, Which};
use crate::place::Place;
use crate::process::ProcessIdentity;

/// How long the API server may take to get ready.
const API_DEADLINE: Duration = Duration::from_secs(30);
/// How often ended processes are collected.
const TICK: Duration = Duration::from_millis(200);

struct Supervisor<'a> {
    which: &'a Which,
    place: Place,
    options: UpOptions,
    children: Children,
    report: Report,
    lifeline: Option<UnixStream>,
}

/// Runs as process 1 of the lab until it is killed or its owner is gone.
pub fn run(which: &Which, port: u16, lifeline: bool) -> anyhow::Result<()> {
    let place = which.place()?;
    // Before anything else, so that `down` finds whatever exists. `/proc` still is the host's: it tells the host's process id.
    let host_pid: i32 = fs::read_link("/proc/self")?
        .to_string_lossy()
        .parse()
        .context("/proc/self")?;
    ProcessIdentity::of(host_pid)?.write(&place.pid_file())?;
    let lifeline = if lifeline {
        Some(UnixStream::connect(place.lifeline()).context("lifeline")?)
    } else {
        None
    };
    let options: UpOptions = serde_json::from_slice(&fs::read(place.options())?)?;
    let report = Report {
        port,
        ..Report::default()
    };
    let mut supervisor = Supervisor {
        which,
        place,
        options,
        children: Children::default(),
        report,
        lifeline,
    };
    match supervisor.start() {
        Ok(()) => supervisor.report.started = true,
        Err(error) => {
            supervisor.report.failure = Some(format!("{error:#}"));
            supervisor.publish()?;
            return Err(error);
        }
    }
    supervisor.publish()?;
    supervisor.watch()
}

impl Supervisor<'_> {
    fn start(&mut self) -> anyhow::Result<()> {
        sethostname(format!("lab-{}", self.place.name()))?;
        private_proc()?;
        disk::prepare(&self.place).context("the lab's disk")?;
        network::prepare_lab()?;
        self.start_api_server()?;
        let mut standins = vec!["controllers", "cnpg-operator"];
        if self.options.galera > 0 {
            standins.push("mariadb-operator");
        }
        for user in standins {
            self.sign_client(user, &format!("system:lab:{user}"))?;
            let mut command = Command::new(program("hasteward-lab-standins")?);
            command
                .arg(user)
                .env("KUBECONFIG", self.place.client_kubeconfig(user))
                .stdin(Stdio::null());
            if user == "controllers" {
                // Admission policies know the DaemonSet controller by this name.
                let name = "daemon-set-controller";
                self.sign_client(name, &format!("system:serviceaccount:kube-system:{name}"))?;
                command.arg("--state").arg(self.place.state());
                command
                    .arg("--daemon-set-kubeconfig")
                    .arg(self.place.client_kubeconfig(name));
            }
            if user == "mariadb-operator" {
                command.args(crate::galera::OPERATOR_FLAGS);
            }
            self.spawn(user, &mut command)?;
        }
        for index in 1..=self.options.nodes {
            let name = format!("n{index}");
            self.sign_client(&name, &format!("system:node:{name}"))?;
            fs::create_dir_all(self.place.node(&name).join("kubelet/pods"))?;
            let mut command = itself(self.which)?;
            command.arg("node").arg(index.to_string()).stdin(Stdio::null());
            let pid = self.spawn(&name, &mut command)?;
            network::plug_in(index, pid)?;
        }
        Ok(())
    }

    /// Starts the API server with the host's listening socket, which is this process's standard input, and waits until it serves.
    fn start_api_server(&mut self) -> anyhow::Result<()> {
        let kubeconfig = self.place.kubeconfig();
        let mut command = Command::new(program("hasteward-lab-apiserver")?);
        command
            .arg("serve")
            .arg("--data")
            .arg(self.place.api_data())
            .arg("--listen")
            .arg(format!("{}:{}", network::LAB, network::API_PORT))
            .args(["--listen-fd", "0"])
            .arg("--audit-log")
            .arg(self.place.audit_log())
            .arg("--kubeconfig")
            .arg(&kubeconfig)
            .arg("--kubeconfig-server")
            .arg(format!("https://127.0.0.1:{}", self.report.port))
            .stdin(Stdio::inherit());
        self.spawn("apiserver", &mut command)?;
        // The socket belongs to the API server alone: when that ends, nothing listens any more.
        let null = fs::File::open("/dev/null")?;
        nix::unistd::dup2_stdin(null.as_fd())?;
        let deadline = Instant::now() + API_DEADLINE;
        while !kubeconfig.exists() {
            self.children.collect();
            if let Some(how) = self.children.ended("apiserver") {
                bail!(
                    "the API server ended: {how}; see {}",
                    self.place.log().join("apiserver.log").display()
                );
            }
            if Instant::now() > deadline {
                bail!("the API server was not ready within {} s", API_DEADLINE.as_secs());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Writes a kubeconfig for one of the lab's own processes. Each has its own name, so that the audit log tells them apart.
    fn sign_client(&self, process: &str, user: &str) -> anyhow::Result<()> {
        let file = self.place.client_kubeconfig(process);
        fs::create_dir_all(file.parent().unwrap_or(Path::new("/")))?;
        let output = Command::new(program("hasteward-lab-apiserver")?)
            .arg("kubeconfig")
            .arg("--data")
            .arg(self.place.api_data())
            .args(["--user", user, "--group", "system:masters"])
            .args(["--server", &network::api_url()])
            .arg("--out")
            .arg(&file)
            .stdin(Stdio::null())
            .output()?;
        if !output.status.success() {
            bail!(
                "kubeconfig of {user}: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(())
    }

    fn spawn(&mut self, name: &str, command: &mut Command) -> anyhow::Result<i32> {
        let log = log_file(&self.place, name)?;
        command
            .stdout(log.try_clone()?)
            .stderr(log)
            .env("RUST_LOG", "info")
            .env("NO_COLOR", "1");
        let pid = self
            .children
            .spawn(name, command)
            .with_context(|| format!("start {name}"))?;
        self.publish()?;
        Ok(pid)
    }

    fn publish(&mut self) -> anyhow::Result<()> {
        self.report.processes = self.children.report();
        self.report
            .write(&self.place)
            .context("write the supervisor's report")
    }

    fn watch(&mut self) -> anyhow::Result<()> {
        let tick = PollTimeout::try_from(TICK).unwrap_or(PollTimeout::ZERO);
        loop {
            let mut lost = false;
            if let Some(lifeline) = &self.lifeline {
                let mut descriptors = [PollFd::new(lifeline.as_fd(), PollFlags::POLLIN)];
                lost = poll(&mut descriptors, tick).is_ok_and(|ready| ready > 0);
            } else {
                std::thread::sleep(TICK);
            }
            if self.children.collect() {
                self.publish()?;
            }
            if lost {
                return self.end();
            }
        }
    }

    /// The owner of a test lab is gone without `down`: ends everything and leaves nothing.
    fn end(&mut self) -> anyhow::Result<()> {
        eprintln!("the owner of this lab is gone");
        let everybody = Pid::from_raw(-1);
        while kill(everybody, Signal::SIGKILL).is_ok() {
            self.children.collect();
            std::thread::sleep(Duration::from_millis(10));
        }
        self.children.collect();
        // This namespace's own mounts keep their mount points busy.
        for mounted in [self.place.volumes(), self.place.nodes(), self.place.disk()] {
            let _ = nix::mount::umount2(&mounted, nix::mount::MntFlags::MNT_DETACH);
        }
        crate::down::remove_cgroups(&self.place)?;
        fs::remove_dir_all(self.place.state()).context("remove the state directory")?;
        // Nobody holds the lock: it was the owner's. The directory of all labs stays while another lab is in it.
        drop(fs::remove_file(self.place.lock()));
        drop(fs::remove_dir(self.place.root()));
        Ok(())
    }
}
