//! Makes a machine ready: packages that the lab needs, without starting any service, and the workspace's programs.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, bail};
use tokio::process::Command;

use crate::image;
use crate::up::Tell;

/// The packages of Debian and Ubuntu, and a program whose presence makes each unnecessary.
const PACKAGES: [(&str, &str); 5] = [
    ("iproute2", "ip"),
    ("util-linux", "nsenter"),
    ("mount", "losetup"),
    ("e2fsprogs", "mkfs.ext4"),
    ("procps", "ps"),
];
/// Whether MariaDB Galera will run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Galera {
    /// Install it as well.
    Wanted,
    /// PostgreSQL alone.
    NotWanted,
}

/// Nice to have: some releases have no such package.
const OPTIONAL: (&str, &str) = ("kubernetes-client", "kubectl");
/// Where programs are looked for.
const PROGRAM_DIRECTORIES: [&str; 6] = [
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
];
/// Asked by `invoke-rc.d` and `deb-systemd-invoke` before a package starts its service (Debian policy 9.3.3).
const POLICY: &str = "/usr/sbin/policy-rc.d";
/// 101 = action forbidden by policy. The second line marks a file of ours that a crash left.
const POLICY_CONTENT: &str =
    "#!/bin/sh\n# hasteward-lab: no service starts while packages are installed\nexit 101\n";
/// Read by Debian's postgresql-common when a server package is installed.
const CREATE_CLUSTER: &str = "/etc/postgresql-common/createcluster.conf";

/// What labs with MariaDB Galera need besides: the server, its provider and what its state transfers run.
const GALERA_PACKAGES: [(&str, &str); 6] = [
    ("mariadb-server", "mariadbd"),
    ("mariadb-client", "mariadb"),
    ("mariadb-backup", "mariadb-backup"),
    ("rsync", "rsync"),
    ("socat", "socat"),
    ("lsof", "lsof"),
];
/// The provider has no program of its own.
const PROVIDER: (&str, &str) = ("galera-4", "/usr/lib/galera/libgalera_smm.so");

/// Installs what is missing. Needs root and apt only if something is.
pub async fn machine(galera: Galera, tell: Tell<'_>) -> anyhow::Result<()> {
    let mut packages = PACKAGES.to_vec();
    if galera == Galera::Wanted {
        packages.extend(GALERA_PACKAGES);
    }
    let mut missing: Vec<&str> = packages
        .iter()
        .filter(|(_, program)| !has_program(program))
        .map(|(package, _)| *package)
        .collect();
    if image::postgres_programs().is_err() {
        missing.push("postgresql");
    }
    if galera == Galera::Wanted && !Path::new(PROVIDER.1).exists() {
        missing.push(PROVIDER.0);
    }
    let optional = (!has_program(OPTIONAL.1) && has_program("apt-get")).then_some(OPTIONAL.0);
    if missing.is_empty() && optional.is_none() {
        return Ok(());
    }
    if !has_program("apt-get") {
        bail!(
            "missing: {}; install them with this system's package manager",
            missing.join(", ")
        );
    }
    if !nix::unistd::geteuid().is_root() {
        bail!("missing: {}; run as root, or install them", missing.join(", "));
    }
    let _no_services = NoServices::begin()?;
    if missing.contains(&"postgresql") {
        no_default_cluster()?;
    }
    if !missing.is_empty() {
        tell(&format!(
            "installing {} (no service is started)",
            missing.join(", ")
        ));
        // Package lists may be there already and the network may not: only refresh them if need be.
        if apt(&install(&missing)).await.is_err() {
            apt(&["update".to_owned()]).await?;
            apt(&install(&missing)).await?;
        }
    }
    if let Some(package) = optional {
        tell(&format!("installing {package}, if this release has it"));
        if apt(&install(&[package])).await.is_err() {
            tell(&format!(
                "no {package} here: kubectl will be missing, the lab does not need it"
            ));
        }
    }
    Ok(())
}

/// Scripts that fetch what some tests compare with, and the program that each needs.
const FIXTURES: [(&str, &str, &str); 2] = [
    (
        "tests/lab/apiserver/tests/fetch-kubectl.sh",
        "target/kubectl",
        "apt-get",
    ),
    ("agent/tests/fixtures/fetch-postgres.sh", "target/postgres", "npm"),
];

/// Fetches other releases of kubectl and PostgreSQL for the tests. Tests that miss something say so, and fail in CI where it
/// is required: nothing fails here.
pub async fn fixtures(tell: Tell<'_>) {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for (script, directory, program) in FIXTURES {
        if !has_program(program) {
            tell(&format!("no {program} here: {script} is left out"));
            continue;
        }
        let fetched = Command::new("sh")
            .arg(workspace.join(script))
            .arg(workspace.join(directory))
            .stdin(Stdio::null())
            .output()
            .await;
        match fetched {
            Ok(output) if output.status.success() => {}
            Ok(output) => tell(&format!(
                "{script}: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            )),
            Err(error) => tell(&format!("{script}: {error}")),
        }
    }
}

fn install(packages: &[&str]) -> Vec<String> {
    let words = [
        "install",
        "-y",
        "--no-install-recommends",
        "-o",
        "Dpkg::Options::=--force-confold",
    ];
    words
        .iter()
        .chain(packages)
        .map(|word| (*word).to_owned())
        .collect()
}

async fn apt(words: &[String]) -> anyhow::Result<()> {
    let output = Command::new("apt-get")
        .arg("-q")
        .args(words)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("UCF_FORCE_CONFFOLD", "1")
        .stdin(Stdio::null())
        .output()
        .await
        .context("apt-get")?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        let last: Vec<&str> = errors.lines().rev().take(5).collect();
        bail!(
            "apt-get {}: {}",
            words.join(" "),
            last.into_iter().rev().collect::<Vec<_>>().join("; ")
        );
    }
    Ok(())
}

fn has_program(name: &str) -> bool {
    PROGRAM_DIRECTORIES
        .iter()
        .any(|directory| Path::new(directory).join(name).exists())
}

/// No `main` cluster when the server package is installed: it would be created, and started at the next boot.
fn no_default_cluster() -> io::Result<()> {
    let file = Path::new(CREATE_CLUSTER);
    if file.exists() {
        return Ok(());
    }
    fs::create_dir_all(file.parent().unwrap_or(Path::new("/")))?;
    fs::write(
        file,
        "# Written by hasteward-lab before PostgreSQL was installed.\ncreate_main_cluster = false\n",
    )
}

/// While this lives, installing a package starts no service.
struct NoServices {
    ours: bool,
}

impl NoServices {
    fn begin() -> anyhow::Result<Self> {
        let ours = match fs::read_to_string(POLICY) {
            Ok(content) => content == POLICY_CONTENT,
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            Err(error) => return Err(error).context(POLICY),
        };
        if ours {
            fs::write(POLICY, POLICY_CONTENT).context(POLICY)?;
            fs::set_permissions(POLICY, Permissions::from_mode(0o755))?;
        }
        Ok(Self { ours })
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.ours
            && let Err(error) = fs::remove_file(POLICY)
        {
            eprintln!("remove {POLICY} yourself, it keeps services from starting: {error}");
        }
    }
}

/// The packages whose programs run in a lab. Not the lab itself: it is running.
const PROGRAMS: [&str; 6] = [
    "hasteward",
    "hasteward-agent",
    "hasteward-coordinator",
    "hasteward-lab-apiserver",
    "hasteward-lab-kubelet",
    "hasteward-lab-standins",
];

/// The `cargo` that started this, or the one in the path.
#[must_use]
pub fn cargo() -> PathBuf {
    std::env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from)
}

/// The root of the workspace.
#[must_use]
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .unwrap_or(Path::new("/"))
        .to_owned()
}

/// Builds the programs that run in a lab, in the profile of this one.
pub async fn programs() -> anyhow::Result<()> {
    build(is_release()).await
}

/// Builds them for release, the lab itself included; the lab's path.
pub async fn release() -> anyhow::Result<PathBuf> {
    build(true).await?;
    let here = std::env::current_exe().context("this program's path")?;
    let target = here
        .parent()
        .and_then(Path::parent)
        .context("this program is not in a target directory")?;
    Ok(target.join("release/hasteward-lab"))
}

async fn build(release: bool) -> anyhow::Result<()> {
    let mut command = Command::new(cargo());
    command.arg("build").arg("--bins").current_dir(workspace());
    for package in PROGRAMS {
        command.args(["--package", package]);
    }
    if release {
        command.args(["--release", "--package", env!("CARGO_PKG_NAME")]);
    }
    let status = command
        .stdin(Stdio::null())
        .status()
        .await
        .context("cargo build")?;
    if !status.success() {
        bail!("cargo build ended with {status}");
    }
    Ok(())
}

/// Whether this program was built for release.
#[must_use]
pub fn is_release() -> bool {
    !cfg!(debug_assertions)
}
