//! `cargo lab`: a cluster on one machine.

use std::process::ExitCode;

use clap::Parser as _;
use hasteward_lab::cli::{Cli, Command};
use hasteward_lab::{run, supervise};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let which = &cli.which;
    // Those that enter namespaces stay single-threaded: no runtime for them.
    let result = match cli.command {
        Command::Supervise { lifeline } => supervise::start(which, lifeline).map(|()| ExitCode::SUCCESS),
        Command::Init { port, lifeline } => {
            supervise::init::run(which, port, lifeline).map(|()| ExitCode::SUCCESS)
        }
        Command::Node { index } => supervise::node::enter(which, index),
        Command::NodeInit { index } => supervise::node::init(which, index),
        command => run::run(which, command),
    };
    result.unwrap_or_else(|error| {
        anstream::eprintln!("{} {error:#}", run::red("error:"));
        ExitCode::FAILURE
    })
}
