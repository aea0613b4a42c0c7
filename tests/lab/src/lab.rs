//! A lab of a test's own.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::Client;
use kube::api::Api;
use tokio::process::Command;

use crate::container::Container;
use crate::fault::{self, Fault, Scene};
use crate::options::{UpOptions, Which};
use crate::place::{DEFAULT_ROOT, LabName, Place};
use crate::supervise::program;
use crate::unchanged::{Audit, Files, Frozen, Versions};
use crate::up::{Ownership, up};
use crate::{cnpg, down, galera, kubernetes};

/// How long one run of the command line may take.
const COMMAND_DEADLINE: Duration = Duration::from_secs(120);

/// A lab that ends with this value, also when the test panics; when the test's process is killed, the lab ends by itself.
pub struct Lab {
    which: Which,
    place: Place,
    client: Client,
}

/// What a run of the command line gave.
#[derive(Debug, Clone)]
pub struct Output {
    /// Its exit code.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Lab {
    /// Brings a lab up under a name that nobody else uses.
    ///
    /// # Errors
    /// Names the failed step and shows the ends of the logs; the lab is gone by then.
    pub async fn up(options: UpOptions) -> anyhow::Result<Self> {
        let root =
            std::env::var_os("HASTEWARD_LAB_ROOT").map_or_else(|| PathBuf::from(DEFAULT_ROOT), PathBuf::from);
        let which = Which {
            name: LabName::unique("test"),
            root,
        };
        let place = which.place()?;
        match up(&which, &options, Ownership::Lifeline, &|line| {
            println!("lab: {line}");
        })
        .await
        {
            Ok(client) => Ok(Self { which, place, client }),
            Err(error) => {
                let logs = tails(&place);
                down::down(&place).context("take down a lab that did not come up")?;
                Err(error.context(logs))
            }
        }
    }

    /// A client with every right.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The lab's files.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The lab's name and root, as the commands take them.
    #[must_use]
    pub fn which(&self) -> &Which {
        &self.which
    }

    /// The instance that is the primary now.
    pub async fn primary(&self) -> anyhow::Result<String> {
        cnpg::primary(&self.client).await
    }

    /// Waits until the PostgreSQL cluster is healthy with this many instances.
    pub async fn healthy(&self, instances: u8) -> anyhow::Result<()> {
        cnpg::healthy(&self.client, instances).await
    }

    /// The running container of an instance.
    pub async fn container(&self, instance: &str) -> anyhow::Result<Container> {
        Container::of(&self.client, instance).await
    }

    /// Runs SQL as superuser on an instance; one line a row, columns separated by `|`.
    pub async fn psql(&self, instance: &str, sql: &str) -> anyhow::Result<String> {
        self.container(instance).await?.psql(sql).await
    }

    /// Runs SQL as root on a node of the Galera cluster; one line a row, columns separated by tabs.
    pub async fn mariadb(&self, pod: &str, sql: &str) -> anyhow::Result<String> {
        galera::Node::of(&self.client, pod).await?.sql(sql).await
    }

    /// Runs the command line of hasteward with the lab's kubeconfig.
    pub async fn hasteward(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        self.hasteward_as(&self.place.kubeconfig(), arguments).await
    }

    /// As [`Lab::hasteward`], with a kubeconfig of one's own.
    pub async fn hasteward_as(
        &self,
        kubeconfig: &std::path::Path,
        arguments: &[&str],
    ) -> anyhow::Result<Output> {
        let run = Command::new(program("hasteward")?)
            .args(arguments)
            .env("KUBECONFIG", kubeconfig)
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(COMMAND_DEADLINE, run)
            .await
            .context("hasteward did not end")??;
        Ok(Output {
            code: output.status.code().context("hasteward was ended by a signal")?,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Inflicts a fault; returns its proof.
    pub async fn inflict(&self, fault: &str, instance: &str) -> anyhow::Result<String> {
        let Some(fault) = Fault::named(fault) else {
            bail!("no fault {fault}")
        };
        fault.inflict(&self.scene(instance)).await
    }

    /// Switches off an instance's fault.
    pub async fn heal(&self, instance: &str) -> anyhow::Result<String> {
        fault::heal(&self.scene(instance)).await
    }

    fn scene<'a>(&'a self, instance: &'a str) -> Scene<'a> {
        Scene {
            client: &self.client,
            place: &self.place,
            instance,
            tell: &|line| println!("fault: {line}"),
        }
    }

    /// The API server's log of requests, from now on.
    pub fn audit(&self) -> anyhow::Result<Audit> {
        Audit::start(&self.place.audit_log())
    }

    /// The resource versions of the databases' objects.
    pub async fn versions(&self) -> anyhow::Result<Versions> {
        Versions::take(&self.client).await
    }

    /// Stops every process of these instances until the value is dropped.
    pub async fn freeze(&self, instances: &[&str]) -> anyhow::Result<Frozen> {
        Frozen::freeze(&self.client, instances).await
    }

    /// Every file on the volumes of these instances (directories of CSI volumes; other kinds are an error).
    pub async fn volume_files(&self, instances: &[&str]) -> anyhow::Result<Files> {
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), cnpg::NAMESPACE);
        let mut directories = Vec::new();
        for claim in claims.list(&kube::api::ListParams::default()).await? {
            let labels = claim.metadata.labels.unwrap_or_default();
            let owner = labels.get("cnpg.io/instanceName").map(String::as_str);
            let name = claim.metadata.name.as_deref().unwrap_or_default();
            // Claims of a StatefulSet are called after their template and their pod.
            let pod = ["storage-", "galera-"]
                .iter()
                .find_map(|template| name.strip_prefix(template));
            let owner = owner.or(pod);
            if owner.is_some_and(|owner| instances.contains(&owner)) {
                let volume = claim
                    .spec
                    .and_then(|spec| spec.volume_name)
                    .context("a claim without a volume")?;
                directories.push(self.place.from_host(&self.place.volumes().join(volume))?);
            }
        }
        Files::take(&directories)
    }

    /// Takes the lab down and proves that nothing is left. Dropping does the same, but can only panic.
    pub fn down(self) -> anyhow::Result<()> {
        down::down(&self.place)
    }

    /// A kubeconfig for a ServiceAccount's name or any other user, signed by the lab.
    pub fn kubeconfig_of(&self, user: &str, group: &str) -> anyhow::Result<PathBuf> {
        let file = self
            .place
            .client_kubeconfig(&format!("user-{}", user.replace(['/', ':'], "-")));
        let server = crate::supervise::report::Report::read(&self.place)
            .context("no report of the supervisor")?
            .port;
        let output = std::process::Command::new(program("hasteward-lab-apiserver")?)
            .arg("kubeconfig")
            .arg("--data")
            .arg(self.place.api_data())
            .args([
                "--user",
                user,
                "--group",
                group,
                "--server",
                &format!("https://127.0.0.1:{server}"),
                "--out",
            ])
            .arg(&file)
            .output()?;
        if !output.status.success() {
            bail!(
                "kubeconfig of {user}: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(file)
    }

    /// A client with another user's rights.
    pub async fn client_of(&self, user: &str, group: &str) -> anyhow::Result<Client> {
        kubernetes::client(&self.kubeconfig_of(user, group)?).await
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", tails(&self.place));
        }
        if let Err(error) = down::down(&self.place) {
            // A test that leaves something behind has failed; while already panicking, a second panic would abort.
            eprintln!("lab {}: {error:#}", self.place.name());
            assert!(std::thread::panicking(), "the lab was not taken down: {error:#}");
        }
    }
}

/// The last lines of every log of the lab.
fn tails(place: &Place) -> String {
    let Ok(logs) = std::fs::read_dir(place.log()) else {
        return "no logs".to_owned();
    };
    let mut text = String::new();
    for log in logs.flatten().filter(|log| log.file_name() != "audit.jsonl") {
        let content = std::fs::read(log.path()).unwrap_or_default();
        let content = String::from_utf8_lossy(&content);
        let lines: Vec<&str> = content.lines().collect();
        let tail = &lines[lines.len().saturating_sub(20)..];
        // Writing to a String cannot fail.
        let _ = writeln!(text, "== {}\n{}", log.file_name().display(), tail.join("\n"));
    }
    text
}
