//! Log positions as PostgreSQL prints them.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A position in the WAL, in bytes; printed `X/X`. The empty string is "unknown" and sorts first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Lsn(pub u64);

/// Text that is no log position.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no log position")]
pub struct NotAnLsn(String);

impl FromStr for Lsn {
    type Err = NotAnLsn;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            return Ok(Self(0));
        }
        let parts = text.split_once('/').and_then(|(high, low)| {
            Some((
                u64::from_str_radix(high, 16).ok()?,
                u64::from_str_radix(low, 16).ok()?,
            ))
        });
        match parts {
            Some((high, low)) if u32::try_from(high).is_ok() && u32::try_from(low).is_ok() => {
                Ok(Self(high << 32 | low))
            }
            _ => Err(NotAnLsn(text.to_owned())),
        }
    }
}

impl TryFrom<String> for Lsn {
    type Error = NotAnLsn;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Lsn> for String {
    fn from(lsn: Lsn) -> Self {
        if lsn.0 == 0 { Self::new() } else { lsn.to_string() }
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_by_value_not_by_text() {
        let small: Lsn = "0/9000000".parse().unwrap();
        let big: Lsn = "0/10000000".parse().unwrap();
        assert!(small < big && big < "1/0".parse().unwrap());
        assert_eq!(big.to_string(), "0/10000000");
        assert!("0-1".parse::<Lsn>().is_err());
        assert!("0/100000000".parse::<Lsn>().is_err());
        assert_eq!("".parse::<Lsn>().unwrap(), Lsn(0));
    }
}
