//! The container runtime: namespaces, root file systems, cgroups and the processes in them. It knows no API server.

pub mod cgroup;
pub mod children;
pub mod enter;
mod fork;
mod identity;
pub mod monitor;
pub mod mountinfo;
pub mod network;
pub mod pause;
pub mod rootfs;
pub mod spec;
pub mod step;

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Mutex, watch};

use cgroup::{CgroupError, Cgroups};
use children::{Children, CommandError};
use network::Addresses;
use spec::{ContainerSpec, ExecSpec, MonitorCommand, MonitorEvent, SandboxSpec};

/// Why a sandbox or a container does not run.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// A helper process could not be started or spoken to.
    #[error("helper process: {0}")]
    Helper(#[from] io::Error),
    /// What is said and heard is JSON.
    #[error("helper protocol: {0}")]
    Protocol(#[from] serde_json::Error),
    /// A helper process ended without an answer.
    #[error("helper process ended without an answer")]
    Silent,
    /// The namespaces, root file system, identity or program.
    #[error("{0}")]
    Setup(String),
    /// cgroups.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// `ip` and the like.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// No address is left.
    #[error("no free pod address")]
    NoAddress,
}

/// How a container ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Exit code, or 128 + signal.
    pub code: i32,
    /// The signal, if it was one.
    pub signal: Option<i32>,
}

/// The runtime of one node.
#[derive(Debug)]
pub struct Runtime {
    children: Arc<Children>,
    /// cgroup directories.
    pub cgroups: Cgroups,
    addresses: Addresses,
    helper: PathBuf,
}

/// The namespaces of a pod.
#[derive(Debug)]
pub struct Sandbox {
    /// Pid of the sandbox process in the node's pid namespace.
    pub pid: i32,
    /// The pod's own address; `None` with the host's network.
    pub address: Option<Ipv4Addr>,
    // Its end is the end of the sandbox process.
    _socket: (OwnedWriteHalf, tokio::io::Lines<BufReader<OwnedReadHalf>>),
}

/// A running container.
#[derive(Debug)]
pub struct Container {
    /// Main process, in the node's pid namespace.
    pub pid: i32,
    commands: Mutex<OwnedWriteHalf>,
    ended: watch::Receiver<Option<Exit>>,
}

impl Runtime {
    /// A runtime whose helper processes are the program `helper` (`/proc/self/exe` in the kubelet).
    pub fn new(children: Arc<Children>, cgroups: Cgroups, addresses: Addresses, helper: PathBuf) -> Self {
        Self {
            children,
            cgroups,
            addresses,
            helper,
        }
    }

    /// All child processes.
    pub fn children(&self) -> &Arc<Children> {
        &self.children
    }

    /// Makes the bridge, and the node a router.
    ///
    /// # Errors
    /// When `ip` or the kernel refuses.
    pub async fn prepare_network(&self) -> Result<(), RuntimeError> {
        let batch = self.addresses.bridge_batch();
        let work = move |children: &Children| {
            if Path::new("/proc/sys/net/ipv4/conf")
                .join(network::BRIDGE)
                .exists()
            {
                // Left by a predecessor; its address may be another one.
                children.run("ip", &["link", "del", network::BRIDGE], "")?;
            }
            children.run("ip", &["-batch", "-"], &batch)
        };
        self.blocking(work).await??;
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
        Ok(())
    }

    /// Starts the sandbox of a pod, with network.
    ///
    /// # Errors
    /// See [`RuntimeError`].
    pub async fn start_sandbox(&self, spec: &SandboxSpec) -> Result<Sandbox, RuntimeError> {
        Cgroups::create(&spec.cgroup)?;
        let (ours, theirs) = StdUnixStream::pair()?;
        let mut command = children::helper(&self.helper, "pause", theirs.into());
        std::os::unix::process::CommandExt::arg0(&mut command, "/pause");
        let child = self.children.spawn(&mut command)?;
        drop(command);
        let pid = child.pid.as_raw();
        let (reader, mut writer) = tokio_stream(ours)?.into_split();
        let mut lines = BufReader::new(reader).lines();
        ask(&mut writer, &mut lines, spec).await?;
        let address = if spec.host_network {
            None
        } else {
            let address = self.addresses.take().ok_or(RuntimeError::NoAddress)?;
            let connected = self.connect(&mut writer, &mut lines, address, pid).await;
            if let Err(error) = connected {
                self.addresses.put_back(address);
                return Err(error);
            }
            Some(address)
        };
        Ok(Sandbox {
            pid,
            address,
            _socket: (writer, lines),
        })
    }

    async fn connect(
        &self,
        writer: &mut OwnedWriteHalf,
        lines: &mut tokio::io::Lines<BufReader<OwnedReadHalf>>,
        address: Ipv4Addr,
        pid: i32,
    ) -> Result<(), RuntimeError> {
        let batch = self.addresses.pair_batch(address, pid);
        self.blocking(move |children| children.run("ip", &["-batch", "-"], &batch))
            .await??;
        ask(writer, lines, &self.addresses.pod_batch(address)).await
    }

    /// Ends a sandbox: the process, the pair of links, the address. Its cgroup goes with that of the pod.
    pub async fn stop_sandbox(&self, sandbox: Sandbox) {
        let address = sandbox.address;
        drop(sandbox);
        let Some(address) = address else { return };
        let name = network::pair_name(address);
        // It may have gone with the namespace already.
        let _ = self
            .blocking(move |children| children.run("ip", &["link", "del", &name], ""))
            .await;
        self.addresses.put_back(address);
    }

    /// Runs `work` on a blocking thread.
    ///
    /// # Errors
    /// When it panics.
    pub async fn blocking<T, F>(&self, work: F) -> io::Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Children) -> T + Send + 'static,
    {
        let children = Arc::clone(&self.children);
        tokio::task::spawn_blocking(move || work(&children))
            .await
            .map_err(io::Error::other)
    }

    /// Starts a container; its output goes to the two descriptors.
    ///
    /// # Errors
    /// See [`RuntimeError`]; `Setup` says which step in the container failed.
    pub async fn start_container(
        &self,
        spec: &ContainerSpec,
        stdout: OwnedFd,
        stderr: OwnedFd,
    ) -> Result<Container, RuntimeError> {
        Cgroups::create(&spec.cgroup)?;
        spec.monitor_cgroup.as_deref().map_or(Ok(()), Cgroups::create)?;
        std::fs::create_dir_all(&spec.root.scratch)?;
        let (ours, theirs) = StdUnixStream::pair()?;
        let mut command = children::helper(&self.helper, "container-init", theirs.into());
        command.stdout(stdout).stderr(stderr);
        let child = self.children.spawn(&mut command)?;
        drop(command);
        let (reader, mut writer) = tokio_stream(ours)?.into_split();
        say(&mut writer, spec).await?;
        let mut lines = BufReader::new(reader).lines();
        let first = lines.next_line().await?.ok_or(RuntimeError::Silent)?;
        let pid = match serde_json::from_str(&first)? {
            MonitorEvent::Started { pid } => pid,
            MonitorEvent::Failed { message } => return Err(RuntimeError::Setup(message)),
            MonitorEvent::Exited { .. } => return Err(RuntimeError::Silent),
        };
        let (sender, ended) = watch::channel(None);
        let cgroup = spec.cgroup.clone();
        tokio::spawn(async move {
            let exit = match lines.next_line().await {
                Ok(Some(line)) => match serde_json::from_str(&line) {
                    Ok(MonitorEvent::Exited { code, signal }) => Exit { code, signal },
                    _ => Exit {
                        code: 255,
                        signal: None,
                    },
                },
                // Somebody killed the monitor, and with it the container.
                _ => Exit {
                    code: 137,
                    signal: Some(9),
                },
            };
            let _ = child.ended.await;
            // What a container in the node's pid namespace leaves behind.
            let _ = tokio::task::spawn_blocking(move || Cgroups::destroy(&cgroup)).await;
            sender.send_replace(Some(exit));
        });
        Ok(Container {
            pid,
            commands: Mutex::new(writer),
            ended,
        })
    }

    /// Runs a program inside a container; `None` when it took longer than `limit` and was killed.
    ///
    /// # Errors
    /// When it could not be started.
    pub async fn exec(&self, spec: &ExecSpec, limit: Duration) -> Result<Option<i32>, RuntimeError> {
        let (ours, theirs) = StdUnixStream::pair()?;
        let mut command = children::helper(&self.helper, "exec", theirs.into());
        let mut child = self.children.spawn(&mut command)?;
        drop(command);
        let mut stream = tokio_stream(ours)?;
        let mut line = serde_json::to_vec(spec)?;
        line.push(b'\n');
        stream.write_all(&line).await?;
        match tokio::time::timeout(limit, &mut child.ended).await {
            Ok(Ok(WaitStatus::Exited(_, code))) => Ok(Some(code)),
            Ok(_) => Ok(Some(255)),
            Err(_) => {
                // Not reaped yet: `ended` has not fired. Its child dies with it.
                let _ = kill(child.pid, Signal::SIGKILL);
                Ok(None)
            }
        }
    }
}

impl Container {
    /// Sends a signal to the main process, if it is still there.
    pub async fn signal(&self, signal: Signal) {
        let mut writer = self.commands.lock().await;
        let _ = say(&mut writer, &MonitorCommand::Signal(signal as i32)).await;
    }

    /// Waits for the end.
    pub async fn ended(&self) -> Exit {
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(exit) => exit.unwrap_or(Exit {
                code: 255,
                signal: None,
            }),
            Err(_) => Exit {
                code: 255,
                signal: None,
            },
        }
    }

    /// SIGTERM, then SIGKILL after `grace`; with a grace of zero SIGKILL at once.
    pub async fn stop(&self, grace: Duration) -> Exit {
        if !grace.is_zero() {
            self.signal(Signal::SIGTERM).await;
            if let Ok(exit) = tokio::time::timeout(grace, self.ended()).await {
                return exit;
            }
        }
        self.signal(Signal::SIGKILL).await;
        self.ended().await
    }
}

fn tokio_stream(stream: StdUnixStream) -> io::Result<UnixStream> {
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

async fn say<T: serde::Serialize>(writer: &mut OwnedWriteHalf, message: &T) -> Result<(), RuntimeError> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    writer.write_all(&line).await?;
    Ok(())
}

async fn ask<T: serde::Serialize>(
    writer: &mut OwnedWriteHalf,
    lines: &mut tokio::io::Lines<BufReader<OwnedReadHalf>>,
    message: &T,
) -> Result<(), RuntimeError> {
    say(writer, message).await?;
    let answer = lines.next_line().await?.ok_or(RuntimeError::Silent)?;
    serde_json::from_str::<Option<String>>(&answer)?.map_or(Ok(()), |text| Err(RuntimeError::Setup(text)))
}

/// Whether a process is there, zombies included.
pub fn is_alive(pid: i32) -> bool {
    kill(Pid::from_raw(pid), None).is_ok()
}
