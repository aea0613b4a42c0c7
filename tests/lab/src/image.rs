//! The images of the lab: root file systems made of what is installed on this machine.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Serialize;

use crate::place::Place;
use crate::process::write_whole;
use crate::supervise::program;

/// Image of a PostgreSQL instance.
pub const POSTGRES: &str = "lab/cnpg";
/// Image of a MariaDB server.
pub const MARIADB: &str = "lab/mariadb";
/// Image of mariadb-operator's data plane.
pub const MARIADB_OPERATOR: &str = "lab/mariadb-operator";
/// Image of the agent.
pub const AGENT: &str = "lab/hasteward-agent";
/// Image of the coordinator.
pub const COORDINATOR: &str = "lab/hasteward-coordinator";
/// An image with a shell and nothing else, for tests.
pub const BASE: &str = "lab/base";

/// What every image has of the host, as far as it exists here.
const HOST: [&str; 13] = [
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/etc/alternatives",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/ssl",
    "/etc/nsswitch.conf",
    "/etc/localtime",
];

/// Where Debian and Ubuntu keep PostgreSQL servers, one directory a major version.
const POSTGRES_VERSIONS: &str = "/usr/lib/postgresql";

#[derive(Debug, Serialize)]
struct Bind {
    from: PathBuf,
    to: PathBuf,
}

/// One image as the kubelet reads it.
#[derive(Debug, Default, Serialize)]
struct Image {
    binds: Vec<Bind>,
    files: BTreeMap<&'static str, String>,
    entrypoint: Vec<&'static str>,
    env: BTreeMap<&'static str, String>,
}

impl Image {
    fn of_host() -> Self {
        let binds = HOST.iter().map(PathBuf::from).filter(|path| path.exists());
        let mut image = Self {
            binds: binds
                .map(|p| Bind {
                    from: p.clone(),
                    to: p,
                })
                .collect(),
            ..Self::default()
        };
        image.files.insert(
            "/etc/passwd",
            "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n".into(),
        );
        image
            .files
            .insert("/etc/group", "root:x:0:\nnogroup:x:65534:\n".into());
        image.env.insert(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into(),
        );
        image
    }

    fn with_program(mut self, name: &str, to: &str) -> io::Result<Self> {
        self.binds.push(Bind {
            from: program(name)?,
            to: to.into(),
        });
        Ok(self)
    }

    fn entered_by(mut self, entrypoint: &'static str) -> Self {
        self.entrypoint = vec![entrypoint];
        self
    }

    fn with_user(mut self, line: &str, group: &str) -> Self {
        self.files.entry("/etc/passwd").or_default().push_str(line);
        self.files.entry("/etc/group").or_default().push_str(group);
        self
    }
}

/// The directory of the newest PostgreSQL server's programs on this machine.
pub fn postgres_programs() -> anyhow::Result<PathBuf> {
    let entries = fs::read_dir(POSTGRES_VERSIONS)
        .with_context(|| format!("{POSTGRES_VERSIONS}: install postgresql"))?;
    let newest = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|major| {
            Path::new(POSTGRES_VERSIONS)
                .join(major.to_string())
                .join("bin/postgres")
                .exists()
        })
        .max()
        .with_context(|| format!("no server below {POSTGRES_VERSIONS}: install postgresql"))?;
    Ok(Path::new(POSTGRES_VERSIONS).join(newest.to_string()).join("bin"))
}

/// What the image of MariaDB reads first: both directories of configuration that the operator mounts.
const MY_CNF: &str = "[client-server]\nsocket = /run/mysqld/mysqld.sock\n\n[mariadb]\npid-file = /run/mysqld/mysqld.pid\n\n\
                      !includedir /etc/mysql/conf.d/\n!includedir /etc/mysql/mariadb.conf.d/\n";
/// The server, its provider, and what state transfers need.
const MARIADB_FILES: [&str; 5] = [
    "/usr/sbin/mariadbd",
    "/usr/lib/galera/libgalera_smm.so",
    "/usr/bin/mariadb-backup",
    "/usr/bin/rsync",
    "/usr/bin/socat",
];

/// Says what is missing for MariaDB with Galera on this machine.
pub fn mariadb_programs() -> anyhow::Result<()> {
    match MARIADB_FILES.iter().find(|file| !Path::new(file).exists()) {
        None => Ok(()),
        Some(file) => anyhow::bail!(
            "{file} is missing: install mariadb-server, galera-4, mariadb-backup, rsync and socat"
        ),
    }
}

fn mariadb() -> anyhow::Result<Image> {
    let mut image = Image::of_host()
        .with_program("hasteward-lab-standins", "/standins")?
        .with_user(
            "mysql:x:999:999:MariaDB Server:/home/mysql:/bin/sh\n",
            "mysql:x:999:\n",
        );
    image.entrypoint = vec!["/standins", "mariadb-entrypoint"];
    image.files.insert("/etc/mysql/my.cnf", MY_CNF.to_owned());
    // The server refuses to start when a directory that is to be included does not exist.
    for file in [
        "/etc/mysql/conf.d/image.cnf",
        "/etc/mysql/mariadb.conf.d/image.cnf",
    ] {
        image
            .files
            .insert(file, "# Hidden by the operator's volume.\n".to_owned());
    }
    Ok(image)
}

/// Writes `images.json`. Databases and hasteward are only needed by labs that run them.
pub fn write(place: &Place, postgres: bool, galera: bool, hasteward: bool) -> anyhow::Result<()> {
    let mut images = BTreeMap::new();
    images.insert(BASE, Image::of_host());
    if postgres {
        let mut image = Image::of_host()
            .with_program("hasteward-lab-standins", "/manager")?
            .with_program("hasteward-lab-standins", "/controller/manager")?
            .with_user(
                "postgres:x:26:26:PostgreSQL Server:/var/lib/postgresql:/bin/sh\n",
                "postgres:x:26:\n",
            );
        let programs = postgres_programs()?.display().to_string();
        let path = image.env.entry("PATH").or_default();
        *path = format!("{programs}:{path}");
        images.insert(POSTGRES, image);
    }
    if galera {
        mariadb_programs()?;
        images.insert(MARIADB, mariadb()?);
        images.insert(MARIADB_OPERATOR, mariadb()?);
    }
    if hasteward {
        let agent = Image::of_host()
            .with_program("hasteward-agent", "/hasteward-agent")?
            .entered_by("/hasteward-agent");
        images.insert(AGENT, agent);
        let coordinator = Image::of_host()
            .with_program("hasteward-coordinator", "/hasteward-coordinator")?
            .with_program("hasteward", "/hasteward")?
            .entered_by("/hasteward-coordinator");
        images.insert(COORDINATOR, coordinator);
    }
    Ok(write_whole(
        &place.images(),
        &serde_json::to_vec_pretty(&images)?,
    )?)
}
