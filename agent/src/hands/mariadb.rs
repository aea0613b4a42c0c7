//! The processes of a MariaDB container, its server's socket, and the root password in its environment.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use hasteward_proto::primitive::PodUid;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::connect::open_socket_file;
use super::process::{ProcessTable, Seen, bytes, text_fields};
use super::verb::{ConnectError, ContainerId, MariadbProcesses, ProcessError, ServerProcess};

/// Where images put the server's socket: Debian and the official image, then the UBI one.
const SOCKETS: [&str; 3] = [
    "run/mysqld/mysqld.sock",
    "var/run/mysqld/mysqld.sock",
    "var/lib/mysql/mysql.sock",
];

/// Variables of the official image that hold root's password.
const PASSWORDS: [&[u8]; 2] = [b"MARIADB_ROOT_PASSWORD=", b"MYSQL_ROOT_PASSWORD="];

/// Bytes of an environment: more than the kernel allows for one string.
const ENVIRONMENT_MAX: u64 = 512 * 1024;

/// Options with which `mariadbd` is no server for others.
const NOT_A_SERVER: [&str; 6] = [
    "--wsrep-recover",
    "--bootstrap",
    "--help",
    "--version",
    "--print-defaults",
    "-V",
];

/// Programs that write or read a data directory beside the server.
const TOOLS: [&str; 14] = [
    "mariadb-backup",
    "mariabackup",
    "mbstream",
    "mariadb-install-db",
    "mysql_install_db",
    "mariadb-upgrade",
    "mysql_upgrade",
    "mariadbd-safe",
    "mysqld_safe",
    "rsync",
    "socat",
    "nc",
    "qpress",
    "zstd",
];

/// No more names of tools than this are reported.
const TOOLS_MAX: usize = 64;

/// Root's password, as it crosses the socket between hands and head.
#[derive(Clone, Serialize, Deserialize)]
pub struct RootPassword(String);

impl RootPassword {
    /// The password.
    #[must_use]
    pub fn into_secret(self) -> SecretString {
        SecretString::from(self.0)
    }
}

impl fmt::Debug for RootPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RootPassword([redacted])")
    }
}

/// What was found, and the server's own directory.
#[derive(Debug, Default)]
pub(super) struct FoundMariadb {
    pub(super) processes: MariadbProcesses,
    pub(super) directory: Option<OwnedFd>,
}

/// The name that counts: of a script its own, not its shell's.
fn name(process: &Seen) -> &str {
    let exe = process.name();
    if !matches!(exe, "sh" | "bash" | "dash" | "busybox") {
        return exe;
    }
    let script = process
        .arguments()
        .skip(1)
        .find(|argument| !argument.starts_with(b"-"))
        .and_then(|argument| std::str::from_utf8(argument).ok());
    script.and_then(|script| script.rsplit('/').next()).unwrap_or(exe)
}

fn is_mariadbd(process: &Seen) -> bool {
    matches!(process.name(), "mariadbd" | "mysqld")
}

fn option(process: &Seen, wanted: &str) -> bool {
    process.arguments().skip(1).any(|argument| {
        let argument = argument.split(|&b| b == b'=').next().unwrap_or(b"");
        let argument: Vec<u8> = argument
            .iter()
            .map(|&b| if b == b'_' { b'-' } else { b })
            .collect();
        argument == wanted.as_bytes()
    })
}

fn serves(process: &Seen) -> bool {
    is_mariadbd(process) && !NOT_A_SERVER.iter().any(|wanted| option(process, wanted))
}

fn is_tool(process: &Seen) -> bool {
    let name = name(process);
    name.starts_with("wsrep_sst_") || TOOLS.contains(&name) || is_mariadbd(process)
}

/// The processes of `pod`, of `container` where that is given.
pub(super) fn of_instance(
    table: &ProcessTable,
    pod: &PodUid,
    container: Option<&ContainerId>,
) -> Result<FoundMariadb, ProcessError> {
    let seen = table.seen(pod, container)?;
    let servers = || seen.iter().filter(|process| serves(process));
    let chosen = servers()
        .filter(|process| process.uid != 0)
        .min_by_key(|process| process.started);
    if let (None, Some(root)) = (chosen, servers().next()) {
        return Err(ProcessError::Root { pid: root.pid });
    }
    let mut tools: Vec<String> = seen
        .iter()
        .filter(|process| is_tool(process) && chosen.is_none_or(|chosen| chosen.pid != process.pid))
        .map(|process| name(process).chars().take(64).collect())
        .collect();
    tools.sort();
    tools.truncate(TOOLS_MAX);
    let mut found = FoundMariadb {
        processes: MariadbProcesses {
            server: None,
            tools,
            count: u32::try_from(seen.len()).unwrap_or(u32::MAX),
        },
        directory: None,
    };
    if let Some(chosen) = chosen {
        found.directory = Some(table.confirm(chosen, pod, container)?);
        found.processes.server = Some(ServerProcess {
            pid: chosen.pid,
            uid: chosen.uid,
            gid: chosen.gid,
            started_at_ms: table.started_at_ms(chosen.started)?,
            stopped: chosen.stopped,
            new_cluster: option(chosen, "--wsrep-new-cluster"),
        });
    }
    Ok(found)
}

/// Names of what uses the data directory in any container of the pod.
pub(super) fn users_of_data(seen: &[Seen]) -> Vec<&str> {
    seen.iter().filter(|process| is_tool(process)).map(name).collect()
}

/// The server's socket, not connected, and the password in its environment.
pub(super) fn socket(
    server: &ServerProcess,
    directory: BorrowedFd<'_>,
) -> Result<(OwnedFd, Option<RootPassword>), ConnectError> {
    if server.stopped {
        return Err(ConnectError::Hung {
            pid: server.pid,
            detail: "it is stopped by a signal or a tracer".to_owned(),
        });
    }
    let mut missing = None;
    for place in SOCKETS {
        match open_socket_file(server.pid, directory, place) {
            Ok(socket) => return Ok((socket, password(directory))),
            Err(error @ ConnectError::NotListening { .. }) => {
                missing.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
    }
    Err(missing.unwrap_or(ConnectError::NoServer))
}

/// An environment that cannot be read holds no password for us: the Secret's is tried.
fn password(directory: BorrowedFd<'_>) -> Option<RootPassword> {
    let environment = bytes(directory, "environ", ENVIRONMENT_MAX).ok()?;
    in_environment(&environment)
}

fn in_environment(environment: &[u8]) -> Option<RootPassword> {
    let variable = |wanted: &&[u8]| {
        environment
            .split(|&b| b == 0)
            .find_map(|variable| variable.strip_prefix(*wanted))
            .filter(|value| !value.is_empty())
    };
    let value = PASSWORDS.iter().find_map(variable)?;
    std::str::from_utf8(value)
        .ok()
        .map(|text| RootPassword(text.to_owned()))
}

/// Whether a server that was found running still is that process, and not stopped since.
pub(super) fn still_runs(found: &FoundMariadb) -> bool {
    let (Some(directory), Some(ServerProcess { stopped: false, .. })) =
        (&found.directory, found.processes.server)
    else {
        return false;
    };
    text_fields(directory.as_fd()).is_some_and(|state| !matches!(state, 'Z' | 'X' | 'T' | 't'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn passwords_are_found_and_never_printed() {
        let found = in_environment(b"A=1\0MYSQL_ROOT_PASSWORD=old\0MARIADB_ROOT_PASSWORD=new=x\0").unwrap();
        assert!(!format!("{found:?}").contains("new"));
        assert_eq!(found.into_secret().expose_secret(), "new=x");
        assert!(in_environment(b"XMARIADB_ROOT_PASSWORD=a\0MARIADB_ROOT_PASSWORD=\0").is_none());
        assert!(in_environment(b"").is_none());
    }

    proptest! {
        #[test]
        fn any_environment_is_read(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = in_environment(&bytes);
        }
    }
}
