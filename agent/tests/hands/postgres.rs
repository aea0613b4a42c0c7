//! A real PostgreSQL in a container as CNPG has it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix::unistd::{Gid, Uid, chown};

use crate::stage::{Cgroup, Running, Stage, postgres_binaries};

/// A container's root: the host's programs, its own `/etc/passwd`, `/controller` and data volume, owned by uid 26.
pub(crate) fn container(stage: &Stage) -> PathBuf {
    fs::set_permissions(stage.directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let root = stage.at("rootfs");
    for name in ["usr", "lib", "lib64", "bin", "dev"] {
        let from = PathBuf::from("/").join(name);
        if from.is_dir() {
            stage.bind_read_only(&fs::canonicalize(from).unwrap(), &root.join(name));
        }
    }
    fs::create_dir_all(root.join("etc")).unwrap();
    fs::write(
        root.join("etc/passwd"),
        "root:x:0:0::/:/bin/sh\npostgres:x:26:26::/tmp:/bin/sh\n",
    )
    .unwrap();
    fs::write(root.join("etc/group"), "postgres:x:26:\n").unwrap();
    fs::create_dir(stage.at("disk")).unwrap();
    stage.bind(&stage.at("disk"), &root.join("var/lib/postgresql/data"));
    stage.bind(&stage.at("disk"), &stage.volume("kubernetes.io~csi/pvc-1/mount"));
    for owned in ["controller/run", "tmp", "var/lib/postgresql/data"] {
        fs::create_dir_all(root.join(owned)).unwrap();
        chown(
            &root.join(owned),
            Some(Uid::from_raw(26)),
            Some(Gid::from_raw(26)),
        )
        .unwrap();
    }
    root
}

/// Starts what CNPG's container has: a manager as its first process, the server as the manager's child, peer authentication.
pub(crate) fn start(cgroup: &Cgroup, root: &Path) -> Running {
    fs::copy(
        fs::canonicalize("/bin/sh").unwrap(),
        root.join("controller/manager"),
    )
    .unwrap();
    let script = format!(
        "set -e; cd /tmp; export LC_ALL=C; D=/var/lib/postgresql/data/pgdata
         {0}/initdb -D $D -U postgres -A peer --no-sync >/dev/null
         echo 'local all all peer' > $D/pg_hba.conf
         {0}/postgres -D $D -k /controller/run -c listen_addresses= -c fsync=off >/dev/null 2>&1 &
         wait",
        postgres_binaries().display()
    );
    let mut command = cgroup.command("unshare");
    command.args([
        "--pid",
        "--ipc",
        "--uts",
        "--net",
        "--fork",
        "--kill-child",
        "chroot",
        "--userspec=26:26",
    ]);
    command
        .arg(root)
        .args(["/controller/manager", "-c", &script])
        .stdin(Stdio::null());
    Running(command.spawn().unwrap())
}
