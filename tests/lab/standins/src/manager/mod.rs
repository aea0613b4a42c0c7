//! The instance manager: PID 1 of container `postgres`.

use std::process::ExitCode;

/// Command line of the instance manager.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs one command of the manager to its end; its exit status is what the kubelet sees.
pub fn main(_args: Args) -> ExitCode {
    eprintln!("the instance manager is not part of this build");
    ExitCode::FAILURE
}
