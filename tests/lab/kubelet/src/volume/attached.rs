//! Which images this node has mounted: two nodes that mount one ext4 image would destroy it.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::{Doing as _, VolumeError};

/// Locks of mounted images by the place where they are staged. They end with the kubelet, as its mounts do.
#[derive(Clone, Default)]
pub(super) struct Attached {
    locks: Arc<Mutex<HashMap<PathBuf, Flock<File>>>>,
}

impl Attached {
    /// Takes the image for this node.
    ///
    /// # Errors
    /// When another node has it.
    pub(super) fn attach(&self, image: &Path, staged: &Path, handle: &str) -> Result<(), VolumeError> {
        let file = File::open(image).doing("open", image)?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| match error {
            Errno::EWOULDBLOCK => VolumeError::MultiAttach(handle.to_owned()),
            other => VolumeError::File {
                step: "lock",
                path: image.to_owned(),
                source: other.into(),
            },
        })?;
        self.locks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(staged.to_owned(), lock);
        Ok(())
    }

    /// Lets the image go.
    pub(super) fn detach(&self, staged: &Path) {
        self.locks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(staged);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_node_at_a_time() {
        let image = tempfile::NamedTempFile::new().unwrap();
        let (one, two, staged) = (Attached::default(), Attached::default(), Path::new("/staged"));
        one.attach(image.path(), staged, "v").unwrap();
        assert!(matches!(
            two.attach(image.path(), staged, "v"),
            Err(VolumeError::MultiAttach(_))
        ));
        one.detach(staged);
        two.attach(image.path(), staged, "v").unwrap();
    }
}
