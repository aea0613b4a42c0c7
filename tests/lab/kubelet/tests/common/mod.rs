//! A node for a test: its own pid, mount, net, uts and ipc namespaces, which end with the test.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "shared by tests of which none uses all"
)]

pub(crate) mod world;

use std::process::Command;

/// Runs `body` in a process that is pid 1 of fresh namespaces. `name` is the name of the calling test.
pub(crate) fn in_node(name: &str, body: impl FnOnce()) {
    const INSIDE: &str = "HASTEWARD_LAB_TEST_INSIDE";
    if std::env::var_os(INSIDE).is_some() {
        return body();
    }
    assert!(nix::unistd::geteuid().is_root(), "the lab needs root");
    let status = Command::new("unshare")
        .args([
            "--mount",
            "--pid",
            "--net",
            "--uts",
            "--ipc",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "--",
        ])
        .arg(std::env::current_exe().expect("own path"))
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .status()
        .expect("unshare");
    assert!(status.success(), "{name}: {status}");
}

/// Waits until `condition` gives something, at most `seconds`.
pub(crate) async fn until<T>(what: &str, seconds: u64, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(seconds);
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(
            std::time::Instant::now() < deadline,
            "not within {seconds} s: {what}"
        );
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}
