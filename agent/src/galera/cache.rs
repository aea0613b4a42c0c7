//! The preamble of `galera.cache` (Galera `gcache/src/gcache_rb_store.cpp`, `RingBuffer::write_preamble`): text in the first
//! 1,024 bytes, filled with NUL. Only a clean stop writes the range.

use hasteward_proto::primitive::{GaleraUuidError, History, Seqno, SeqnoError};

/// Bytes of the preamble.
pub const PREAMBLE: usize = 1024;

/// The format that Galera 4 writes; 0 and 1 are older ones with the same keys.
const VERSION_MAX: u32 = 2;

/// What the preamble says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GaleraCache {
    /// `Version`
    pub version: u32,
    /// `GID`; `None` = no such line.
    pub history: Option<History>,
    /// `seqno_min` and `seqno_max`; `None` = not closed cleanly, or empty.
    pub range: Option<(Seqno, Seqno)>,
    /// `offset` of the first buffer, bytes from the start of the file.
    pub offset: Option<u64>,
    /// `synced: 1`: closed cleanly.
    pub synced: bool,
}

/// Why a file is no `galera.cache`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CacheError {
    /// Not text up to the first NUL.
    #[error("galera.cache does not begin with text")]
    NotText,
    /// Does not begin with a version.
    #[error("galera.cache has no Version")]
    NoVersion,
    /// A format that this release does not know.
    #[error("galera.cache has version {0}")]
    UnknownVersion(u32),
    /// `GID`.
    #[error("galera.cache: GID: {0}")]
    Gid(#[from] GaleraUuidError),
    /// `seqno_min`, `seqno_max`.
    #[error("galera.cache: {0}")]
    Seqno(#[from] SeqnoError),
    /// A value that cannot be.
    #[error("galera.cache: {what} is {text:?}")]
    Value {
        /// Of which key.
        what: &'static str,
        /// The value.
        text: String,
    },
}

fn number<T: std::str::FromStr>(what: &'static str, text: &str) -> Result<T, CacheError> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    plain
        .then(|| text.parse().ok())
        .flatten()
        .ok_or_else(|| CacheError::Value {
            what,
            text: text.chars().take(64).collect(),
        })
}

/// Takes the preamble apart: the first [`PREAMBLE`] bytes of the file, or all of a shorter one.
pub fn parse(bytes: &[u8]) -> Result<GaleraCache, CacheError> {
    let bytes = &bytes[..bytes.len().min(PREAMBLE)];
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    let text = super::text(&bytes[..end]).ok_or(CacheError::NotText)?;
    let mut version = None;
    let mut cache = GaleraCache {
        version: 0,
        history: None,
        range: None,
        offset: None,
        synced: false,
    };
    let (mut min, mut max) = (None, None);
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let (key, value) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        match key {
            "Version:" => version = Some(number("Version", value)?),
            "GID:" => cache.history = Some(value.parse()?),
            "seqno_min:" => min = Seqno::parse_optional(value)?,
            "seqno_max:" => max = Seqno::parse_optional(value)?,
            "offset:" => {
                cache.offset = match value {
                    "-1" => None,
                    value => Some(number("offset", value)?),
                };
            }
            "synced:" => cache.synced = number::<u8>("synced", value)? == 1,
            _ => {}
        }
    }
    cache.version = version.ok_or(CacheError::NoVersion)?;
    if cache.version > VERSION_MAX {
        return Err(CacheError::UnknownVersion(cache.version));
    }
    cache.range = match (min, max) {
        (Some(min), Some(max)) if max < min => {
            return Err(CacheError::Value {
                what: "seqno_max",
                text: format!("{max}, below seqno_min {min}"),
            });
        }
        (Some(min), Some(max)) => Some((min, max)),
        _ => None,
    };
    Ok(cache)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::fixture::{CASES, bytes};
    use super::*;

    #[test]
    fn only_a_clean_stop_tells_the_range() {
        for case in CASES {
            let cache = parse(&bytes(&format!("{case}/galera.cache"))).unwrap();
            assert_eq!(cache.version, 2, "{case}");
            assert!(matches!(cache.history, Some(History::Uuid(_))), "{case}");
            assert_eq!(cache.synced, case == "stopped", "{case}");
            let range = cache.range.map(|(min, max)| (min.get(), max.get()));
            assert_eq!(range, (case == "stopped").then_some((1, 9)), "{case}");
            assert_eq!(cache.offset, (case == "stopped").then_some(1280), "{case}");
        }
    }

    #[test]
    fn what_is_no_preamble_is_an_error() {
        assert_eq!(parse(b""), Err(CacheError::NoVersion));
        assert_eq!(parse(&[0; 1024]), Err(CacheError::NoVersion));
        assert_eq!(parse(b"Version: 3\n"), Err(CacheError::UnknownVersion(3)));
        assert_eq!(parse(&[0xff; 1024]), Err(CacheError::NotText));
        assert!(parse(b"Version: 2\nseqno_min: 5\nseqno_max: 4\n").is_err());
        assert!(parse(b"Version: 2\nGID: x\n").is_err());
        let empty = parse(b"Version: 2\nseqno_min: -1\nseqno_max: -1\noffset: -1\nsynced: 1\n").unwrap();
        assert!(empty.synced && empty.range.is_none() && empty.offset.is_none());
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_preamble_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..1500)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn any_lines_are_a_preamble_or_an_error(text in "((Version|GID|seqno_min|seqno_max|offset|synced): [-0-9a-f]{0,40}\n){0,8}") {
            let _ = parse(text.as_bytes());
        }
    }
}
