//! The quick start: what hasteward does, shown on a real cluster, from nothing to nothing.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::cli::Preparation;
use crate::fault::{Fault, Scene};
use crate::options::{UpOptions, Which};
use crate::run::{bold, dim, green};
use crate::supervise::program;
use crate::up::Ownership;
use crate::{cnpg, down, prepare, up};

/// How long the agents may take to report before the first triage counts.
const FIRST_TRIAGE: Duration = Duration::from_secs(60);
/// How long the operator gets to be content with the broken cluster.
const OPERATOR_SETTLES: Duration = Duration::from_secs(30);
/// Exit code of a triage that found something to act on.
const FOUND_SOMETHING: i32 = 6;
/// The replica that the demo breaks, unless it became the primary.
const VICTIMS: [&str; 2] = ["pg-3", "pg-2"];

/// Runs the demo. Whatever happens, also on Ctrl-C, the lab is gone afterwards.
pub async fn run(which: &Which, preparation: &Preparation) -> anyhow::Result<ExitCode> {
    let mut which = which.clone();
    if which.name.to_string() == "lab" {
        // Somebody's lab may be up under the usual name.
        which.name = "demo".parse()?;
    }
    let place = which.place()?;
    anstream::println!("{}\n", bold("hasteward, shown on a real PostgreSQL cluster"));
    anstream::println!(
        "Everything below is real: PostgreSQL, streaming replication, node agents, the coordinator, TLS."
    );
    anstream::println!("Only Kubernetes is small: three nodes made of namespaces on this machine.\n");
    let began = Instant::now();
    let shown = tokio::select! {
        shown = show(&which, preparation) => shown,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    step("Cleaning up");
    down::down(&place).context("clean up")?;
    anstream::println!("  no process, no mount, no port, no file of the lab is left");
    shown?;
    anstream::println!(
        "\n{} in {:.0} s. Next:",
        green("done"),
        began.elapsed().as_secs_f32()
    );
    anstream::println!("  cargo lab up --pg 3        the same cluster, to play with");
    anstream::println!("  cargo lab break --help     other ways to break it");
    Ok(ExitCode::SUCCESS)
}

async fn show(which: &Which, preparation: &Preparation) -> anyhow::Result<()> {
    let tell = |line: &str| anstream::println!("  {}", dim(line));
    step("Preparing");
    if !preparation.no_prep {
        prepare::machine(prepare::Galera::NotWanted, &tell)
            .await
            .context("prepare this machine")?;
    }
    tell("building");
    prepare::programs().await?;

    step("A PostgreSQL cluster of three");
    let options = UpOptions {
        pg: 3,
        ..UpOptions::default()
    };
    let client = up::up(which, &options, Ownership::Lifeline, &tell).await?;
    let primary = cnpg::primary(&client).await?;
    anstream::println!("  {primary} is the primary, the others stream from it");

    step("Is it healthy?");
    let triage = Triage::new(which)?;
    triage.until(0).await?;

    let victim = VICTIMS
        .into_iter()
        .find(|victim| *victim != primary)
        .context("no replica")?;
    step(&format!("Now {victim} is broken on purpose"));
    anstream::println!(
        "  It is promoted behind the operator's back, both sides take writes, and it becomes a replica again."
    );
    let place = which.place()?;
    let scene = Scene {
        client: &client,
        place: &place,
        instance: victim,
        tell: &tell,
    };
    let fault = Fault::named("diverge").context("no such fault")?;
    let proof = fault.inflict(&scene).await?;
    anstream::println!("  {proof}");
    // Once the probes pass again the operator is content. Should it not be, its own words show it below.
    if cnpg::settled(&client, options.pg, OPERATOR_SETTLES).await.is_ok() {
        anstream::println!("  And the operator? It says: {}", green(cnpg::HEALTHY_PHASE));
    }

    step("What does hasteward say?");
    triage.until(FOUND_SOMETHING).await
}

fn step(title: &str) {
    anstream::println!("\n{}", bold(&format!("▸ {title}")));
}

/// The command that the demo shows.
struct Triage {
    kubeconfig: std::path::PathBuf,
    program: std::path::PathBuf,
}

impl Triage {
    fn new(which: &Which) -> anyhow::Result<Self> {
        Ok(Self {
            kubeconfig: which.place()?.kubeconfig(),
            program: program("hasteward")?,
        })
    }

    /// Runs it until it ends with this code, then shows its output.
    async fn until(&self, code: i32) -> anyhow::Result<()> {
        let arguments = ["triage", "-e", "cnpg", "-c", cnpg::CLUSTER, "-n", cnpg::NAMESPACE];
        let deadline = Instant::now() + FIRST_TRIAGE;
        loop {
            let run = tokio::process::Command::new(&self.program)
                .args(arguments)
                .args(["--output", "human"])
                .env("KUBECONFIG", &self.kubeconfig)
                .stdin(std::process::Stdio::null())
                .kill_on_drop(true)
                .output();
            let output = tokio::time::timeout(FIRST_TRIAGE, run)
                .await
                .context("triage did not end")??;
            let found = output.status.code();
            if found == Some(code) || Instant::now() > deadline {
                anstream::println!("  $ hasteward {}\n", arguments.join(" "));
                anstream::println!("{}", String::from_utf8_lossy(&output.stdout).trim_end());
                if found == Some(code) {
                    return Ok(());
                }
                let errors = String::from_utf8_lossy(&output.stderr);
                bail!(
                    "triage ended with {}, not with {code}: {}",
                    output.status,
                    errors.trim()
                );
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }
}
