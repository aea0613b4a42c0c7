//! Where volumes are found, and where they are not.

use std::fs;
use std::os::unix::fs::symlink;

use hasteward_agent::hands::{
    ContainerId, ContainerPath, HostPath, InstanceLocator, VolumeName, VolumeSource,
};
use hasteward_agent::volume::{DataDirectory, ReadError, VolumeRole};

use crate::stage::{Stage, data_volume, fill, path, volume};

pub(crate) fn csi() {
    let stage = Stage::new();
    fill(&stage.at("disk"));
    fs::create_dir_all(stage.at("wal-disk/pg_wal")).unwrap();
    fs::write(stage.at("wal-disk/pg_wal/000000010000000000000001"), "wal").unwrap();
    symlink("/var/lib/postgresql/wal/pg_wal", stage.at("disk/pgdata/pg_wal")).unwrap();
    stage.bind(&stage.at("disk"), &stage.volume("kubernetes.io~csi/pvc-1/mount"));
    stage.bind(
        &stage.at("wal-disk"),
        &stage.volume("kubernetes.io~csi/pvc-2/mount"),
    );
    let hands = stage.hands();
    let wal = volume(
        VolumeRole::PgWal,
        "pvc-2",
        VolumeSource::Csi,
        "/var/lib/postgresql/wal",
    );
    let session = stage.session(&hands, vec![data_volume("pvc-1", VolumeSource::Csi), wal]);
    assert_eq!(session.read(&path("PG_VERSION"), 16).unwrap(), b"15\n");
    assert_eq!(
        session
            .read(&path("pg_wal/000000010000000000000001"), 16)
            .unwrap(),
        b"wal"
    );
    assert_eq!(session.list(&path("pg_wal"), 10).unwrap().entries.len(), 1);
    assert_eq!(
        session.read_link(&path("pg_wal")).unwrap().to_str(),
        Some("/var/lib/postgresql/wal/pg_wal")
    );
    assert!(session.stat(&path("PG_VERSION")).unwrap().size == 3);
    assert!(!session.exists(&path("standby.signal")).unwrap());
    assert!(session.space(&VolumeRole::PgWal).unwrap().total_bytes > 0);
    assert_eq!(
        session.list_volume(&VolumeRole::PgData, 10).unwrap().entries[0].name,
        "pgdata"
    );
    assert_eq!(session.volumes(), [VolumeRole::PgData, VolumeRole::PgWal]);
}

pub(crate) fn unmounted() {
    let stage = Stage::new();
    // After an unmount kubelet may leave the bare directory; and someone may have written into it.
    fill(&stage.volume("kubernetes.io~csi/pvc-1/mount"));
    let hands = stage.hands();
    let session = stage.session(&hands, vec![data_volume("pvc-1", VolumeSource::Csi)]);
    for name in ["PG_VERSION", "standby.signal"] {
        assert!(matches!(
            session.exists(&path(name)),
            Err(ReadError::NotMounted { .. })
        ));
    }
    assert!(matches!(
        session.space(&VolumeRole::PgData),
        Err(ReadError::NotMounted { .. })
    ));
    // Nothing there at all, and no such pod.
    let session = stage.session(&hands, vec![data_volume("pvc-9", VolumeSource::Csi)]);
    assert!(matches!(
        session.open(&path("PG_VERSION")),
        Err(ReadError::NotMounted { .. })
    ));
    // A link in the place of kubelet's directory is no mount either.
    fill(&stage.at("disk"));
    fs::create_dir_all(stage.volume("kubernetes.io~csi/pvc-3")).unwrap();
    symlink(stage.at("disk"), stage.volume("kubernetes.io~csi/pvc-3/mount")).unwrap();
    let session = stage.session(&hands, vec![data_volume("pvc-3", VolumeSource::Csi)]);
    assert!(session.open(&path("PG_VERSION")).is_err());
}

pub(crate) fn other_kinds() {
    let stage = Stage::new();
    fill(&stage.at("disk"));
    let hands = stage.hands();
    let version = |volume| stage.session(&hands, vec![volume]).read(&path("PG_VERSION"), 16);

    stage.bind(&stage.at("disk"), &stage.volume("kubernetes.io~nfs/pv-nfs"));
    assert_eq!(
        version(data_volume("pv-nfs", VolumeSource::Nfs)).unwrap(),
        b"15\n"
    );

    fill(&stage.volume("kubernetes.io~empty-dir/scratch"));
    assert_eq!(
        version(data_volume("scratch", VolumeSource::EmptyDir)).unwrap(),
        b"15\n"
    );

    let outside = HostPath::new(stage.at("disk").to_str().unwrap()).unwrap();
    stage.bind(
        &stage.at("disk"),
        &stage.volume("kubernetes.io~local-volume/pv-local"),
    );
    assert_eq!(
        version(data_volume("pv-local", VolumeSource::Local(outside.clone()))).unwrap(),
        b"15\n"
    );
    // No pod mounts it: the path itself, and only below an allowed root.
    assert!(matches!(
        version(data_volume("pv-2", VolumeSource::Local(outside))),
        Err(ReadError::Refused { .. })
    ));
    fill(&stage.at("allowed/pv-2"));
    let inside = |name: &str| {
        let path = HostPath::new(stage.at(name).to_str().unwrap()).unwrap();
        version(data_volume("pv-2", VolumeSource::Local(path)))
    };
    assert_eq!(inside("allowed/pv-2").unwrap(), b"15\n");
    fs::create_dir(stage.at("allowed/bare")).unwrap();
    assert!(matches!(
        inside("allowed/bare"),
        Err(ReadError::NotMounted { .. })
    ));
}

pub(crate) fn host_paths() {
    let stage = Stage::new();
    for place in ["allowed/pv", "elsewhere/pv", "allowed-not/pv"] {
        fill(&stage.at(place));
    }
    symlink(stage.at("elsewhere/pv"), stage.at("allowed/absolute")).unwrap();
    symlink("../elsewhere/pv", stage.at("allowed/relative")).unwrap();
    symlink("../elsewhere", stage.at("allowed/way")).unwrap();
    symlink("/proc/self/root", stage.at("allowed/magic")).unwrap();
    symlink("pv", stage.at("allowed/within")).unwrap();
    let hands = stage.hands();
    let version = |place: &str| {
        let host_path = HostPath::new(stage.at(place).to_str().unwrap()).unwrap();
        stage
            .session(&hands, vec![data_volume("pv", VolumeSource::HostPath(host_path))])
            .read(&path("PG_VERSION"), 16)
    };
    assert_eq!(version("allowed/pv").unwrap(), b"15\n");
    assert_eq!(version("allowed/within").unwrap(), b"15\n");
    let through = format!("allowed/magic{}", stage.at("elsewhere/pv").display());
    for place in [
        "elsewhere/pv",
        "allowed-not/pv",
        "allowed",
        "allowed/absolute",
        "allowed/relative",
        "allowed/way/pv",
        &through,
    ] {
        let outcome = version(place);
        assert!(
            matches!(outcome, Err(ReadError::Refused { .. })),
            "{place}: {outcome:?}"
        );
    }
    // The mount point of a disk that is not mounted looks like an empty volume.
    fs::create_dir(stage.at("allowed/bare")).unwrap();
    for place in ["allowed/nothing", "allowed/bare"] {
        assert!(
            matches!(version(place), Err(ReadError::NotMounted { .. })),
            "{place}"
        );
    }
}

pub(crate) fn locators() {
    for bad in ["", ".", "..", "a/b", "../x", "a\0b"] {
        assert!(VolumeName::new(bad).is_err(), "{bad:?}");
    }
    for bad in ["", "relative", "/a/../b", "/..", "//a", "/a\0"] {
        assert!(HostPath::new(bad).is_err(), "{bad:?}");
        assert!(ContainerPath::new(bad).is_err(), "{bad:?}");
    }
    assert!(ContainerId::new("../../etc").is_err());
    // The hands check again what comes over the socket: the types have no other way in.
    let stage = Stage::new();
    let locator = stage.locator(vec![data_volume("pvc-1", VolumeSource::Csi)]);
    let text = serde_json::to_string(&locator).unwrap();
    assert!(serde_json::from_str::<InstanceLocator>(&text).is_ok());
    for (good, bad) in [
        ("pvc-1", "../../x"),
        ("/var/lib/postgresql/data", "/var/../etc"),
        (stage.pod.as_str(), ".."),
    ] {
        assert!(
            serde_json::from_str::<InstanceLocator>(&text.replace(good, bad)).is_err(),
            "{bad}"
        );
    }
}

pub(crate) fn sub_path() {
    let stage = Stage::new();
    fill(&stage.at("disk/database"));
    fs::create_dir(stage.at("secret")).unwrap();
    symlink("../secret", stage.at("disk/out")).unwrap();
    stage.bind(&stage.at("disk"), &stage.volume("kubernetes.io~csi/pvc-1/mount"));
    let hands = stage.hands();
    let version = |sub_path: &str| {
        let mut volume = data_volume("pvc-1", VolumeSource::Csi);
        volume.sub_path = path(sub_path);
        stage.session(&hands, vec![volume]).read(&path("PG_VERSION"), 16)
    };
    assert_eq!(version("database").unwrap(), b"15\n");
    assert!(matches!(version("nothing"), Err(ReadError::NotMounted { .. })));
    assert!(matches!(
        version("out"),
        Err(ReadError::Refused { .. } | ReadError::WrongType { .. })
    ));
}
