//! The command line of `cargo lab`.

use std::path::PathBuf;

use clap::builder::{PossibleValue, PossibleValuesParser};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::fault;
use crate::options::{UpOptions, Which};

/// A cluster on one machine: real PostgreSQL, real agents, a small Kubernetes.
#[derive(Debug, Parser)]
#[command(name = "cargo lab", bin_name = "cargo lab", version, after_help = EXAMPLES)]
pub struct Cli {
    /// Which lab.
    #[command(flatten)]
    pub which: Which,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  cargo lab demo                      see hasteward at work, from nothing, and leave nothing behind
  cargo lab up --pg 3                 a lab with a PostgreSQL cluster of three instances
  eval \"$(cargo lab env)\"             then kubectl and hasteward talk to it
  hasteward triage -e cnpg -c pg -n db
  cargo lab break diverge pg-2        a replica leaves its primary's history
  cargo lab down                      nothing is left";

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Bring a lab up and wait until everything in it is healthy
    #[command(
        after_help = "Examples:\n  cargo lab up --pg 3\n  cargo lab up --pg 3 --wal-volume --storage local\n  cargo lab --name two up --pg 1"
    )]
    Up(UpOptions),
    /// End the lab and prove that nothing is left; also after a crash, also twice
    Down,
    /// Show processes, nodes and clusters (exit code 1 if the lab is degraded, 4 if it is down)
    Status,
    /// Print shell commands that point kubectl and hasteward to the lab
    #[command(after_help = "Example:\n  eval \"$(cargo lab env)\"")]
    Env,
    /// Damage an instance; ends when the damage is proven
    #[command(
        after_help = "Examples:\n  cargo lab break kill-server pg-2\n  cargo lab break heal pg-2\n  cargo lab break lose-slot pg-3"
    )]
    Break(Break),
    /// Show what hasteward does: installs what is missing, builds, breaks a cluster, triages it, cleans up
    Demo(Preparation),
    /// Run every test of the workspace, those in a lab included, and the linters
    #[command(
        after_help = "Examples:\n  cargo lab test\n  cargo lab test --no-prep -E 'test(triage)'\n  cargo lab test -p hasteward-verdict"
    )]
    Test(Test),
    /// Measure; prints a table, or one line of JSON
    #[command(after_help = "Examples:\n  cargo lab bench triage\n  cargo lab bench idle --json --runs 9")]
    Bench(Bench),
    /// The caller that `bench triage` measures
    #[command(hide = true)]
    BenchClient(BenchClient),
    /// The supervisor's start
    #[command(hide = true)]
    Supervise {
        /// End when the owner's socket ends.
        #[arg(long)]
        lifeline: bool,
    },
    /// Process 1 of the lab
    #[command(hide = true)]
    Init {
        /// Port of the listening socket on standard input.
        #[arg(long)]
        port: u16,
        /// End when the owner's socket ends.
        #[arg(long)]
        lifeline: bool,
    },
    /// A node's start
    #[command(hide = true)]
    Node {
        /// Which one, from 1.
        index: u8,
    },
    /// Process 1 of a node
    #[command(hide = true)]
    NodeInit {
        /// Which one, from 1.
        index: u8,
    },
}

/// `break`
#[derive(Debug, Args)]
pub struct Break {
    /// What to do to it
    #[arg(value_parser = fault_names())]
    pub fault: String,
    /// The instance, e.g. pg-2
    pub instance: String,
}

/// The word that undoes what can be undone.
pub const HEAL: &str = "heal";

fn fault_names() -> PossibleValuesParser {
    let faults = fault::ALL
        .iter()
        .map(|fault| PossibleValue::new(fault.name).help(fault.about));
    let heal = PossibleValue::new(HEAL).help("switch a fault off again, where it is one that can be");
    PossibleValuesParser::new(faults.chain([heal]))
}

/// What is done before the machine is used.
#[derive(Debug, Clone, Args)]
pub struct Preparation {
    /// Install nothing: everything needed is there
    #[arg(long)]
    pub no_prep: bool,
}

/// `test`
#[derive(Debug, Args)]
pub struct Test {
    /// What is done before.
    #[command(flatten)]
    pub preparation: Preparation,
    /// Only these packages
    #[arg(short, long, value_name = "PACKAGE")]
    pub package: Vec<String>,
    /// Only the tests that this nextest filter selects; linters and doctests are left out
    #[arg(short = 'E', long, value_name = "EXPRESSION")]
    pub filter: Option<String>,
    /// Only the tests whose names contain one of these; linters and doctests are left out
    pub names: Vec<String>,
}

/// `bench`
#[derive(Debug, Args)]
pub struct Bench {
    /// What to measure
    pub bench: BenchName,
    /// Print one line of JSON: {bench, runs, metrics}
    #[arg(long)]
    pub json: bool,
    /// How often
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(5..))]
    pub runs: u32,
    /// Write the line of JSON to this file as well
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// The programs beside this one are the ones to measure: build nothing
    #[arg(long, hide = true)]
    pub prebuilt: bool,
}

/// `bench-client`
#[derive(Debug, Args)]
pub struct BenchClient {
    /// Address of the coordinator
    #[arg(long)]
    pub address: String,
    /// File with its CA bundle
    #[arg(long)]
    pub ca: PathBuf,
    /// File with a viewer's token
    #[arg(long)]
    pub token: PathBuf,
    /// How many calls count
    #[arg(long)]
    pub calls: u32,
}

/// The benches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BenchName {
    /// From the coordinator's API to the verdict of a cluster of three, on a warm channel
    Triage,
    /// Resident memory of agent (head and hands) and coordinator at rest
    Idle,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_fault_is_a_word_of_break() {
        for fault in fault::ALL {
            let cli = Cli::try_parse_from(["lab", "break", fault.name, "pg-2"]);
            assert!(cli.is_ok(), "{}", fault.name);
        }
        assert!(Cli::try_parse_from(["lab", "break", "nonsense", "pg-2"]).is_err());
        assert!(Cli::try_parse_from(["lab", "--name", "../x", "down"]).is_err());
    }
}
