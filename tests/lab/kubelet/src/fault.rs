//! Faults that tests and people order by files in the state directory.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

/// What is to go wrong with a pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Fault {
    /// Kill the main container whenever it runs.
    pub crash_loop: bool,
}

const LOOK: Duration = Duration::from_millis(200);

/// The file for one pod.
pub fn file(state: &Path, namespace: &str, pod: &str) -> PathBuf {
    state.join("faults").join(format!("{namespace}.{pod}"))
}

/// What the file orders; nothing when there is none or it is no JSON (yet).
pub fn read(file: &Path) -> Fault {
    std::fs::read(file)
        .ok()
        .and_then(|text| serde_json::from_slice(&text).ok())
        .unwrap_or_default()
}

/// Comes back when a crash loop is ordered.
pub async fn crash_ordered(file: &Path) {
    while !read(file).crash_loop {
        tokio::time::sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_file_counts() {
        let dir = tempfile::tempdir().unwrap();
        let path = file(dir.path(), "db", "pg-1");
        assert_eq!(path, dir.path().join("faults/db.pg-1"));
        assert!(!read(&path).crash_loop);
        std::fs::create_dir(dir.path().join("faults")).unwrap();
        std::fs::write(&path, "{\"crashL").unwrap();
        assert!(!read(&path).crash_loop);
        std::fs::write(&path, r#"{"crashLoop": true}"#).unwrap();
        assert!(read(&path).crash_loop);
    }
}
