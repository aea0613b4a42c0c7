//! The command line. Every option can come from the environment; none takes a secret, only files that hold one.

use std::path::PathBuf;

use clap::{ArgGroup, Parser, ValueEnum};
use hasteward_proto::primitive::NodeName;

use crate::hands::HandsConfig;
use crate::service::dial::{CoordinatorAddress, DialConfig};
use crate::service::enrol::Credentials;

/// Node agent of hasteward: reads database volumes on this node and answers the coordinator, which it dials.
///
/// Starts as root, splits into an unprivileged head (uid and gid 65532, no capability) and privileged hands without network.
/// Listens on no port. Certificate, key and token files must be readable by uid or gid 65532.
#[derive(Debug, Clone, Parser)]
#[command(version, group(ArgGroup::new("credentials").required(true).args(["token_file", "cert"])))]
pub struct Args {
    /// The coordinator, `host:port`. Every address of the host is dialled.
    #[arg(long, env = "HASTEWARD_COORDINATOR", value_name = "HOST:PORT")]
    pub coordinator: CoordinatorAddress,

    /// The name in the coordinator's certificate, if it is not the host of --coordinator.
    #[arg(long, env = "HASTEWARD_SERVER_NAME", value_name = "NAME")]
    pub server_name: Option<String>,

    /// The node that this agent runs on and speaks for.
    #[arg(long, env = "NODE_NAME", value_name = "NAME")]
    pub node: NodeName,

    /// Certificates to trust, PEM.
    #[arg(long, env = "HASTEWARD_CA", value_name = "FILE")]
    pub ca: PathBuf,

    /// Projected ServiceAccount token (audience `hasteward-agent`) to enrol with.
    #[arg(long, env = "HASTEWARD_TOKEN_FILE", value_name = "FILE", conflicts_with_all = ["cert", "key"])]
    pub token_file: Option<PathBuf>,

    /// This agent's certificate chain, PEM, leaf first: works without Kubernetes.
    #[arg(long, env = "HASTEWARD_CERT", value_name = "FILE", requires = "key")]
    pub cert: Option<PathBuf>,

    /// The private key of --cert, PEM.
    #[arg(long, env = "HASTEWARD_KEY", value_name = "FILE", requires = "cert")]
    pub key: Option<PathBuf>,

    /// Kubelet's root directory.
    #[arg(
        long,
        env = "HASTEWARD_KUBELET_ROOT",
        value_name = "DIR",
        default_value = "/var/lib/kubelet"
    )]
    pub kubelet_root: PathBuf,

    /// The node's process table.
    #[arg(long, env = "HASTEWARD_PROC", value_name = "DIR", default_value = "/proc")]
    pub proc: PathBuf,

    /// hostPath and local volumes are read only below such a directory, mounted here at the path it has on the host. Repeatable.
    #[arg(
        long = "allowed-volume-root",
        env = "HASTEWARD_ALLOWED_VOLUME_ROOTS",
        value_name = "DIR",
        value_delimiter = ',',
        value_parser = absolute
    )]
    pub allowed_volume_roots: Vec<PathBuf>,

    /// Where the agent keeps what it must remember across restarts (in `head`), and what a recovery writes (in `scratch`).
    #[arg(long, env = "HASTEWARD_STATE_DIR", value_name = "DIR", default_value = "/var/lib/hasteward", value_parser = absolute)]
    pub state_dir: PathBuf,

    /// What to log: a level, or directives such as `info,hasteward_agent=debug`.
    #[arg(long, env = "HASTEWARD_LOG", value_name = "FILTER", default_value = "info")]
    pub log: String,

    /// How to log, to standard error.
    #[arg(
        long,
        env = "HASTEWARD_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "text"
    )]
    pub log_format: LogFormat,
}

/// How to log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// A line for people.
    Text,
    /// A JSON object a line.
    Json,
}

fn absolute(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    let plain = |component| !matches!(component, std::path::Component::ParentDir);
    if path.is_absolute() && path.components().all(plain) && text != "/" {
        Ok(path)
    } else {
        Err("must be absolute, without `..`, and not `/`".to_owned())
    }
}

impl Args {
    /// What the hands know of the node.
    #[must_use]
    pub fn hands(&self) -> HandsConfig {
        HandsConfig {
            kubelet_root: self.kubelet_root.clone(),
            proc: self.proc.clone(),
            allowed_volume_roots: self.allowed_volume_roots.clone(),
            scratch: self.state_dir.join("scratch"),
        }
    }

    /// How to reach the coordinator, and as whom.
    #[must_use]
    pub fn dial(&self) -> DialConfig {
        let ca = self.ca.clone();
        let credentials = match (&self.token_file, &self.cert, &self.key) {
            (None, Some(cert), Some(key)) => Credentials::Files {
                cert: cert.clone(),
                key: key.clone(),
                ca,
            },
            // The group of the options leaves nothing else.
            (token, ..) => Credentials::Token {
                token: token.clone().unwrap_or_default(),
                ca,
            },
        };
        let mut config = DialConfig::new(self.coordinator.clone(), self.node.clone(), credentials);
        config.server_name.clone_from(&self.server_name);
        config
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    const BASE: [&str; 7] = ["agent", "--coordinator", "c:1", "--node", "n1", "--ca", "/ca"];

    fn parse(more: &[&str]) -> Result<Args, clap::Error> {
        Args::try_parse_from(BASE.iter().chain(more))
    }

    #[test]
    fn the_definition_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn credentials_are_a_token_or_files() {
        assert!(parse(&[]).is_err());
        assert!(parse(&["--cert", "/c"]).is_err());
        assert!(parse(&["--token-file", "/t", "--cert", "/c", "--key", "/k"]).is_err());
        assert!(matches!(
            parse(&["--token-file", "/t"]).unwrap().dial().credentials,
            Credentials::Token { .. }
        ));
        let files = parse(&["--cert", "/c", "--key", "/k"]).unwrap();
        assert!(matches!(files.dial().credentials, Credentials::Files { .. }));
    }

    #[test]
    fn roots_are_absolute_and_not_everything() {
        let roots = |text| parse(&["--token-file", "/t", "--allowed-volume-root", text]);
        for bad in ["/", "relative", "/a/../b", ""] {
            assert!(roots(bad).is_err(), "{bad:?}");
        }
        assert_eq!(
            roots("/a,/b").unwrap().allowed_volume_roots,
            [PathBuf::from("/a"), PathBuf::from("/b")]
        );
    }
}
