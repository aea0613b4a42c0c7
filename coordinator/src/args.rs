//! The coordinator's settings.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

/// The coordinator: verdicts, gates and the fleet of agents
#[derive(Debug, Clone, Parser)]
#[command(name = "hasteward-coordinator", version, about, max_term_width = 120)]
pub struct Args {
    /// Address for agents, enrolment and people (gRPC over TLS)
    #[arg(
        long,
        env = "HASTEWARD_LISTEN",
        default_value = "0.0.0.0:8443",
        value_name = "ADDRESS"
    )]
    pub listen: SocketAddr,
    /// Address for /metrics, /healthz and /readyz
    #[arg(
        long,
        env = "HASTEWARD_HTTP_LISTEN",
        default_value = "0.0.0.0:8080",
        value_name = "ADDRESS"
    )]
    pub http_listen: SocketAddr,
    /// Namespace that hasteward is installed in
    #[arg(
        long = "own-namespace",
        env = "POD_NAMESPACE",
        default_value = "hasteward-system",
        value_name = "NAMESPACE"
    )]
    pub own_namespace: String,
    /// Further DNS names for the coordinator's certificate
    #[arg(long = "server-name", value_name = "NAME")]
    pub server_names: Vec<String>,
    /// Keep the CA in this directory instead of Secret hasteward-ca
    #[arg(long, value_name = "DIRECTORY")]
    pub ca_directory: Option<PathBuf>,
    /// How often every primary is looked at, so that what streamed is known before it breaks
    #[arg(long, default_value = "15", value_name = "SECONDS", value_parser = seconds)]
    pub sample_every: Duration,
    /// What is logged, to stderr
    #[arg(
        long,
        env = "HASTEWARD_LOG_LEVEL",
        default_value = "info",
        value_name = "FILTER"
    )]
    pub log: String,
    /// Form of the log
    #[arg(
        long,
        env = "HASTEWARD_LOG_FORMAT",
        default_value = "json",
        value_name = "FORMAT"
    )]
    pub log_format: LogFormat,
}

/// Form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line
    Json,
    /// For people
    Text,
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<u64>() {
        Ok(seconds) if (1..=3600).contains(&seconds) => Ok(Duration::from_secs(seconds)),
        _ => Err("expected whole seconds from 1 to 3600".to_owned()),
    }
}
