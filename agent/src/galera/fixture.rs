//! Files of real nodes, from `agent/tests/fixtures/galera` (see `make-galera.sh` there).

use std::path::PathBuf;

/// Ways that a node can be found.
pub(super) const CASES: [&str; 6] = [
    "bootstrapped",
    "running",
    "joined",
    "killed",
    "stopped",
    "killed-ddl",
];

pub(super) fn bytes(name: &str) -> Vec<u8> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/galera");
    std::fs::read(root.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}
