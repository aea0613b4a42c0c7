//! Running programs inside an instance's container, as the lab's operator would with root on the node.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Api, LogParams};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::{cnpg, image, process};

/// uid and gid of PostgreSQL in CloudNativePG's containers.
const POSTGRES_UID: &str = "26";
/// Where CloudNativePG puts the server's socket.
const SOCKET_DIRECTORY: &str = "/controller/run";
/// `PGDATA` in CloudNativePG's containers.
pub const PGDATA: &str = "/var/lib/postgresql/data/pgdata";
/// How long one command in a container may take.
const COMMAND_DEADLINE: Duration = Duration::from_secs(120);

/// The running container of a PostgreSQL instance.
#[derive(Debug, Clone)]
pub struct Container {
    instance: String,
    /// uid and gid of the database in it.
    user: &'static str,
    /// Host process id of the container's process 1: for PostgreSQL the instance manager.
    init: i32,
    /// Every process of the container.
    processes: Vec<i32>,
}

impl Container {
    /// Finds the running `postgres` container of an instance.
    pub async fn of(client: &Client, instance: &str) -> anyhow::Result<Self> {
        Self::named(client, instance, "postgres", POSTGRES_UID).await
    }

    /// Finds a running container of a pod; programs run in it as `user` (uid and gid).
    pub async fn named(
        client: &Client,
        instance: &str,
        container: &str,
        user: &'static str,
    ) -> anyhow::Result<Self> {
        let pods: Api<Pod> = Api::namespaced(client.clone(), cnpg::NAMESPACE);
        let pod = pods
            .get(instance)
            .await
            .with_context(|| format!("instance {instance}"))?;
        let statuses = pod
            .status
            .and_then(|status| status.container_statuses)
            .unwrap_or_default();
        let status = statuses.iter().find(|status| status.name == container);
        let running = status.filter(|s| s.state.as_ref().is_some_and(|state| state.running.is_some()));
        let id = running
            .and_then(|s| s.container_id.as_deref())
            .and_then(|id| id.rsplit('/').next());
        let id = id
            .filter(|id| !id.is_empty())
            .with_context(|| format!("{instance}: the container does not run"))?;
        let mut processes: Vec<(u64, i32)> = process::all()
            .into_iter()
            .filter(|pid| fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|c| c.contains(id)))
            .filter_map(|pid| {
                process::Stat::of(pid)
                    .filter(|s| !s.is_dead())
                    .map(|s| (s.start_time, pid))
            })
            .collect();
        processes.sort_unstable();
        let init = processes
            .iter()
            .map(|(_, pid)| *pid)
            .find(|pid| innermost_pid(*pid) == Some(1));
        Ok(Self {
            instance: instance.to_owned(),
            user,
            init: init.with_context(|| format!("{instance}: no process of container {id}"))?,
            processes: processes.into_iter().map(|(_, pid)| pid).collect(),
        })
    }

    /// Host process id of the instance manager.
    #[must_use]
    pub fn init(&self) -> i32 {
        self.init
    }

    /// Host process ids of all processes in the container.
    #[must_use]
    pub fn processes(&self) -> &[i32] {
        &self.processes
    }

    /// Host process ids of the processes whose command line contains `title`, e.g. `walreceiver`.
    #[must_use]
    pub fn processes_titled(&self, title: &str) -> Vec<i32> {
        let titled = |pid: &i32| process::command_line(*pid).join(" ").contains(title);
        self.processes.iter().copied().filter(titled).collect()
    }

    /// Runs a program in the container's namespaces as the database's user and returns its standard output.
    pub async fn run(&self, program: &str, arguments: &[&str], input: &str) -> anyhow::Result<String> {
        let mut path = "/usr/bin:/bin".to_owned();
        if let Ok(programs) = image::postgres_programs() {
            path = format!("{}:{path}", programs.display());
        }
        let mut child = Command::new("nsenter")
            .args([
                "--target",
                &self.init.to_string(),
                "--mount",
                "--net",
                "--uts",
                "--pid",
                "--root",
                "--wd=/",
            ])
            .args(["--setuid", self.user, "--setgid", self.user, "--", program])
            .args(arguments)
            .env_clear()
            .env("PATH", path)
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("nsenter")?;
        let mut stdin = child.stdin.take().context("no standard input")?;
        let input = input.to_owned();
        let feed = async move {
            // A program that ends without reading everything says why itself.
            drop(stdin.write_all(input.as_bytes()).await);
        };
        let (output, ()) = tokio::time::timeout(COMMAND_DEADLINE, async {
            tokio::join!(child.wait_with_output(), feed)
        })
        .await
        .with_context(|| format!("{}: {program} did not end", self.instance))?;
        let output = output?;
        if !output.status.success() {
            let errors = String::from_utf8_lossy(&output.stderr);
            bail!(
                "{}: {program} ended with {}: {}",
                self.instance,
                output.status,
                errors.trim()
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs SQL as superuser in database `postgres`. Returns one line a row, columns separated by `|`. The SQL goes through
    /// standard input, statement by statement, and stops at the first error.
    pub async fn psql(&self, sql: &str) -> anyhow::Result<String> {
        let arguments = [
            "-XAtq",
            "-v",
            "ON_ERROR_STOP=1",
            "-h",
            SOCKET_DIRECTORY,
            "-U",
            "postgres",
            "-d",
            "postgres",
            "-f",
            "-",
        ];
        let output = self.run("psql", &arguments, sql).await?;
        Ok(output.trim_end().to_owned())
    }

    /// Sends a signal to processes of the container. One that is gone by now is no error.
    pub fn signal(&self, processes: &[i32], signal: Signal) -> anyhow::Result<()> {
        for pid in processes {
            match kill(Pid::from_raw(*pid), signal) {
                Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
                Err(error) => bail!("{}: {signal} to {pid}: {error}", self.instance),
            }
        }
        Ok(())
    }
}

/// What an instance's container has logged.
pub async fn log(client: &Client, instance: &str) -> anyhow::Result<String> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), cnpg::NAMESPACE);
    let parameters = LogParams {
        container: Some("postgres".into()),
        ..LogParams::default()
    };
    pods.logs(instance, &parameters)
        .await
        .with_context(|| format!("log of {instance}"))
}

/// The process id in the innermost pid namespace.
fn innermost_pid(pid: i32) -> Option<i32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    line.split_ascii_whitespace().last()?.parse().ok()
}
