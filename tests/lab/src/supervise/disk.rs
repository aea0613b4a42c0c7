//! The lab's own file system: a sparse ext4 image, mounted in the lab's mount namespace only.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use nix::mount::{MsFlags, mount};

use crate::place::Place;

/// Apparent size; it takes what is written to it.
const SIZE: u64 = 64 << 30;

/// Mounts it below volumes and nodes. Where a machine has no loop devices, both stay on the machine's own file system.
pub(super) fn prepare(place: &Place) -> anyhow::Result<()> {
    for directory in [place.disk(), place.volumes(), place.nodes()] {
        fs::create_dir_all(directory)?;
    }
    if let Err(error) = mount_image(place) {
        eprintln!("volumes stay on this machine's file system, and show how full it is: {error:#}");
        return Ok(());
    }
    for directory in [place.volumes(), place.nodes()] {
        let name = directory.file_name().context("a directory without a name")?;
        let inside = place.disk().join(name);
        fs::create_dir_all(&inside)?;
        mount(
            Some(&inside),
            &directory,
            None::<&str>,
            MsFlags::MS_BIND,
            None::<&str>,
        )
        .with_context(|| format!("mount {}", directory.display()))?;
    }
    Ok(())
}

fn mount_image(place: &Place) -> anyhow::Result<()> {
    let image = place.disk_image();
    File::create(&image)?.set_len(SIZE)?;
    // No journal: nobody mounts it twice.
    let format = [
        "-q",
        "-F",
        "-O",
        "^has_journal",
        "-m",
        "0",
        "-E",
        "lazy_itable_init=1,nodiscard",
    ];
    run(Command::new(system("mkfs.ext4")?).args(format).arg(&image))?;
    // `mount -o loop` asks for auto-clear: the device goes with the mount, the mount with the namespace.
    run(Command::new(system("mount")?)
        .args(["-t", "ext4", "-o", "loop,discard,noatime"])
        .arg(&image)
        .arg(place.disk()))
}

fn system(name: &str) -> anyhow::Result<PathBuf> {
    let found = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"]
        .iter()
        .map(|dir| Path::new(dir).join(name));
    found
        .into_iter()
        .find(|path| path.exists())
        .with_context(|| format!("`{name}` is missing"))
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.stdin(Stdio::null()).output()?;
    if !output.status.success() {
        bail!(
            "{}: {}",
            command.get_program().display(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}
