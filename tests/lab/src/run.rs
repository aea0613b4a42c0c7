//! The commands that a person gives.

use std::io::{Write as _, stdout};
use std::process::ExitCode;
use std::time::Instant;

use anstyle::{AnsiColor, Style};
use anyhow::{Context as _, bail};

use crate::cli::{Break, Command, HEAL};
use crate::fault::{self, Fault, Scene};
use crate::options::{UpOptions, Which};
use crate::place::Place;
use crate::process::ProcessIdentity;
use crate::status::Health;
use crate::up::Ownership;
use crate::{bench, demo, down, kubernetes, status, test_run, up};

/// Runs one command on a runtime of its own.
pub fn run(which: &Which, command: Command) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let place = which.place()?;
    runtime.block_on(async {
        match command {
            Command::Up(options) => bring_up(which, &options).await,
            Command::Down => {
                down::down(&place)?;
                anstream::println!("lab {} is down, nothing is left", place.name());
                Ok(ExitCode::SUCCESS)
            }
            Command::Status => {
                let mut out = anstream::AutoStream::auto(stdout().lock());
                Ok(match status::print(&place, &mut out).await? {
                    Health::Up => ExitCode::SUCCESS,
                    Health::Degraded => ExitCode::FAILURE,
                    Health::Down => ExitCode::from(4),
                })
            }
            Command::Env => {
                alive(&place)?;
                stdout().write_all(environment(&place)?.as_bytes())?;
                Ok(ExitCode::SUCCESS)
            }
            Command::Break(order) => break_instance(&place, &order).await,
            Command::Demo(preparation) => demo::run(which, &preparation).await,
            Command::Test(order) => test_run::run(&order).await,
            Command::Bench(order) => bench::run(which, &order).await,
            Command::BenchClient(order) => bench::triage::call(&order).await.map(|()| ExitCode::SUCCESS),
            Command::Supervise { .. }
            | Command::Init { .. }
            | Command::Node { .. }
            | Command::NodeInit { .. } => {
                bail!("not a command for people")
            }
        }
    })
}

async fn bring_up(which: &Which, options: &UpOptions) -> anyhow::Result<ExitCode> {
    let began = Instant::now();
    let ownership = if options.attached {
        Ownership::Lifeline
    } else {
        Ownership::Standing
    };
    up::up(which, options, ownership, &|line| {
        anstream::println!("{} {line}", dim("•"));
    })
    .await?;
    let name = if which.name.to_string() == "lab" {
        String::new()
    } else {
        format!(" --name {}", which.name)
    };
    anstream::println!(
        "{} after {:.1} s\n",
        green("lab is up"),
        began.elapsed().as_secs_f32()
    );
    anstream::println!("  eval \"$(cargo lab{name} env)\"   then kubectl and hasteward talk to it");
    if options.pg > 0 && !options.bare {
        anstream::println!(
            "  hasteward triage -e cnpg -c {} -n {}",
            crate::cnpg::CLUSTER,
            crate::cnpg::NAMESPACE
        );
    }
    anstream::println!("  cargo lab{name} status\n  cargo lab{name} down");
    if options.attached {
        anstream::println!("\nCtrl-C ends it");
        tokio::signal::ctrl_c().await?;
        down::down(&which.place()?)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Shell commands that point the tools to the lab.
pub fn environment(place: &Place) -> anyhow::Result<String> {
    let exe = std::env::current_exe()?;
    let programs = exe.parent().context("this program has no directory")?;
    Ok(format!(
        "export KUBECONFIG={}\nexport PATH={}:\"$PATH\"\n",
        quoted(&place.kubeconfig().display().to_string()),
        quoted(&programs.display().to_string()),
    ))
}

async fn break_instance(place: &Place, order: &Break) -> anyhow::Result<ExitCode> {
    alive(place)?;
    let client = kubernetes::client(&place.kubeconfig()).await?;
    let tell = |line: &str| anstream::println!("{} {line}", dim("•"));
    let scene = Scene {
        client: &client,
        place,
        instance: &order.instance,
        tell: &tell,
    };
    let proof = if order.fault == HEAL {
        fault::heal(&scene).await?
    } else {
        let fault = Fault::named(&order.fault).with_context(|| format!("no fault {}", order.fault))?;
        fault.inflict(&scene).await?
    };
    anstream::println!("{proof}");
    Ok(ExitCode::SUCCESS)
}

/// An error unless the lab's supervisor runs.
fn alive(place: &Place) -> anyhow::Result<()> {
    if ProcessIdentity::read(&place.pid_file()).is_some_and(|supervisor| supervisor.is_alive()) {
        return Ok(());
    }
    bail!("lab {} is down; `cargo lab up --pg 3` brings it up", place.name())
}

/// A word quoted for a POSIX shell.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn styled(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}

/// Text in red, if the terminal wants colours.
pub fn red(text: &str) -> String {
    styled(AnsiColor::Red.on_default().bold(), text)
}

/// Text in green, if the terminal wants colours.
pub fn green(text: &str) -> String {
    styled(AnsiColor::Green.on_default().bold(), text)
}

/// Text in bold, if the terminal wants it.
pub fn bold(text: &str) -> String {
    styled(Style::new().bold(), text)
}

/// Text that stays in the background.
pub fn dim(text: &str) -> String {
    styled(Style::new().dimmed(), text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shell_words_survive_quotes() {
        assert_eq!(quoted("a b'c"), r"'a b'\''c'");
    }
}
