//! Stand-in of CloudNativePG's instance manager: PID 1 of container `postgres`, with the server as its child.
//!
//! It knows the API server and its container, nothing else. What it does is observable behaviour of CloudNativePG
//! 1.30 (documentation, messages, files), including what hurts: files rewritten under a fence, the start-up path
//! that rewinds before it reads a fence, exit code 4 without disk space.

mod archive;
mod bootstrap;
mod certificates;
mod configuration;
mod isolation;
mod lease;
mod local;
mod place;
mod postmaster;
mod programs;
mod reaper;
mod report;
mod role;
mod run;
mod slots;
mod sql;
mod startup;
mod state;
mod web;

pub use configuration::{custom_conf, override_conf, pg_hba, pg_ident, replica_source};
pub use place::Place;

use clap::Subcommand;
use std::path::PathBuf;
use std::process::ExitCode;

/// Command line of the instance manager.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Copies this program to where the other containers of the pod find it.
    Bootstrap {
        /// Destination.
        to: PathBuf,
    },
    /// Runs or makes an instance.
    Instance {
        #[command(subcommand)]
        command: Instance,
    },
    /// `archive_command`.
    WalArchive {
        /// Accepted, unused: the lab logs to standard error.
        #[arg(long)]
        log_destination: Option<PathBuf>,
        /// `%p`.
        path: PathBuf,
    },
    /// `restore_command`.
    WalRestore {
        /// Accepted, unused: the lab logs to standard error.
        #[arg(long)]
        log_destination: Option<PathBuf>,
        /// `%f`.
        name: String,
        /// `%p`.
        path: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
enum Instance {
    /// PID 1 of the container `postgres`.
    Run,
    /// Makes the first instance.
    Init,
    /// Clones the primary.
    Join {
        /// Host of the primary.
        #[arg(long)]
        parent_node: String,
    },
}

/// Runs one command of the manager to its end; its exit status is what the kubelet, or the server, sees.
pub fn main(args: Args) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("cannot start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(async {
        match execute(args.command).await {
            Ok(code) => code,
            Err(error) => {
                tracing::error!("{error:#}");
                ExitCode::FAILURE
            }
        }
    });
    // A blocking read that never ends must not keep the container alive.
    runtime.shutdown_background();
    code
}

async fn execute(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Bootstrap { to } => bootstrap::copy_program(&to).map(|()| ExitCode::SUCCESS),
        Command::Instance {
            command: Instance::Run,
        } => run::run(Place::from_environment()?).await,
        Command::Instance {
            command: Instance::Init,
        } => bootstrap::init(&Place::from_environment()?)
            .await
            .map(|()| ExitCode::SUCCESS),
        Command::Instance {
            command: Instance::Join { parent_node },
        } => bootstrap::join(&Place::from_environment()?, &parent_node)
            .await
            .map(|()| ExitCode::SUCCESS),
        Command::WalArchive { path, .. } => archive::command_archive(&Place::from_environment()?, &path)
            .await
            .map(|()| ExitCode::SUCCESS),
        Command::WalRestore { name, path, .. } => {
            archive::command_restore(&Place::from_environment()?, &name, &path)
                .await
                .map(|()| ExitCode::SUCCESS)
        }
    }
}
