//! [`Seqno`]: a position in a history of Galera write-sets.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A Galera sequence number (`wsrep_seqno_t`, `wsrep_api.h`): never negative.
///
/// `-1` (`WSREP_SEQNO_UNDEFINED`) is kept out of this type: "no position" is always an `Option` or an unread item. Two
/// numbers compare only within one history; see [`StateUuid`](super::StateUuid).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "u64", into = "u64")]
pub struct Seqno(u64);

/// A number or text that is no sequence number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a seqno: expected a decimal number from 0 to 2^63-1, or -1 for none")]
pub struct SeqnoError {
    text: String,
}

impl Seqno {
    /// The number `seqno`; `None` above 2^63-1, which the signed type of the wsrep API cannot hold.
    #[must_use]
    pub const fn new(seqno: u64) -> Option<Self> {
        if seqno > i64::MAX as u64 {
            None
        } else {
            Some(Self(seqno))
        }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// How many write-sets lie between `earlier` and here; zero where `earlier` is not earlier.
    #[must_use]
    pub const fn past(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// A text as Galera writes it: `-1` is none.
    ///
    /// # Errors
    /// Neither `-1` nor a sequence number.
    pub fn parse_optional(text: &str) -> Result<Option<Self>, SeqnoError> {
        if text == "-1" {
            Ok(None)
        } else {
            text.parse().map(Some)
        }
    }
}

impl TryFrom<u64> for Seqno {
    type Error = SeqnoError;

    fn try_from(seqno: u64) -> Result<Self, SeqnoError> {
        Self::new(seqno).ok_or_else(|| SeqnoError {
            text: seqno.to_string(),
        })
    }
}

impl From<Seqno> for u64 {
    fn from(seqno: Seqno) -> Self {
        seqno.0
    }
}

impl FromStr for Seqno {
    type Err = SeqnoError;

    fn from_str(text: &str) -> Result<Self, SeqnoError> {
        let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        plain
            .then(|| text.parse().ok().and_then(Self::new))
            .flatten()
            .ok_or_else(|| SeqnoError {
                text: text.chars().take(64).collect(),
            })
    }
}

impl fmt::Display for Seqno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Seqno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seqno {}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn undefined_is_no_seqno() {
        assert!("-1".parse::<Seqno>().is_err());
        assert_eq!(Seqno::parse_optional("-1"), Ok(None));
        assert_eq!(Seqno::parse_optional("0"), Ok(Seqno::new(0)));
        for bad in [
            "",
            "-2",
            "+1",
            " 1",
            "1 ",
            "0x1",
            "9223372036854775808",
            "18446744073709551615",
        ] {
            assert!(Seqno::parse_optional(bad).is_err(), "{bad}");
        }
        assert_eq!(Seqno::new(u64::MAX), None);
    }

    proptest! {
        #[test]
        fn text_round_trips(number in 0..=i64::MAX.cast_unsigned()) {
            let seqno = Seqno::new(number).unwrap();
            prop_assert_eq!(seqno.to_string().parse::<Seqno>().unwrap(), seqno);
        }

        #[test]
        fn any_text_is_a_seqno_or_an_error(text in ".*") {
            let _ = Seqno::parse_optional(&text);
        }
    }
}
