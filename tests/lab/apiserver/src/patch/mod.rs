//! The four ways to change an object in part.

pub mod apply;
pub mod fields;
pub mod json;
pub mod merge;
pub mod shape;
pub mod strategic;

/// Why a patch could not be carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The patch itself is not understood.
    #[error("{0}")]
    Malformed(String),
    /// The patch does not fit the object: a test failed, a path leads nowhere.
    #[error("{0}")]
    Unfit(String),
}

/// Patches and objects nest at most this deep; serde_json refuses deeper input, too.
const DEPTH: usize = 128;
