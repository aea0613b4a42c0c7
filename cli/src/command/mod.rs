//! One file a command: ask, and hand the answer to the output.

mod agents;
pub(crate) mod man;
pub(crate) mod schema;
mod status;
mod triage;
mod version;

use hasteward_proto::failure::{Failure, FailureKind};
use hasteward_proto::primitive::Engine;
use hasteward_proto::wire::people;

use crate::args::{Command, EngineName, Get, Global};
use crate::output::Outcome;

/// Runs a command that asks the coordinator.
pub(crate) async fn run(global: &Global, command: Command) -> Result<Outcome, Failure> {
    if global.force {
        return Err(Failure::new(
            "nothing-to-force",
            FailureKind::Input,
            format!(
                "--force: `{}` changes nothing, so there is no gate to override",
                command.name()
            ),
        )
        .hint("leave --force out"));
    }
    match command {
        Command::Triage => triage::run(global).await,
        Command::Get { what: Get::Status } => status::run(global).await,
        Command::Get { what: Get::Agents } => agents::run(global).await,
        Command::Version { client } => version::run(global, client).await,
        other => Err(Failure::new(
            "not-remote",
            FailureKind::Internal,
            format!("{} does not ask the coordinator", other.name()),
        )),
    }
}

/// The command line could not be parsed.
pub(crate) fn usage(error: &clap::Error) -> Failure {
    let text = error.to_string();
    let message = text
        .lines()
        .next()
        .unwrap_or_default()
        .trim_start_matches("error: ")
        .to_owned();
    Failure::new("usage", FailureKind::Input, message).hint("hasteward --help")
}

/// The machine is not as it must be.
pub(crate) fn environment(what: &str, error: &dyn std::fmt::Display) -> Failure {
    Failure::new(
        "environment",
        FailureKind::Environment,
        format!("{what}: {error}"),
    )
}

/// `--engine`, as the wire has it; required.
fn required_engine(global: &Global) -> Result<people::Engine, Failure> {
    let engine: EngineName = global
        .engine
        .ok_or_else(|| missing("--engine", "-e cnpg or -e galera"))?;
    Ok(match Engine::from(engine) {
        Engine::Cnpg => people::Engine::Cnpg,
        Engine::Galera => people::Engine::Galera,
    })
}

/// A flag that this command cannot do without.
fn missing(flag: &str, form: &str) -> Failure {
    Failure::new(
        "missing-argument",
        FailureKind::Input,
        format!("{flag} is missing: give {form}"),
    )
    .hint("hasteward get status lists every cluster with its engine and namespace")
}

/// A document from the coordinator that this release cannot read.
fn unreadable(what: &str, error: &serde_json::Error) -> Failure {
    Failure::new(
        "version-skew",
        FailureKind::Dependency,
        format!("the coordinator's {what} cannot be read: {error}"),
    )
    .hint("hasteward version compares the two releases")
}
