//! Orphans: in a container everything whose parent dies becomes the child of PID 1.

use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

/// Collects orphaned zombies until the process ends. A zombie must be seen twice: our own children are collected by
/// the runtime well within that time.
pub(super) async fn run() {
    if std::process::id() != 1 {
        return;
    }
    let mut seen = BTreeSet::new();
    let mut tick = tokio::time::interval(Duration::from_secs(2));
    loop {
        tick.tick().await;
        let zombies = zombies();
        for pid in zombies.intersection(&seen) {
            let _ = waitpid(Pid::from_raw(*pid), Some(WaitPidFlag::WNOHANG));
        }
        seen = zombies;
    }
}

fn zombies() -> BTreeSet<i32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return BTreeSet::new();
    };
    entries
        .filter_map(Result::ok)
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| is_zombie_child_of(&stat, 1))
        })
        .collect()
}

/// Reads `/proc/<pid>/stat`; the command in parentheses may contain anything.
fn is_zombie_child_of(stat: &str, parent: i32) -> bool {
    let Some((_, rest)) = stat.rsplit_once(')') else {
        return false;
    };
    let mut fields = rest.split_whitespace();
    fields.next() == Some("Z") && fields.next().and_then(|field| field.parse().ok()) == Some(parent)
}

#[cfg(test)]
mod tests {
    use super::is_zombie_child_of;

    #[test]
    fn reads_past_the_command() {
        assert!(is_zombie_child_of("42 (a) Z 7 (b)) Z 1 42 42 0", 1));
        assert!(!is_zombie_child_of("42 (postgres) S 1 42", 1));
        assert!(!is_zombie_child_of("42 (postgres) Z 2 42", 1));
        assert!(!is_zombie_child_of("", 1));
    }
}
