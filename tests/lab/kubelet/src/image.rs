//! Images: names in `images.json`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::runtime::spec::{Bind, Propagation, RootFile};

/// A path of the node that the image shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageBind {
    /// On the node.
    pub from: PathBuf,
    /// In the container.
    pub to: PathBuf,
}

/// One image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Image {
    /// Read-only binds.
    pub binds: Vec<ImageBind>,
    /// Files by absolute path.
    pub files: BTreeMap<PathBuf, String>,
    /// Program and arguments, when the container has no `command`.
    pub entrypoint: Vec<String>,
    /// Environment.
    pub env: BTreeMap<String, String>,
}

/// Why an image cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The list could not be read.
    #[error("read {path}: {source}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The list is not as expected.
    #[error("parse {path}: {source}")]
    Parse {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// There is no such image.
    #[error("image {0:?} is not in the list of images")]
    Unknown(String),
}

impl Image {
    /// Looks `name` up in the list; the list is read each time, as images may be added.
    ///
    /// # Errors
    /// See [`ImageError`].
    pub fn find(list: &Path, name: &str) -> Result<Self, ImageError> {
        let text = std::fs::read(list).map_err(|source| ImageError::Read {
            path: list.to_owned(),
            source,
        })?;
        let mut images: BTreeMap<String, Self> =
            serde_json::from_slice(&text).map_err(|source| ImageError::Parse {
                path: list.to_owned(),
                source,
            })?;
        images
            .remove(name)
            .ok_or_else(|| ImageError::Unknown(name.to_owned()))
    }

    /// The image's part of a root file system.
    pub fn root(&self) -> (Vec<Bind>, Vec<RootFile>) {
        let bind = |bind: &ImageBind| Bind {
            from: bind.from.clone(),
            to: bind.to.clone(),
            read_only: true,
            recursive: false,
            propagation: Propagation::None,
        };
        let file = |(path, content): (&PathBuf, &String)| RootFile {
            path: path.clone(),
            content: content.clone(),
        };
        (
            self.binds.iter().map(bind).collect(),
            self.files.iter().map(file).collect(),
        )
    }

    fn lines(&self, file: &str) -> impl Iterator<Item = Vec<&str>> {
        let text = self.files.get(Path::new(file)).map_or("", String::as_str);
        text.lines().map(|line| line.split(':').collect())
    }

    /// The line of `uid` in the image's `/etc/passwd`: name, primary group and home.
    pub fn user(&self, uid: u32) -> Option<(String, u32, String)> {
        let found = self
            .lines("/etc/passwd")
            .find(|line| line.get(2).and_then(|id| id.parse().ok()) == Some(uid))?;
        Some((
            (*found.first()?).to_owned(),
            found.get(3)?.parse().ok()?,
            (*found.get(5)?).to_owned(),
        ))
    }

    /// Groups of the image that have `user` as a member.
    pub fn groups_of(&self, user: &str) -> Vec<u32> {
        self.lines("/etc/group")
            .filter(|line| {
                line.get(3)
                    .is_some_and(|members| members.split(',').any(|member| member == user))
            })
            .filter_map(|line| line.get(2)?.parse().ok())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_groups_come_from_the_files() {
        let mut image = Image::default();
        image.files.insert(
            "/etc/passwd".into(),
            "root:x:0:0::/root:/bin/sh\npostgres:x:26:26::/home/pg:/bin/sh\n".into(),
        );
        image.files.insert(
            "/etc/group".into(),
            "ssl:x:101:other,postgres\ndata:x:102:\n".into(),
        );
        assert_eq!(
            image.user(26),
            Some(("postgres".to_owned(), 26, "/home/pg".to_owned()))
        );
        assert_eq!((image.user(27), image.groups_of("postgres")), (None, vec![101]));
    }

    #[test]
    fn an_unknown_image_is_named() {
        let list = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(list.path(), r#"{"a": {"entrypoint": ["/bin/true"]}}"#).unwrap();
        assert_eq!(Image::find(list.path(), "a").unwrap().entrypoint, ["/bin/true"]);
        assert!(matches!(Image::find(list.path(), "b"), Err(ImageError::Unknown(name)) if name == "b"));
    }
}
