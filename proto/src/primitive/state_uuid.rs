//! [`StateUuid`] and [`MemberUuid`]: the names of Galera histories and of the members of a view.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A text that is no UUID, or the nil UUID where that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GaleraUuidError {
    /// Not 8-4-4-4-12 hexadecimal digits.
    #[error("`{0}` is not a UUID")]
    Syntax(String),
    /// All zeros (`WSREP_UUID_UNDEFINED`), which names nothing.
    #[error("the nil UUID names nothing")]
    Nil,
}

/// The sixteen bytes, nil included.
fn parse(text: &str) -> Option<[u8; 16]> {
    let lengths: Vec<_> = text.split('-').map(str::len).take(6).collect();
    let plain = text.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit());
    if lengths != [8, 4, 4, 4, 12] || !plain {
        return None;
    }
    let digits = text.replace('-', "");
    u128::from_str_radix(&digits, 16).ok().map(u128::to_be_bytes)
}

macro_rules! uuid {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 16]);

        impl $name {
            /// The name of these bytes; `None` for nil.
            #[must_use]
            pub fn from_bytes(bytes: [u8; 16]) -> Option<Self> {
                (bytes != [0; 16]).then_some(Self(bytes))
            }
        }

        impl FromStr for $name {
            type Err = GaleraUuidError;

            fn from_str(text: &str) -> Result<Self, GaleraUuidError> {
                let bytes = parse(text)
                    .ok_or_else(|| GaleraUuidError::Syntax(text.chars().take(64).collect()))?;
                Self::from_bytes(bytes).ok_or(GaleraUuidError::Nil)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                for (at, byte) in self.0.iter().enumerate() {
                    if matches!(at, 4 | 6 | 8 | 10) {
                        f.write_str("-")?;
                    }
                    write!(f, "{byte:02x}")?;
                }
                Ok(())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?
                    .parse()
                    .map_err(serde::de::Error::custom)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "format": "uuid", "description": $what })
            }
        }
    };
}

uuid!(
    /// The name of a history of write-sets: `wsrep_cluster_state_uuid`, `uuid` in grastate.dat, `GID` in galera.cache. Never nil.
    ///
    /// Nodes of one history have one name; two names never merge by themselves. Nil is no name and equals nothing, not
    /// even another nil: it stands for unsafe, unknown or lost, and is a variant of [`History`].
    StateUuid,
    "Galera state UUID, never nil"
);

uuid!(
    /// A member of a view of the group communication: `wsrep_gcomm_uuid`, `my_uuid` in gvwstate.dat. Never nil. Drawn anew
    /// where gvwstate.dat is gone, so it names a run of a node, not the node.
    MemberUuid,
    "Galera group member UUID, never nil"
);

/// What stands where Galera writes a state UUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum History {
    /// All zeros.
    Nil,
    /// A name.
    Uuid(StateUuid),
}

impl History {
    /// The name, where there is one.
    #[must_use]
    pub const fn uuid(self) -> Option<StateUuid> {
        match self {
            Self::Nil => None,
            Self::Uuid(uuid) => Some(uuid),
        }
    }

    /// Whether both are the same named history. Two nils are not.
    #[must_use]
    pub fn same(self, other: Self) -> bool {
        self.uuid().is_some() && self == other
    }
}

impl FromStr for History {
    type Err = GaleraUuidError;

    fn from_str(text: &str) -> Result<Self, GaleraUuidError> {
        match text.parse() {
            Ok(uuid) => Ok(Self::Uuid(uuid)),
            Err(GaleraUuidError::Nil) => Ok(Self::Nil),
            Err(error) => Err(error),
        }
    }
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nil => f.write_str("00000000-0000-0000-0000-000000000000"),
            Self::Uuid(uuid) => fmt::Display::fmt(uuid, f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEXT: &str = "bc86c403-e4a6-11f1-aed1-8b6eef72686a";

    #[test]
    fn nil_is_a_variant_and_never_a_value() {
        let nil = "00000000-0000-0000-0000-000000000000";
        assert_eq!(nil.parse::<StateUuid>(), Err(GaleraUuidError::Nil));
        assert_eq!(nil.parse::<History>(), Ok(History::Nil));
        assert!(!History::Nil.same(History::Nil));
        let named: History = TEXT.parse().unwrap();
        assert!(named.same(named));
        assert!(!named.same(History::Nil));
        assert_eq!(History::Nil.to_string(), nil);
        assert_eq!(named.to_string(), TEXT);
    }

    #[test]
    fn rejects_other_shapes() {
        for bad in [
            "",
            "bc86c403e4a611f1aed18b6eef72686a",
            "bc86c403-e4a6-11f1-aed1-8b6eef72686",
            "bc86c403-e4a6-11f1-aed1-8b6eef72686a-",
            "+c86c403-e4a6-11f1-aed1-8b6eef72686a",
            "gc86c403-e4a6-11f1-aed1-8b6eef72686a",
            "bc86c403-e4a6-11f1-aed18-b6eef72686a",
        ] {
            assert!(bad.parse::<StateUuid>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn text_round_trips(bytes in any::<[u8; 16]>()) {
            if let Some(uuid) = StateUuid::from_bytes(bytes) {
                prop_assert_eq!(uuid.to_string().parse::<StateUuid>().unwrap(), uuid);
            }
        }

        #[test]
        fn any_text_is_a_history_or_an_error(text in ".*") {
            let _ = text.parse::<History>();
        }
    }
}
