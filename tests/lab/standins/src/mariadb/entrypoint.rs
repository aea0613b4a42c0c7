//! Entrypoint of the server's image: initialises a data directory without `mysql/`, then becomes the server.
//!
//! It never passes `--wsrep-start-position`, and it cannot tell a new volume from one that a failed state transfer
//! has emptied.

use super::names;
use anyhow::{Context, bail, ensure};
use std::ffi::OsString;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// How long the temporary server may take to answer, as the image's entrypoint waits.
const TEMPORARY_START: Duration = Duration::from_secs(60);

/// Command line of the entrypoint.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only initialises (the operator's Job for the first volume)
    #[arg(long)]
    init_only: bool,
    /// The data directory
    #[arg(long, default_value = names::DATA)]
    datadir: std::path::PathBuf,
    /// The server and its arguments; `mariadbd` when there are none
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

/// Runs to the server's start, or to an error.
pub fn main(args: &Args) -> ExitCode {
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("[ERROR] [Entrypoint]: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> anyhow::Result<()> {
    let mut command = args.command.clone();
    if command.is_empty() {
        command.push("mariadbd".into());
    }
    if args.datadir.join("mysql").is_dir() {
        eprintln!("[Note] [Entrypoint]: MariaDB upgrade not required");
    } else {
        initialise(&args.datadir)?;
    }
    if args.init_only {
        return Ok(());
    }
    Err(Command::new(&command[0]).args(&command[1..]).exec()).context("starting the server")
}

/// Makes system tables, sets root's password through a server nobody else can reach, and stops that again.
fn initialise(datadir: &Path) -> anyhow::Result<()> {
    let password = std::env::var("MARIADB_ROOT_PASSWORD")
        .ok()
        .filter(|password| !password.is_empty())
        .context("Database is uninitialized and password option is not specified")?;
    eprintln!("[Note] [Entrypoint]: Initializing database files");
    let status = Command::new("mariadb-install-db")
        .arg(format!("--datadir={}", datadir.display()))
        .args([
            "--rpm",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
        ])
        .args([
            "--skip-log-bin",
            "--wsrep-on=OFF",
            "--loose-innodb_buffer_pool_load_at_startup=0",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .context("mariadb-install-db")?;
    ensure!(status.success(), "mariadb-install-db ended with {status}");
    eprintln!("[Note] [Entrypoint]: Database files initialized");
    let mut server = temporary_server(datadir)?;
    let result = set_up(datadir, &password, &mut server);
    stop(&mut server)?;
    result?;
    eprintln!("[Note] [Entrypoint]: MariaDB init process done. Ready for start up.");
    Ok(())
}

fn temporary_server(datadir: &Path) -> anyhow::Result<Child> {
    eprintln!("[Note] [Entrypoint]: Starting temporary server");
    Command::new("mariadbd")
        .arg(format!("--datadir={}", datadir.display()))
        .arg(format!("--socket={}", names::SOCKET))
        .args([
            "--skip-networking",
            "--wsrep-on=OFF",
            "--skip-slave-start",
            "--expire-logs-days=0",
        ])
        .arg("--loose-innodb_buffer_pool_load_at_startup=0")
        .stdin(Stdio::null())
        .spawn()
        .context("starting the temporary server")
}

fn set_up(datadir: &Path, password: &str, server: &mut Child) -> anyhow::Result<()> {
    let deadline = Instant::now() + TEMPORARY_START;
    while sql("SELECT 1;\n").is_err() {
        if let Some(status) = server.try_wait()? {
            bail!("the temporary server ended with {status}");
        }
        ensure!(Instant::now() < deadline, "Unable to start server.");
        std::thread::sleep(Duration::from_millis(100));
    }
    let host = std::env::var("MARIADB_ROOT_HOST").unwrap_or_else(|_| "%".to_owned());
    let health = std::env::var("MARIADB_HEALTHCHECK_PASSWORD").unwrap_or_else(|_| reversed(password));
    let (password, health_sql) = (literal(password), literal(&health));
    let everywhere = if host == "localhost" {
        String::new()
    } else {
        let host = literal(&host);
        format!(
            "CREATE USER 'root'@{host} IDENTIFIED BY {password};\n\
             GRANT ALL ON *.* TO 'root'@{host} WITH GRANT OPTION;\n"
        )
    };
    sql(&format!(
        "SET @@SESSION.SQL_LOG_BIN=0;\n\
         SET @@SESSION.SQL_MODE=REPLACE(@@SESSION.SQL_MODE, 'NO_BACKSLASH_ESCAPES', '');\n\
         DROP USER IF EXISTS root@'127.0.0.1', root@'::1';\n\
         EXECUTE IMMEDIATE CONCAT('DROP USER IF EXISTS root@\\'', @@hostname, '\\'');\n\
         DELETE FROM mysql.global_priv WHERE User = '';\n\
         {everywhere}\
         CREATE USER healthcheck@'127.0.0.1' IDENTIFIED BY {health_sql};\n\
         CREATE USER healthcheck@'::1' IDENTIFIED BY {health_sql};\n\
         CREATE USER healthcheck@localhost IDENTIFIED BY {health_sql};\n\
         SET PASSWORD FOR 'root'@'localhost' = PASSWORD({password});\n\
         FLUSH PRIVILEGES;\n"
    ))?;
    let file = datadir.join(".my-healthcheck.cnf");
    std::fs::write(
        &file,
        format!(
            "[mariadb-client]\nport=3306\nsocket={}\nuser=healthcheck\npassword={health}\n",
            names::SOCKET
        ),
    )?;
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600))?;
    Ok(())
}

/// The health user's password must not be root's; it is nobody's secret in the lab.
fn reversed(password: &str) -> String {
    password.chars().rev().collect()
}

/// A string literal of SQL.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// Runs statements as root without a password, over the socket; they travel through standard input.
fn sql(statements: &str) -> anyhow::Result<()> {
    let mut client = Command::new("mariadb")
        .args(["--no-defaults", "--protocol=socket", "-uroot", "-hlocalhost"])
        .arg(format!("--socket={}", names::SOCKET))
        .arg("--database=mysql")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("starting the client")?;
    if let Some(mut input) = client.stdin.take() {
        // A client that cannot connect reads nothing and says why.
        let _ = input.write_all(statements.as_bytes());
    }
    let output = client.wait_with_output()?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

fn stop(server: &mut Child) -> anyhow::Result<()> {
    eprintln!("[Note] [Entrypoint]: Stopping temporary server");
    let pid = nix::unistd::Pid::from_raw(i32::try_from(server.id()).context("process id")?);
    // Gone already: `wait` tells how.
    let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
    server.wait()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_are_quoted() {
        assert_eq!(literal(r"a'b\c"), r"'a\'b\\c'");
    }
}
