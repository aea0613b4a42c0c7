//! What can be typed.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use hasteward_proto::primitive::{Engine, InstanceName, NameError};

use crate::output::Format;

const EXAMPLES: &str = "\
Examples:
  hasteward triage -e cnpg -n shop -c orders          what is wrong, what is safe, what to type
  hasteward triage -e cnpg -n shop -c orders -i 2     one instance
  hasteward triage -e cnpg -n shop -c orders --output json | jq .data.verdict
  hasteward get status                                every cluster, a line each
  hasteward get agents                                every node, and whether its agent answers

Exit codes:
  0  done; with triage: healthy (every action is none or wait)
  1  failed
  2  bad usage or input
  3  refused by a gate (never from triage)
  4  cannot know: undeterminable, or something needed could not be reached
  5  partly done
  6  triage found something to act on";

/// Triage, repair, back up and recover CloudNativePG and MariaDB-Galera clusters.
#[derive(Debug, Parser)]
#[command(name = "hasteward", version, about, after_help = EXAMPLES, propagate_version = true, max_term_width = 120)]
pub struct Cli {
    /// What every command takes.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Operator that runs the cluster
    #[arg(short, long, global = true, env = "HASTEWARD_ENGINE", value_name = "ENGINE")]
    pub engine: Option<EngineName>,
    /// Name of the cluster's custom resource
    #[arg(short, long, global = true, env = "HASTEWARD_CLUSTER", value_name = "NAME")]
    pub cluster: Option<String>,
    /// Its namespace
    #[arg(
        short,
        long,
        global = true,
        env = "HASTEWARD_NAMESPACE",
        value_name = "NAMESPACE"
    )]
    pub namespace: Option<String>,
    /// One instance: its number, or its name
    #[arg(short, long, global = true, env = "HASTEWARD_INSTANCE", value_name = "N|NAME")]
    pub instance: Option<InstanceChoice>,
    /// Override the gates that allow it; only commands that change something take it
    // Deliberately without an environment variable: an override must be typed for each run.
    #[arg(short, long, global = true)]
    pub force: bool,
    /// Kubeconfig file; default: $KUBECONFIG, ~/.kube/config, or the pod's own account
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig
    #[arg(long, global = true, env = "HASTEWARD_CONTEXT", value_name = "NAME")]
    pub context: Option<String>,
    /// Namespace that hasteward is installed in
    #[arg(
        long,
        global = true,
        env = "HASTEWARD_SYSTEM_NAMESPACE",
        default_value = "hasteward-system",
        value_name = "NAMESPACE"
    )]
    pub system_namespace: String,
    /// Reach the coordinator here instead of by a port-forward
    #[arg(long, global = true, env = "HASTEWARD_COORDINATOR", value_name = "HOST:PORT")]
    pub coordinator: Option<String>,
    /// Client certificate instead of a token; needs --coordinator
    #[arg(long, global = true, value_name = "FILE", requires_all = ["key", "ca", "coordinator"])]
    pub cert: Option<PathBuf>,
    /// Key of the client certificate
    #[arg(long, global = true, value_name = "FILE", requires = "cert")]
    pub key: Option<PathBuf>,
    /// CA bundle that the coordinator is verified against; default: ConfigMap hasteward-ca
    #[arg(long, global = true, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Give up after this many seconds
    #[arg(long, global = true, env = "HASTEWARD_TIMEOUT", default_value = "10", value_name = "SECONDS", value_parser = seconds)]
    pub timeout: Duration,
    /// Form of the answer; default: human on a terminal, json otherwise
    #[arg(
        long,
        global = true,
        env = "HASTEWARD_OUTPUT",
        default_value = "auto",
        value_name = "FORMAT"
    )]
    pub output: OutputChoice,
    /// No colours; NO_COLOR and TERM=dumb do the same
    #[arg(long, global = true)]
    pub no_color: bool,
    /// Say more on stderr; twice for everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

impl Global {
    /// The form of the answer.
    pub fn format(&self) -> Format {
        self.output.resolve()
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.1..=3600.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("expected seconds from 0.1 to 3600".to_owned()),
    }
}

/// `--engine`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EngineName {
    /// PostgreSQL by CloudNativePG
    Cnpg,
    /// MariaDB Galera by mariadb-operator
    Galera,
}

impl From<EngineName> for Engine {
    fn from(name: EngineName) -> Self {
        match name {
            EngineName::Cnpg => Self::Cnpg,
            EngineName::Galera => Self::Galera,
        }
    }
}

/// `--instance`: a number, or a whole name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InstanceChoice {
    /// The number after the cluster's name.
    Number(u32),
    /// The name.
    Name(InstanceName),
}

impl std::str::FromStr for InstanceChoice {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.parse() {
            Ok(number) => Ok(Self::Number(number)),
            Err(_) => InstanceName::new(text).map(Self::Name),
        }
    }
}

impl InstanceChoice {
    /// The instance's name in `cluster`.
    pub fn name(&self, cluster: &str) -> String {
        match self {
            Self::Number(number) => format!("{cluster}-{number}"),
            Self::Name(name) => name.to_string(),
        }
    }
}

/// `--output`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OutputChoice {
    /// human on a terminal, json otherwise
    Auto,
    /// For people
    Human,
    /// One indented envelope
    Json,
    /// One envelope a line
    Jsonl,
    /// The envelope as YAML
    Yaml,
}

impl OutputChoice {
    fn resolve(self) -> Format {
        match self {
            Self::Auto => Format::automatic(),
            Self::Human => Format::Human,
            Self::Json => Format::Json,
            Self::Jsonl => Format::Jsonl,
            Self::Yaml => Format::Yaml,
        }
    }
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Say what is wrong with a cluster, what is safe and what to type; changes nothing
    #[command(after_help = "\
Examples:
  hasteward triage -e cnpg -n shop -c orders
  hasteward triage -e cnpg -n shop -c orders --output json

Exit codes: 0 healthy, 2 bad input, 4 cannot know, 6 something to act on.")]
    Triage,
    /// List clusters or agents; changes nothing
    Get {
        /// What to list.
        #[command(subcommand)]
        what: Get,
    },
    /// Print the version of this program and of the coordinator
    Version {
        /// Do not ask the coordinator
        #[arg(long)]
        client: bool,
    },
    /// Print a completion script
    #[command(after_help = "Example:\n  hasteward completion bash > /etc/bash_completion.d/hasteward")]
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the man pages
    #[command(after_help = "Example:\n  hasteward man /usr/local/share/man/man1")]
    Man {
        /// Where to
        directory: PathBuf,
    },
    /// Print the JSON Schema of every answer
    Schema,
    /// Run the coordinator
    Serve(Box<hasteward_coordinator::args::Args>),
}

/// `hasteward get`.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum Get {
    /// Every cluster, a line each
    #[command(after_help = "Examples:\n  hasteward get status\n  hasteward get status -n shop")]
    Status,
    /// Every node with an agent, and whether it answers
    Agents,
}

impl Command {
    /// The name in the envelope.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Triage => "triage",
            Self::Get { what: Get::Status } => "get-status",
            Self::Get { what: Get::Agents } => "get-agents",
            Self::Version { .. } => "version",
            Self::Completion { .. } => "completion",
            Self::Man { .. } => "man",
            Self::Schema => "schema",
            Self::Serve(_) => "serve",
        }
    }
}
