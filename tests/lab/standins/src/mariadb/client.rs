//! SQL through the `mariadb` client program: a frozen server accepts a connection and never answers, so every call
//! is bounded and its program is killed.

use anyhow::{Context, bail};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// Runs statements as root over TCP. Returns rows as lines, columns separated by tabs. The password travels in the
/// environment, never in the arguments.
pub(super) async fn query(
    host: &str,
    port: u16,
    password: &str,
    sql: &str,
    limit: Duration,
) -> anyhow::Result<String> {
    let run = Command::new("mariadb")
        .args(["--no-defaults", "--protocol=TCP", "--user=root", "-N", "-B"])
        .arg(format!("--host={host}"))
        .arg(format!("--port={port}"))
        .arg(format!("--connect-timeout={}", limit.as_secs().max(1)))
        .args(["-e", sql])
        .env("MYSQL_PWD", password)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(limit, run)
        .await
        .context("no answer in time")?
        .context("starting the client")?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}

/// One status variable.
pub(super) async fn status(
    host: &str,
    password: &str,
    variable: &str,
    limit: Duration,
) -> anyhow::Result<String> {
    let sql = format!("SHOW GLOBAL STATUS LIKE '{variable}'");
    let row = query(host, super::names::SQL_PORT, password, &sql, limit).await?;
    let (_, value) = row
        .split_once('\t')
        .with_context(|| format!("no status variable {variable}"))?;
    Ok(value.to_owned())
}
