//! `cargo lab test`: every test and every linter, one closing line.

use std::io::{BufRead as _, BufReader, IsTerminal as _};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, bail};

use crate::cli::Test;
use crate::prepare;
use crate::run::{bold, red};

/// Prepares the machine, then runs what was asked for. All steps run, even if an early one fails.
pub async fn run(order: &Test) -> anyhow::Result<ExitCode> {
    let tell = |line: &str| anstream::println!("• {line}");
    if !order.preparation.no_prep {
        prepare::machine(prepare::Galera::Wanted, &tell)
            .await
            .context("prepare this machine")?;
        prepare::fixtures(&tell).await;
        install_nextest()?;
    }
    // Tests start the workspace's programs by path, those of other packages included.
    if !cargo(&["build", "--workspace", "--bins"])
        .status()
        .context("cargo build")?
        .success()
    {
        bail!("the workspace does not build");
    }
    let selected = order.filter.is_some() || !order.names.is_empty();
    let mut failed = Vec::new();
    let closing = nextest(order)?;
    if !closing.success {
        failed.push("tests");
    }
    if !selected {
        let packages = packages(order);
        let lint = if order.package.is_empty() {
            vec!["--workspace".to_owned()]
        } else {
            packages
        };
        let mut check = |name: &'static str, first: &[&str], last: &[&str]| -> anyhow::Result<()> {
            anstream::println!("\n{}", bold(name));
            let mut command = cargo(first);
            if first[0] != "fmt" {
                command.args(&lint);
            }
            if first[0] == "doc" {
                command.env("RUSTDOCFLAGS", "-D warnings");
            }
            if !command
                .args(last)
                .status()
                .with_context(|| name.to_owned())?
                .success()
            {
                failed.push(name);
            }
            Ok(())
        };
        check("doctests", &["test", "--quiet", "--doc"], &[])?;
        check("format", &["fmt", "--all", "--check"], &[])?;
        check(
            "clippy",
            &["clippy", "--quiet", "--all-targets"],
            &["--", "-D", "warnings"],
        )?;
        check(
            "documentation",
            &["doc", "--quiet", "--no-deps", "--document-private-items"],
            &[],
        )?;
    }
    if !failed.is_empty() {
        anstream::println!("\n{} {}", red("failed:"), failed.join(", "));
    }
    println!("{}", closing.line);
    Ok(if failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

struct Closing {
    success: bool,
    line: String,
}

/// Runs nextest, shows what it says, and keeps its closing line.
fn nextest(order: &Test) -> anyhow::Result<Closing> {
    let mut command = cargo(&["nextest", "run"]);
    if order.package.is_empty() {
        command.arg("--workspace");
    }
    command.args(packages(order));
    if let Some(filter) = &order.filter {
        command.args(["-E", filter]);
    }
    command.args(&order.names);
    if std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none() {
        command.args(["--color", "always"]);
    }
    let mut child = command.stderr(Stdio::piped()).spawn().context("cargo nextest")?;
    let mut closing = String::new();
    let stderr = child.stderr.take().context("no output of nextest")?;
    for line in BufReader::new(stderr).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        anstream::eprintln!("{line}");
        let plain = anstream::adapter::strip_str(&line).to_string();
        if plain.trim_start().starts_with("Summary [") {
            plain.trim().clone_into(&mut closing);
        }
    }
    let status = child.wait()?;
    if closing.is_empty() {
        closing = format!("no test ran: cargo nextest ended with {status}");
    }
    Ok(Closing {
        success: status.success(),
        line: closing,
    })
}

fn packages(order: &Test) -> Vec<String> {
    order
        .package
        .iter()
        .flat_map(|package| ["--package".to_owned(), package.clone()])
        .collect()
}

fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(prepare::cargo());
    command
        .args(arguments)
        .current_dir(prepare::workspace())
        .stdin(Stdio::null());
    command
}

fn install_nextest() -> anyhow::Result<()> {
    let there = cargo(&["nextest", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()?
        .success();
    if there {
        return Ok(());
    }
    anstream::println!("• installing cargo-nextest");
    if !cargo(&["install", "--locked", "cargo-nextest"])
        .status()?
        .success()
    {
        bail!("cargo install cargo-nextest failed");
    }
    Ok(())
}
