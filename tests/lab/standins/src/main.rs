//! One binary, several stand-ins: chosen by the first argument, or by being called `manager` as the instance
//! manager is inside a container.

use clap::{Parser, Subcommand};
use hasteward_lab_standins::{controllers, manager, mariadb, operator};
use std::path::Path;
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "hasteward-lab-standins", about = "The lab's stand-ins", version)]
struct Standins {
    #[command(subcommand)]
    standin: Standin,
}

#[derive(Subcommand)]
enum Standin {
    /// Scheduler, DaemonSet, Deployment, Job and volume controllers.
    Controllers(controllers::Args),
    /// The CloudNativePG operator.
    CnpgOperator(operator::Args),
    /// The CloudNativePG instance manager.
    CnpgManager(manager::Args),
    /// mariadb-operator.
    MariadbOperator(mariadb::operator::Args),
    /// The init container of mariadb-operator's pods.
    MariadbInit(mariadb::init::Args),
    /// The agent of mariadb-operator's pods.
    MariadbAgent(mariadb::agent::Args),
    /// The entrypoint of the MariaDB image.
    MariadbEntrypoint(mariadb::entrypoint::Args),
}

#[derive(Parser)]
#[command(name = "manager", about = "The instance manager")]
struct Manager {
    #[command(flatten)]
    args: manager::Args,
}

fn main() -> ExitCode {
    let called_as = std::env::args_os().next().unwrap_or_default();
    let standin = if Path::new(&called_as)
        .file_name()
        .is_some_and(|name| name == "manager")
    {
        Standin::CnpgManager(Manager::parse().args)
    } else {
        Standins::parse().standin
    };
    hasteward_lab_standins::process::prepare();
    match standin {
        Standin::Controllers(args) => hasteward_lab_standins::process::run(controllers::run(args)),
        Standin::CnpgOperator(args) => hasteward_lab_standins::process::run(operator::run(args)),
        Standin::CnpgManager(args) => manager::main(args),
        Standin::MariadbOperator(args) => hasteward_lab_standins::process::run(mariadb::operator::run(args)),
        Standin::MariadbInit(args) => hasteward_lab_standins::process::run(mariadb::init::run(args)),
        Standin::MariadbAgent(args) => hasteward_lab_standins::process::run(mariadb::agent::run(args)),
        Standin::MariadbEntrypoint(args) => mariadb::entrypoint::main(&args),
    }
}
