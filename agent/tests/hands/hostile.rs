//! What a hostile volume, and a head that was taken over, cannot make the hands do.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

use hasteward_agent::hands::{SessionError, VolumeSource};
use hasteward_agent::volume::{DataDirectory, LISTING_MAX, ReadError};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::mkfifo;

use crate::stage::{Stage, data_volume, fill, path, until};

pub(crate) fn links_and_kinds() {
    let stage = Stage::new();
    fill(&stage.at("disk"));
    fill(&stage.at("other"));
    let at = |name: &str| stage.at("disk/pgdata").join(name);
    mkfifo(&at("fifo"), Mode::S_IRWXU).unwrap();
    mknod(&at("device"), SFlag::S_IFCHR, Mode::S_IRWXU, makedev(1, 5)).unwrap();
    symlink("/etc", at("etc")).unwrap();
    symlink("/etc/passwd", at("passwd")).unwrap();
    symlink("../../other/pgdata/PG_VERSION", at("other")).unwrap();
    symlink("/etc", at("pg_wal")).unwrap();
    let mut sparse = File::create(at("sparse")).unwrap();
    sparse.seek(SeekFrom::Start((1 << 40) - 1)).unwrap();
    sparse.write_all(b"x").unwrap();
    stage.bind(&stage.at("disk"), &stage.volume("kubernetes.io~csi/pvc-1/mount"));
    // A mount inside the volume is no part of the volume.
    stage.bind(
        &stage.at("other"),
        &stage.volume("kubernetes.io~csi/pvc-1/mount/pgdata/mounted"),
    );
    let hands = stage.hands();
    let session = stage.session(&hands, vec![data_volume("pvc-1", VolumeSource::Csi)]);
    let begun = Instant::now();
    for name in ["fifo", "device", "passwd", "other", "global"] {
        let outcome = session.open(&path(name));
        assert!(
            matches!(outcome, Err(ReadError::WrongType { .. })),
            "{name}: {outcome:?}"
        );
    }
    for name in ["etc/passwd", "pg_wal/passwd", "mounted/pgdata/PG_VERSION"] {
        let outcome = session.open(&path(name));
        assert!(
            matches!(outcome, Err(ReadError::Refused { .. })),
            "{name}: {outcome:?}"
        );
    }
    assert!(matches!(
        session.read(&path("sparse"), 8192),
        Err(ReadError::TooLarge { .. })
    ));
    assert!(begun.elapsed() < Duration::from_secs(2));
    assert!(
        session
            .open(&path("PG_VERSION"))
            .unwrap()
            .write_all(b"x")
            .is_err()
    );
}

pub(crate) fn huge_directory() {
    let stage = Stage::new();
    stage.memory(&stage.at("memory"));
    fill(&stage.at("memory"));
    let first = stage.at("memory/pgdata/global/0");
    File::create(&first).unwrap();
    for number in 1..LISTING_MAX + 50_000 {
        fs::hard_link(&first, stage.at("memory/pgdata/global").join(number.to_string())).unwrap();
    }
    stage.bind(
        &stage.at("memory"),
        &stage.volume("kubernetes.io~csi/pvc-1/mount"),
    );
    let hands = stage.hands();
    let session = stage.session(&hands, vec![data_volume("pvc-1", VolumeSource::Csi)]);
    let begun = Instant::now();
    let listing = session.list(&path("global"), 1000).unwrap();
    assert!(listing.truncated && listing.entries.len() == 1000);
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    let listing = session.list(&path("global"), usize::MAX).unwrap();
    assert!(
        listing.truncated && listing.entries.len() <= LISTING_MAX,
        "{}",
        listing.entries.len()
    );
    println!("{} names in {:?}", listing.entries.len(), begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(12), "{:?}", begun.elapsed());
}

pub(crate) fn privileges() {
    let stage = Stage::new();
    let hands = stage.hands();
    let status = hands.status().unwrap();
    println!("hands: {} KiB resident", status.rss_bytes / 1024);
    let pid = hands.pid();
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |key: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(key))
            .unwrap()
            .trim()
            .to_owned()
    };
    // DAC_READ_SEARCH 2, KILL 5, SETGID 6, SETUID 7, SYS_PTRACE 19, and for recoveries SYS_CHROOT 18, SYS_ADMIN 21; not
    // DAC_OVERRIDE, CHOWN, FOWNER.
    let keep: u64 = [2, 5, 6, 7, 18, 19, 21]
        .into_iter()
        .map(|bit: u32| 1 << bit)
        .sum();
    for set in ["CapPrm:", "CapEff:", "CapBnd:"] {
        assert_eq!(u64::from_str_radix(&field(set), 16).unwrap(), keep, "{set}");
    }
    for set in ["CapInh:", "CapAmb:"] {
        assert_eq!(field(set), "0000000000000000");
    }
    assert_eq!(field("NoNewPrivs:"), "1");
    assert_eq!(field("Threads:"), "1");
    // A session that reads has given up the two for recoveries before it reads anything.
    let session = stage.session(&hands, Vec::new());
    let _ = session.processes();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let reader = children.split_whitespace().next().unwrap();
    let status = fs::read_to_string(format!("/proc/{reader}/status")).unwrap();
    for set in ["CapPrm:", "CapEff:"] {
        let held = status.lines().find_map(|line| line.strip_prefix(set)).unwrap();
        let held = u64::from_str_radix(held.trim(), 16).unwrap();
        assert_eq!(held, keep & !(1 << 18 | 1 << 21), "{set}");
    }
    drop(session);
    let network = |pid: &str| fs::metadata(format!("/proc/{pid}/ns/net")).unwrap().ino();
    assert_ne!(network(&pid.to_string()), network("self"));
    let devices = fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap();
    assert!(
        devices
            .lines()
            .skip(2)
            .all(|line| line.trim_start().starts_with("lo:")),
        "{devices}"
    );
    drop(hands);
    until(
        Duration::from_secs(5),
        "hands end when the head's end closes",
        || {
            let line = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            line.rsplit_once(')')
                .is_none_or(|(_, rest)| rest.trim_start().starts_with('Z'))
                .then_some(())
        },
    );

    // What the five capabilities do not allow, tried: a file of the database is neither written nor removed.
    let file = stage.at("database-file");
    fs::write(&file, "x").unwrap();
    nix::unistd::chown(
        &file,
        Some(nix::unistd::Uid::from_raw(26)),
        Some(nix::unistd::Gid::from_raw(26)),
    )
    .unwrap();
    fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let mut shell = Command::new("/usr/bin/setpriv");
    shell.args([
        "--bounding-set=-all,+dac_read_search,+sys_ptrace,+setuid,+setgid,+kill",
        "/bin/sh",
        "-c",
    ]);
    shell
        .arg(r#"cat "$0" >/dev/null && ! echo y 2>/dev/null >> "$0""#)
        .arg(&file)
        .process_group(0);
    assert!(shell.status().unwrap().success());
}

pub(crate) fn sessions() {
    let stage = Stage::new();
    let hands = stage.hands();
    let locator = stage.locator(Vec::new());
    let session = |seconds| hands.session(&locator, Duration::from_secs(seconds));
    let open: Vec<_> = (0..4).map(|_| session(20).unwrap()).collect();
    assert!(
        matches!(session(20), Err(SessionError::Busy(_))),
        "a fifth session of one pod"
    );
    assert_eq!(hands.status().unwrap().sessions, 4);
    drop(open);
    // Those that were closed just now do not stand in the way of the next, however often.
    for _ in 0..50 {
        session(20).unwrap();
    }
    until(Duration::from_secs(5), "closed sessions end", || {
        (hands.status().ok()?.sessions == 0).then_some(())
    });
    // Its time over, a session answers no more, and its process is gone although its socket is still open here.
    let brief = hands.session(&locator, Duration::from_millis(10)).unwrap();
    until(Duration::from_secs(5), "the kernel ends it", || {
        (hands.status().ok()?.sessions == 0).then_some(())
    });
    assert!(matches!(
        brief.open(&path("PG_VERSION")),
        Err(ReadError::Timeout { .. })
    ));
}
