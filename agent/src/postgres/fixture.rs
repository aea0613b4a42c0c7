//! Files of real servers, from `agent/tests/fixtures/postgres` (see `make-postgres.sh` there).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use super::control_file::ControlFile;
use super::wal::source::MemorySource;

pub(crate) const MAJORS: [u32; 6] = [13, 14, 15, 16, 17, 18];

/// What one server left when it was killed.
pub(crate) struct Fixture {
    pub(crate) control_bytes: Vec<u8>,
    pub(crate) control: ControlFile,
    pub(crate) wal: MemorySource,
    pub(crate) slots: BTreeMap<String, Vec<u8>>,
    expected: BTreeMap<String, String>,
}

impl Fixture {
    pub(crate) fn load(major: u32) -> Self {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/postgres/{major}"));
        let read = |name: &str| std::fs::read(root.join(name)).unwrap();
        let mut wal = MemorySource::default();
        for entry in std::fs::read_dir(root.join("wal")).unwrap() {
            let path = entry.unwrap().path();
            let bytes = Command::new("gzip").arg("-dc").arg(&path).output().unwrap();
            assert!(bytes.status.success());
            wal.0.insert(
                path.file_stem().unwrap().to_str().unwrap().to_owned(),
                bytes.stdout,
            );
        }
        let slots = ["standby_1", "changes"].map(|slot| (slot.to_owned(), read(&format!("{slot}.state"))));
        let expected = String::from_utf8(read("expected")).unwrap();
        let expected = expected.lines().filter_map(|line| line.split_once(' '));
        let control_bytes = read("pg_control");
        Self {
            control: ControlFile::parse(&control_bytes).unwrap(),
            control_bytes,
            wal,
            slots: slots.into(),
            expected: expected
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
        }
    }

    /// What the server itself said.
    pub(crate) fn expected<T: std::str::FromStr<Err: std::fmt::Debug>>(&self, key: &str) -> T {
        self.expected[key].trim().parse().unwrap()
    }
}
