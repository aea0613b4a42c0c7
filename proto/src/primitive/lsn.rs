//! [`Lsn`]: a position in PostgreSQL's write-ahead log.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A byte position in the write-ahead log (`XLogRecPtr`, PostgreSQL `access/xlogdefs.h`).
///
/// Zero is PostgreSQL's `InvalidXLogRecPtr`; it is kept out of this type by [`Lsn::new`] and by parsing, so that
/// "no position" is always an `Option` or an unread item, never a number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(u64);

/// A text that is no LSN.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an LSN: expected two hexadecimal numbers as in 0/16B3748, not both zero")]
pub struct LsnError {
    text: String,
}

impl Lsn {
    /// The position `bytes` from the start of the log; `None` for zero (`InvalidXLogRecPtr`).
    #[must_use]
    pub const fn new(bytes: u64) -> Option<Self> {
        if bytes == 0 { None } else { Some(Self(bytes)) }
    }

    /// Bytes from the start of the log.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// Bytes from `earlier` to here; zero where `earlier` is not earlier.
    #[must_use]
    pub const fn bytes_past(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The number of the segment that holds this byte (`XLByteToSeg`).
    #[must_use]
    pub const fn segment(self, segment_size: u32) -> u64 {
        self.0 / segment_size as u64
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl fmt::Debug for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Lsn {
    type Err = LsnError;

    fn from_str(text: &str) -> Result<Self, LsnError> {
        let error = || LsnError {
            text: text.chars().take(64).collect(),
        };
        let (high, low) = text.split_once('/').ok_or_else(error)?;
        let half = |part: &str| {
            let plain = (1..=8).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_hexdigit());
            plain
                .then(|| u64::from_str_radix(part, 16).ok())
                .flatten()
                .ok_or_else(error)
        };
        Self::new((half(high)? << 32) | half(low)?).ok_or_else(error)
    }
}

impl Serialize for Lsn {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Lsn {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Lsn {
    fn schema_name() -> Cow<'static, str> {
        "Lsn".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9A-F]{1,8}/[0-9A-F]{1,8}$", "description": "PostgreSQL write-ahead log position" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn zero_is_no_position() {
        assert_eq!(Lsn::new(0), None);
        assert!("0/0".parse::<Lsn>().is_err());
    }

    #[test]
    fn rejects_what_postgres_rejects() {
        for bad in [
            "",
            "/",
            "0/",
            "/1",
            "0x1/2",
            "1/2/3",
            "+1/2",
            " 1/2",
            "123456789/0",
            "g/1",
            "1-2",
        ] {
            assert!(bad.parse::<Lsn>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn text_round_trips(bytes in 1u64..) {
            let lsn = Lsn::new(bytes).unwrap();
            prop_assert_eq!(lsn.to_string().parse::<Lsn>().unwrap(), lsn);
        }

        #[test]
        fn any_text_is_an_lsn_or_an_error(text in ".*") {
            let _ = text.parse::<Lsn>();
        }
    }
}
