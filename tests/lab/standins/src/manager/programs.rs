//! Running PostgreSQL's programs.

use super::Place;
use anyhow::{Context, bail};
use std::ffi::OsStr;
use std::process::Stdio;
use tokio::process::Command;

/// A program of the server's version, with an environment of its own.
pub(super) fn command(place: &Place, program: &str) -> Command {
    let mut command = Command::new(place.program(program));
    command
        .env_clear()
        .env(
            "PATH",
            std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into()),
        )
        .env("LC_ALL", "C")
        .env("PGDATA", &place.pgdata)
        .env("PGHOST", place.sockets())
        .env("PGPORT", place.port.to_string())
        .env("POD_NAME", &place.instance)
        .env("NAMESPACE", &place.namespace)
        .env("CLUSTER_NAME", &place.cluster)
        .env("LAB_LISTEN_ADDRESS", &place.listen)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    if let Some(directory) = std::env::var_os("TMPDIR") {
        command.env("TMPDIR", directory);
    }
    command
}

/// Runs a program to its end, its output passed to the log; anything but exit status 0 is an error.
pub(super) async fn run<S: AsRef<OsStr>>(place: &Place, program: &str, args: &[S]) -> anyhow::Result<()> {
    let status = command(place, program)
        .args(args)
        .status()
        .await
        .with_context(|| format!("starting {program}"))?;
    if !status.success() {
        bail!("{program} failed: {status}");
    }
    Ok(())
}

/// Runs a program and returns what it wrote on standard output.
pub(super) async fn output<S: AsRef<OsStr>>(
    place: &Place,
    program: &str,
    args: &[S],
) -> anyhow::Result<String> {
    let output = command(place, program)
        .args(args)
        .output()
        .await
        .with_context(|| format!("starting {program}"))?;
    if !output.status.success() {
        bail!(
            "{program} failed: {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether a server accepts connections, as `pg_isready` sees it. `host` is a name or the socket directory.
pub(super) async fn accepts_connections(place: &Place, host: &OsStr) -> bool {
    command(place, "pg_isready")
        .args([
            OsStr::new("-q"),
            OsStr::new("-t"),
            OsStr::new("3"),
            OsStr::new("-h"),
            host,
        ])
        .status()
        .await
        .is_ok_and(|status| status.success())
}
