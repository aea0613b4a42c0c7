//! Where an instance lives inside its container.

use anyhow::Context;
use nix::unistd::{Uid, User};
use std::io;
use std::path::{Path, PathBuf};

/// The instance and its paths, as the container's environment and mounts give them.
#[derive(Clone, Debug)]
pub struct Place {
    /// Pod and instance name.
    pub instance: String,
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the Cluster.
    pub cluster: String,
    /// `PGDATA`.
    pub pgdata: PathBuf,
    /// `/controller`: the program, sockets and certificates.
    pub controller: PathBuf,
    /// Mount point of the WAL volume, whether there is one or not.
    pub wal_volume: PathBuf,
    /// Parent of the tablespaces' mount points.
    pub tablespaces: PathBuf,
    /// Directory of the server's programs.
    pub programs: PathBuf,
    /// Port of the server.
    pub port: u16,
    /// Address the server and the status port listen on; `*` = all.
    pub listen: String,
}

impl Place {
    /// Reads `POD_NAME`, `NAMESPACE`, `CLUSTER_NAME`, `PGDATA` and `PGPORT`.
    pub fn from_environment() -> anyhow::Result<Self> {
        let read = |name: &str| std::env::var(name).with_context(|| format!("environment variable {name}"));
        let pgdata = PathBuf::from(read("PGDATA")?);
        let programs = programs_for(&pgdata).context("no PostgreSQL below /usr/lib/postgresql")?;
        Ok(Self {
            instance: read("POD_NAME")?,
            namespace: read("NAMESPACE")?,
            cluster: read("CLUSTER_NAME")?,
            pgdata,
            controller: PathBuf::from("/controller"),
            wal_volume: PathBuf::from("/var/lib/postgresql/wal"),
            tablespaces: PathBuf::from("/var/lib/postgresql/tablespaces"),
            programs,
            port: std::env::var("PGPORT")
                .ok()
                .and_then(|port| port.parse().ok())
                .unwrap_or(5432),
            listen: std::env::var("LAB_LISTEN_ADDRESS").unwrap_or_else(|_| "*".to_owned()),
        })
    }

    /// Directory of the server's socket.
    #[must_use]
    pub fn sockets(&self) -> PathBuf {
        self.controller.join("run")
    }

    /// Directory of the certificates.
    #[must_use]
    pub fn certificates(&self) -> PathBuf {
        self.controller.join("certificates")
    }

    /// Directory for WAL outside PGDATA, when the pod has a WAL volume.
    #[must_use]
    pub fn separate_wal(&self) -> Option<PathBuf> {
        self.wal_volume.is_dir().then(|| self.wal_volume.join("pg_wal"))
    }

    /// The directory WAL is written to, through whatever link leads there.
    #[must_use]
    pub fn wal(&self) -> PathBuf {
        self.pgdata.join("pg_wal")
    }

    /// "Am I a primary?" as the manager asks it: neither `standby.signal` nor `recovery.conf` in PGDATA.
    #[must_use]
    pub fn is_primary(&self) -> bool {
        !self.pgdata.join("standby.signal").exists() && !self.pgdata.join("recovery.conf").exists()
    }

    /// Name of the OS user that runs the manager, by the container's passwd; unknown gives `/`, which in
    /// `pg_ident.conf` is an empty regular expression that matches everybody.
    #[must_use]
    pub fn os_user(&self) -> String {
        User::from_uid(Uid::effective())
            .ok()
            .flatten()
            .map_or_else(|| "/".to_owned(), |user| user.name)
    }

    /// Host name of the primary's Service.
    #[must_use]
    pub fn write_service(&self) -> String {
        format!("{}-rw", self.cluster)
    }

    /// Path of a program of the server.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.programs.join(name)
    }
}

/// The programs of the major version the data has, else the newest.
fn programs_for(pgdata: &Path) -> io::Result<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")?
        .filter_map(Result::ok)
        .filter_map(|entry| {
            Some((
                entry.file_name().to_str()?.parse().ok()?,
                entry.path().join("bin"),
            ))
        })
        .filter(|(_, programs)| programs.join("postgres").is_file())
        .collect();
    found.sort();
    let wanted = std::fs::read_to_string(pgdata.join("PG_VERSION"))
        .ok()
        .and_then(|text| text.trim().parse().ok());
    found
        .iter()
        .find(|(major, _)| Some(*major) == wanted)
        .or(found.last())
        .map(|(_, programs)| programs.clone())
        .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
}
