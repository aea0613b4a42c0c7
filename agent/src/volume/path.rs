//! [`RelativePath`]: a path that cannot leave the directory it is resolved in.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A path below a directory: UTF-8, no leading `/`, no empty, `.` or `..` component, no NUL, at most 1,024 bytes.
///
/// This keeps requests sane; what keeps them inside is `openat2(2)` with `RESOLVE_BENEATH`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RelativePath(String);

/// A text that is no [`RelativePath`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no path below a directory")]
pub struct RelativePathError {
    text: String,
}

impl RelativePath {
    /// Bytes of the longest path.
    pub const MAX: usize = 1024;

    /// The checked path.
    pub fn new(text: &str) -> Result<Self, RelativePathError> {
        let plain = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains('\0');
        if text.len() <= Self::MAX && text.split('/').all(plain) {
            Ok(Self(text.to_owned()))
        } else {
            Err(RelativePathError {
                text: text.chars().take(80).collect(),
            })
        }
    }

    /// The directory itself.
    #[must_use]
    pub const fn root() -> Self {
        Self(String::new())
    }

    /// Whether this is the directory itself.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The path of `below` in the directory of this path.
    pub fn join(&self, below: &str) -> Result<Self, RelativePathError> {
        if self.is_root() {
            Self::new(below)
        } else {
            Self::new(&format!("{}/{below}", self.0))
        }
    }

    /// The text; empty for the directory itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// For system calls: `.` for the directory itself.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        Path::new(if self.is_root() { "." } else { &self.0 })
    }
}

impl TryFrom<String> for RelativePath {
    type Error = RelativePathError;

    fn try_from(text: String) -> Result<Self, RelativePathError> {
        if text.is_empty() {
            Ok(Self::root())
        } else {
            Self::new(&text)
        }
    }
}

impl FromStr for RelativePath {
    type Err = RelativePathError;

    fn from_str(text: &str) -> Result<Self, RelativePathError> {
        Self::new(text)
    }
}

impl From<RelativePath> for String {
    fn from(path: RelativePath) -> Self {
        path.0
    }
}

impl fmt::Display for RelativePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_root() { "." } else { &self.0 })
    }
}

impl fmt::Debug for RelativePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_could_leave_is_refused() {
        for bad in [
            "", "/", "/a", "..", "../a", "a/..", "a/../b", "a//b", "a/", "./a", "a/.", "a\0b",
        ] {
            assert!(RelativePath::new(bad).is_err(), "{bad:?}");
        }
        assert!(RelativePath::new(&"a".repeat(1025)).is_err());
        assert!(serde_json::from_str::<RelativePath>("\"../x\"").is_err());
        assert!(serde_json::from_str::<RelativePath>("\"\"").unwrap().is_root());
        assert_eq!(
            RelativePath::root()
                .join("global")
                .unwrap()
                .join("pg_control")
                .unwrap()
                .as_str(),
            "global/pg_control"
        );
        assert!(RelativePath::root().join("..").is_err());
    }

    proptest! {
        #[test]
        fn any_text_stays_below_or_is_an_error(text in ".*") {
            if let Ok(path) = RelativePath::new(&text) {
                let plain = |c| matches!(c, std::path::Component::Normal(_));
                prop_assert!(path.as_path().components().all(plain));
            }
        }
    }
}
