//! The root file system of a container: a tmpfs with the image's binds, `/proc`, `/dev`, `/sys` and the volumes.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, SFlag, makedev, mknod, umask};
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::{chdir, pivot_root};

use super::spec::{Bind, Propagation, RootFs};
use super::step::{At, StepError};

const OLD_ROOT: &str = "/.old-root";
const NO: Option<&str> = None;

/// Enters the root file system. The process is in its own mount namespace and in the pid namespace whose `/proc` it shall see.
///
/// # Errors
/// The step that failed.
pub fn enter(root: &RootFs) -> Result<(), StepError> {
    // Mounts of the node come in, none goes out.
    mount(NO, "/", NO, MsFlags::MS_REC | MsFlags::MS_SLAVE, NO).at("make the mount tree a slave")?;
    let sources = |binds: &[Bind]| -> Result<Vec<PathBuf>, StepError> {
        binds
            .iter()
            .map(|b| fs::canonicalize(&b.from).at(&format!("source {}", b.from.display())))
            .collect()
    };
    let image = sources(&root.image)?;
    let mounts = sources(&root.mounts)?;
    let old = umask(Mode::from_bits_truncate(0o022));
    mount(
        Some("tmpfs"),
        &root.scratch,
        Some("tmpfs"),
        MsFlags::empty(),
        Some("mode=755"),
    )
    .at("root tmpfs")?;
    let put_old = root.scratch.join(OLD_ROOT.trim_start_matches('/'));
    fs::create_dir(&put_old).at("old root")?;
    pivot_root(&root.scratch, &put_old).at("pivot_root")?;
    chdir("/").at("chdir")?;

    for (from, wanted) in image.iter().zip(&root.image) {
        bind(from, wanted)?;
    }
    for file in &root.files {
        write_file(&file.path, &file.content)?;
    }
    proc_and_sys(root.privileged)?;
    devices(root.privileged)?;
    for (from, wanted) in mounts.iter().zip(&root.mounts) {
        bind(from, wanted)?;
    }
    umount2(OLD_ROOT, MntFlags::MNT_DETACH).at("detach the old root")?;
    fs::remove_dir(OLD_ROOT).at("remove the old root")?;
    if root.read_only {
        remount_read_only(Path::new("/"))?;
    }
    umask(old);
    Ok(())
}

fn old_path(path: &Path) -> PathBuf {
    Path::new(OLD_ROOT).join(path.strip_prefix("/").unwrap_or(path))
}

fn write_file(path: &Path, content: &str) -> Result<(), StepError> {
    let name = format!("file {}", path.display());
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).at(&name)?;
    }
    fs::File::create(path)
        .and_then(|mut file| file.write_all(content.as_bytes()))
        .at(&name)
}

fn bind(from: &Path, wanted: &Bind) -> Result<(), StepError> {
    let name = format!("mount {} at {}", wanted.from.display(), wanted.to.display());
    let from = old_path(from);
    mount_point(&from, &wanted.to).at(&name)?;
    let recursive = if wanted.recursive {
        MsFlags::MS_REC
    } else {
        MsFlags::empty()
    };
    mount(Some(&from), &wanted.to, NO, MsFlags::MS_BIND | recursive, NO).at(&name)?;
    let propagation = match wanted.propagation {
        Propagation::None => MsFlags::MS_PRIVATE,
        Propagation::HostToContainer => MsFlags::MS_SLAVE,
    };
    mount(NO, &wanted.to, NO, MsFlags::MS_REC | propagation, NO).at(&name)?;
    if wanted.read_only {
        remount_read_only(&wanted.to)?;
    }
    Ok(())
}

fn mount_point(from: &Path, to: &Path) -> std::io::Result<()> {
    if to.exists() {
        return Ok(());
    }
    if fs::metadata(from)?.is_dir() {
        return fs::create_dir_all(to);
    }
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::File::create(to).map(drop)
}

/// Read-only, with the other flags of the mount kept.
fn remount_read_only(at: &Path) -> Result<(), StepError> {
    let name = format!("read-only {}", at.display());
    let has = statvfs(at).at(&name)?.flags();
    let mut flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    for (flag, keep) in [
        (FsFlags::ST_NOSUID, MsFlags::MS_NOSUID),
        (FsFlags::ST_NODEV, MsFlags::MS_NODEV),
        (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
    ] {
        if has.contains(flag) {
            flags |= keep;
        }
    }
    mount(NO, at, NO, flags, NO).at(&name)
}

fn proc_and_sys(privileged: bool) -> Result<(), StepError> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    fs::create_dir_all("/proc").at("/proc")?;
    mount(Some("proc"), "/proc", Some("proc"), flags, NO).at("mount /proc")?;
    fs::create_dir_all("/sys").at("/sys")?;
    let read_only = if privileged {
        MsFlags::empty()
    } else {
        MsFlags::MS_RDONLY
    };
    mount(Some("sysfs"), "/sys", Some("sysfs"), flags | read_only, NO).at("mount /sys")?;
    if privileged {
        return Ok(());
    }
    for path in ["/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus"] {
        if Path::new(path).exists() {
            mount(Some(path), path, NO, MsFlags::MS_BIND | MsFlags::MS_REC, NO).at(path)?;
            remount_read_only(Path::new(path))?;
        }
    }
    Ok(())
}

fn devices(privileged: bool) -> Result<(), StepError> {
    fs::create_dir_all("/dev").at("/dev")?;
    if privileged {
        let from = old_path(Path::new("/dev"));
        return mount(Some(&from), "/dev", NO, MsFlags::MS_BIND | MsFlags::MS_REC, NO).at("bind /dev");
    }
    let tmpfs = |at: &str, data: &str, flags: MsFlags| {
        fs::create_dir_all(at).at(at)?;
        mount(
            Some("tmpfs"),
            at,
            Some("tmpfs"),
            MsFlags::MS_NOSUID | flags,
            Some(data),
        )
        .at(at)
    };
    tmpfs("/dev", "mode=755,size=65536k", MsFlags::MS_STRICTATIME)?;
    for (name, major, minor) in [
        ("null", 1, 3),
        ("zero", 1, 5),
        ("full", 1, 7),
        ("random", 1, 8),
        ("urandom", 1, 9),
        ("tty", 5, 0),
    ] {
        let path = format!("/dev/{name}");
        let mode = Mode::from_bits_truncate(0o666);
        mknod(path.as_str(), SFlag::S_IFCHR, mode, makedev(major, minor)).at(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).at(&path)?;
    }
    for (link, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ] {
        symlink(target, format!("/dev/{link}")).at(link)?;
    }
    fs::create_dir_all("/dev/pts").at("/dev/pts")?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    let options = "newinstance,ptmxmode=0666,mode=0620,gid=5";
    mount(Some("devpts"), "/dev/pts", Some("devpts"), flags, Some(options)).at("mount /dev/pts")?;
    tmpfs("/dev/shm", "mode=1777", MsFlags::MS_NODEV | MsFlags::MS_NOEXEC)
}
