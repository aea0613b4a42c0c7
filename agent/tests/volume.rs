//! What a hostile volume cannot do to a reader.
#![allow(clippy::unwrap_used, reason = "a test that cannot set its stage fails")]

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use hasteward_agent::volume::{
    DataDirectory, FileKind, LISTING_MAX, NAMES_MAX, PlainDirectory, ReadError, RelativePath, VolumeRole,
};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::mkfifo;
use tempfile::TempDir;

fn path(text: &str) -> RelativePath {
    RelativePath::new(text).unwrap()
}

struct Instance {
    scratch: TempDir,
    tree: PlainDirectory,
}

/// PGDATA, a WAL volume and a tablespace volume, linked as CNPG links them.
fn instance() -> Instance {
    let scratch = tempfile::tempdir().unwrap();
    let at = |name: &str| scratch.path().join(name);
    for directory in [
        "pgdata/global",
        "pgdata/pg_tblspc",
        "wal/pg_wal",
        "space/data",
        "outside",
    ] {
        fs::create_dir_all(at(directory)).unwrap();
    }
    fs::write(at("pgdata/PG_VERSION"), "15\n").unwrap();
    fs::write(at("wal/pg_wal/000000010000000000000001"), "wal").unwrap();
    fs::write(at("space/data/file"), "space").unwrap();
    fs::write(at("outside/secret"), "secret").unwrap();
    symlink("/var/lib/postgresql/wal/pg_wal", at("pgdata/pg_wal")).unwrap();
    symlink(
        "/var/lib/postgresql/tablespaces/hot/data",
        at("pgdata/pg_tblspc/16385"),
    )
    .unwrap();
    let tree = PlainDirectory::new(&at("pgdata"))
        .unwrap()
        .with_volume(
            VolumeRole::PgWal,
            Path::new("/var/lib/postgresql/wal"),
            &at("wal"),
        )
        .unwrap()
        .with_volume(
            VolumeRole::Tablespace("hot".to_owned()),
            Path::new("/var/lib/postgresql/tablespaces/hot"),
            &at("space"),
        )
        .unwrap();
    Instance { scratch, tree }
}

#[test]
fn links_that_are_absolute_in_the_container_lead_to_the_right_volume() {
    let Instance {
        tree,
        scratch: _scratch,
    } = instance();
    assert_eq!(tree.read(&path("PG_VERSION"), 16).unwrap(), b"15\n");
    assert_eq!(
        tree.read(&path("pg_wal/000000010000000000000001"), 16).unwrap(),
        b"wal"
    );
    assert_eq!(tree.read(&path("pg_tblspc/16385/file"), 16).unwrap(), b"space");
    assert_eq!(
        tree.list(&path("pg_wal"), 10).unwrap().entries[0].name,
        "000000010000000000000001"
    );
    assert_eq!(
        tree.list(&path("pg_tblspc/16385"), 10).unwrap().entries[0].name,
        "file"
    );
    assert_eq!(
        tree.read_link(&path("pg_wal")).unwrap(),
        Path::new("/var/lib/postgresql/wal/pg_wal")
    );
    assert_eq!(tree.stat(&path("pg_wal")).unwrap().kind, FileKind::Link);
    assert_eq!(
        tree.stat(&path("pg_wal/000000010000000000000001")).unwrap().size,
        3
    );
    assert!(!tree.exists(&path("standby.signal")).unwrap());
    assert!(tree.space(&VolumeRole::PgWal).unwrap().total_bytes > 0);
    assert!(matches!(
        tree.space(&VolumeRole::Scratch),
        Err(ReadError::NotMounted { .. })
    ));
}

#[test]
fn links_out_of_the_volumes_are_refused() {
    let Instance { scratch, tree } = instance();
    let at = |name: &str| scratch.path().join(name);
    let secret = at("outside/secret");
    let refused = |text: &str| {
        let opened = tree.open(&path(text));
        assert!(
            matches!(
                opened,
                Err(ReadError::Refused { .. } | ReadError::WrongType { .. })
            ),
            "{text}: {opened:?}"
        );
        let listed = tree.list(
            &path(text.rsplit_once('/').map_or(text, |(directory, _)| directory)),
            10,
        );
        assert!(
            matches!(
                listed,
                Err(ReadError::Refused { .. } | ReadError::WrongType { .. })
            ),
            "{text}: {listed:?}"
        );
    };

    // As the last component, and on the way; absolute, relative, and through /proc.
    symlink(&secret, at("pgdata/absolute")).unwrap();
    symlink("../outside/secret", at("pgdata/relative")).unwrap();
    symlink(at("outside"), at("pgdata/way")).unwrap();
    symlink("../outside", at("pgdata/way2")).unwrap();
    symlink("/etc", at("pgdata/etc")).unwrap();
    symlink("/proc/self/root", at("pgdata/root")).unwrap();
    for text in [
        "absolute",
        "relative",
        "way/secret",
        "way2/secret",
        "etc/passwd",
        "root/etc/passwd",
    ] {
        refused(text);
    }

    // In the places of the links that are mapped.
    for target in [
        "/etc",
        "/",
        "/var/lib/postgresql/walled",
        "/var/lib/postgresql/wal/../../../../etc",
        "../outside",
    ] {
        fs::remove_file(at("pgdata/pg_wal")).unwrap();
        symlink(target, at("pgdata/pg_wal")).unwrap();
        refused("pg_wal/passwd");
    }
    // In the directory that the mapped link leads to.
    fs::remove_file(at("pgdata/pg_wal")).unwrap();
    symlink("/var/lib/postgresql/wal/pg_wal", at("pgdata/pg_wal")).unwrap();
    fs::remove_dir_all(at("wal/pg_wal")).unwrap();
    for target in [at("outside"), "/etc".into(), "../outside".into()] {
        symlink(target, at("wal/pg_wal")).unwrap();
        refused("pg_wal/secret");
        fs::remove_file(at("wal/pg_wal")).unwrap();
    }
    // And pg_tblspc itself.
    fs::rename(at("pgdata/pg_tblspc"), at("pgdata/pg_tblspc.old")).unwrap();
    symlink(at("outside"), at("pgdata/pg_tblspc")).unwrap();
    refused("pg_tblspc/secret/x");
}

#[test]
fn only_plain_files_are_opened() {
    let Instance { scratch, tree } = instance();
    let at = |name: &str| scratch.path().join("pgdata").join(name);
    mkfifo(&at("fifo"), Mode::S_IRWXU).unwrap();
    mknod(&at("zero"), SFlag::S_IFCHR, Mode::S_IRWXU, makedev(1, 5)).unwrap();
    mknod(&at("disk"), SFlag::S_IFBLK, Mode::S_IRWXU, makedev(7, 200)).unwrap();
    let _listener = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    let kinds = [
        ("fifo", FileKind::Fifo),
        ("zero", FileKind::Device),
        ("disk", FileKind::Device),
        ("socket", FileKind::Socket),
        ("global", FileKind::Directory),
    ];
    let begun = Instant::now();
    for (name, kind) in kinds {
        match tree.open(&path(name)) {
            Err(ReadError::WrongType { found, .. }) => assert_eq!(found, kind),
            other => panic!("{name}: {other:?}"),
        }
    }
    assert!(
        begun.elapsed() < Duration::from_secs(1),
        "nothing waited for the writer of the FIFO"
    );
    assert!(matches!(
        tree.list(&path("fifo"), 1),
        Err(ReadError::WrongType { .. })
    ));
    assert!(matches!(
        tree.read_link(&path("PG_VERSION")),
        Err(ReadError::WrongType {
            found: FileKind::File,
            ..
        })
    ));
    assert!(matches!(
        tree.open(&path("PG_VERSION/x")),
        Err(ReadError::WrongType { .. })
    ));
    assert!(matches!(
        tree.open(&RelativePath::root()),
        Err(ReadError::WrongType {
            found: FileKind::Directory,
            ..
        })
    ));
}

#[test]
fn sizes_are_bounded() {
    let Instance { scratch, tree } = instance();
    let mut sparse = File::create(scratch.path().join("pgdata/huge")).unwrap();
    sparse.seek(SeekFrom::Start((1 << 40) - 1)).unwrap();
    sparse.write_all(b"x").unwrap();
    let begun = Instant::now();
    assert!(matches!(
        tree.read(&path("huge"), 8192),
        Err(ReadError::TooLarge { bound: 8192, .. })
    ));
    assert!(begun.elapsed() < Duration::from_secs(1));
    let stat = tree.stat(&path("huge")).unwrap();
    assert!(stat.size == 1 << 40 && stat.allocated < 1 << 20);

    for number in 0..500 {
        File::create(scratch.path().join(format!("pgdata/global/{number}"))).unwrap();
    }
    let listing = tree.list(&path("global"), 100).unwrap();
    assert!(listing.truncated && listing.entries.len() == 100);
    let listing = tree.list(&path("global"), 500).unwrap();
    assert!(!listing.truncated && listing.entries.len() == 500);
}

#[test]
fn a_descriptor_can_only_be_read() {
    let Instance {
        tree,
        scratch: _scratch,
    } = instance();
    let mut file = tree.open(&path("PG_VERSION")).unwrap();
    assert!(file.write_all(b"x").is_err());
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "15\n");
}

#[test]
fn a_volume_without_pgdata_is_not_one_that_could_not_be_read() {
    let scratch = tempfile::tempdir().unwrap();
    let mount = hasteward_agent::volume::Mount {
        role: VolumeRole::PgData,
        mount_path: "/var/lib/postgresql/data".into(),
        root: Ok(File::open(scratch.path()).unwrap().into()),
    };
    let tree = PlainDirectory::from_mounts(vec![mount]);
    assert!(matches!(
        tree.open(&path("PG_VERSION")),
        Err(ReadError::NotFound { .. })
    ));
    assert!(
        tree.list_volume(&VolumeRole::PgData, 10)
            .unwrap()
            .entries
            .is_empty()
    );
    let tree = PlainDirectory::from_mounts(Vec::new());
    assert!(matches!(
        tree.exists(&path("PG_VERSION")),
        Err(ReadError::NotMounted { .. })
    ));
}

#[test]
fn the_names_of_a_listing_are_bounded_together() {
    let scratch = tempfile::tempdir().unwrap();
    let names = usize::div_ceil(NAMES_MAX, 250 * 6) + 10;
    for number in 0..names {
        let name = format!("{number:05}{}", "\u{1}".repeat(250));
        File::create(scratch.path().join(name)).unwrap();
    }
    let tree = PlainDirectory::new(scratch.path()).unwrap();
    let listing = tree.list(&RelativePath::root(), LISTING_MAX).unwrap();
    assert!(listing.truncated && listing.entries.len() < names);
    let names = listing.entries.iter().map(|entry| &entry.name);
    let encoded: usize = names
        .map(|name| serde_json::to_vec(name).unwrap().len() - 2)
        .sum();
    assert!((NAMES_MAX - 2000..=NAMES_MAX).contains(&encoded), "{encoded}");
}
