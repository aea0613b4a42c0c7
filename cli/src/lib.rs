//! The command line of hasteward.
//!
//! - [`args`]: what can be typed.
//! - `connect`: from a kubeconfig to a verified channel to the coordinator.
//! - `command`: one file a command: ask, and hand the answer to the output.
//! - [`output`]: one envelope for programs, one view for people.

pub mod args;
mod command;
mod connect;
pub mod output;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use self::args::{Cli, Command};
use self::output::{Envelope, Format, Outcome};

/// Runs one command line; the exit code is documented in `--help` and the README.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => return usage(&error, &arguments),
    };
    if cli.global.no_color {
        anstream::ColorChoice::Never.write_global();
    }
    logging(cli.global.verbose);
    let format = cli.global.format();
    match cli.command {
        Command::Completion { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "hasteward", &mut std::io::stdout());
            ExitCode::SUCCESS
        }
        Command::Man { directory } => finish(format, Envelope::begin("man"), command::man::write(&directory)),
        Command::Schema => finish(format, Envelope::begin("schema"), Ok(command::schema::print())),
        Command::Serve(args) => serve(*args),
        command => remote(format, &cli.global, command),
    }
}

/// A command that asks the coordinator.
fn remote(format: Format, global: &args::Global, command: Command) -> ExitCode {
    let envelope = Envelope::begin(command.name());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(command::run(global, command)),
        Err(error) => Err(command::environment("no runtime could be started", &error)),
    };
    finish(format, envelope, outcome)
}

fn finish(
    format: Format,
    envelope: Envelope,
    outcome: Result<Outcome, hasteward_proto::failure::Failure>,
) -> ExitCode {
    ExitCode::from(output::finish(format, envelope, outcome))
}

fn serve(args: hasteward_coordinator::args::Args) -> ExitCode {
    match hasteward_coordinator::run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            anstream::eprintln!("hasteward serve: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Help and version go to stdout with 0; anything else is bad usage: 2, and an envelope for programs.
fn usage(error: &clap::Error, arguments: &[OsString]) -> ExitCode {
    if !error.use_stderr() {
        // Nothing can be done about a closed stdout.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let format = Format::of_arguments(arguments);
    if format == Format::Human {
        let _ = error.print();
        return ExitCode::from(2);
    }
    let name = arguments
        .iter()
        .skip(1)
        .filter_map(|a| a.to_str())
        .find(|a| !a.starts_with('-'))
        .unwrap_or("hasteward");
    finish(format, Envelope::begin(name), Err(command::usage(error)))
}

fn logging(verbose: u8) {
    let level = match verbose {
        0 => "error",
        1 => "hasteward=debug,hasteward_proto=debug,warn",
        _ => "debug",
    };
    let filter = std::env::var("HASTEWARD_LOG_LEVEL").unwrap_or_else(|_| level.to_owned());
    let filter = tracing_subscriber::EnvFilter::try_new(filter)
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(level));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .try_init()
        .ok();
}
