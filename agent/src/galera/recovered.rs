//! The log of `mariadbd --wsrep-recover`: where InnoDB stands (MariaDB `sql/wsrep_mysqld.cc`, `wsrep_recover`).

use hasteward_proto::primitive::{GaleraUuidError, History, Seqno, SeqnoError};

/// Bytes of the log that are looked at: the position is near its end.
pub const MAX: usize = 1024 * 1024;

const POSITION: &str = "WSREP: Recovered position:";
const DISABLED: &str = "skipping position recovery";
const STARTING: &str = "Starting MariaDB ";

/// What was recovered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// Which history.
    pub history: History,
    /// Where in it; `None` = -1.
    pub seqno: Option<Seqno>,
    /// What follows a comma, with `wsrep_gtid_mode`: `domain-server-sequence`.
    pub gtid: Option<String>,
    /// Of the server that wrote the log.
    pub server_version: Option<String>,
}

/// Why a log holds no position.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecoveredError {
    /// The server did not come so far. Its last error, or the last line.
    #[error("the server recovered no position: {0}")]
    None(String),
    /// It was started without wsrep, and exits as if all were well.
    #[error("the server says that wsrep is disabled")]
    Disabled,
    /// The history.
    #[error("recovered position: {0}")]
    Uuid(#[from] GaleraUuidError),
    /// The position.
    #[error("recovered position: {0}")]
    Seqno(#[from] SeqnoError),
    /// Not `<uuid>:<seqno>`.
    #[error("recovered position {0:?}")]
    Shape(String),
}

/// Finds the position in a log.
pub fn parse(bytes: &[u8]) -> Result<Recovered, RecoveredError> {
    let text = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(MAX)..]);
    let found = text.lines().rev().find_map(|line| line.split_once(POSITION));
    let Some((_, position)) = found else {
        if text.contains(DISABLED) {
            return Err(RecoveredError::Disabled);
        }
        let error = text.lines().rev().find(|line| line.contains("[ERROR]"));
        let last = error.or_else(|| text.lines().rev().find(|line| !line.trim().is_empty()));
        return Err(RecoveredError::None(
            last.unwrap_or("it said nothing").chars().take(300).collect(),
        ));
    };
    let position = position.split_ascii_whitespace().next().unwrap_or("");
    let (place, gtid) = match position.split_once(',') {
        Some((place, gtid)) => (place, Some(gtid.chars().take(64).collect())),
        None => (position, None),
    };
    let (history, seqno) = place
        .split_once(':')
        .ok_or_else(|| RecoveredError::Shape(position.chars().take(128).collect()))?;
    let version = text.lines().rev().find_map(|line| line.split_once(STARTING));
    Ok(Recovered {
        history: history.parse()?,
        seqno: Seqno::parse_optional(seqno)?,
        gtid,
        server_version: version.map(|(_, rest)| {
            let word = rest.split_ascii_whitespace().next().unwrap_or("");
            word.chars().take(64).collect()
        }),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::fixture::bytes;
    use super::*;

    #[test]
    fn a_real_log() {
        let recovered = parse(&bytes("recover.log")).unwrap();
        assert_eq!(recovered.seqno.map(Seqno::get), Some(9));
        assert!(matches!(recovered.history, History::Uuid(_)));
        assert_eq!(
            recovered.server_version.as_deref(),
            Some("10.11.19-MariaDB-0+deb12u1")
        );
        assert_eq!(recovered.gtid, None);
    }

    #[test]
    fn nil_none_and_gtid_are_told_apart() {
        let nil = "00000000-0000-0000-0000-000000000000";
        let of = |tail: &str| parse(format!("x [Note] {POSITION} {tail}\ny\n").as_bytes());
        let fresh = of(&format!("{nil}:-1")).unwrap();
        assert_eq!((fresh.history, fresh.seqno), (History::Nil, None));
        let lost = of(&format!("{nil}:17")).unwrap();
        assert_eq!(
            (lost.history, lost.seqno.map(Seqno::get)),
            (History::Nil, Some(17))
        );
        let gtid = of("bc86c403-e4a6-11f1-aed1-8b6eef72686a:5,5-7-4").unwrap();
        assert_eq!(gtid.gtid.as_deref(), Some("5-7-4"));
        for bad in [
            "",
            "x",
            "x:1",
            "bc86c403-e4a6-11f1-aed1-8b6eef72686a",
            "bc86c403-e4a6-11f1-aed1-8b6eef72686a:x",
        ] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_log_without_a_position_says_why() {
        assert_eq!(
            parse(b"[Note] WSREP: disabled, skipping position recovery\n"),
            Err(RecoveredError::Disabled)
        );
        assert_eq!(
            parse(b"a\n2026 [ERROR] InnoDB: Unable to lock ./ibdata1 error: 11\nAborting\n"),
            Err(RecoveredError::None(
                "2026 [ERROR] InnoDB: Unable to lock ./ibdata1 error: 11".to_owned()
            ))
        );
        assert!(matches!(parse(b""), Err(RecoveredError::None(_))));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_position_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn any_position_is_read_or_an_error(tail in ".{0,100}") {
            let _ = parse(format!("{POSITION}{tail}").as_bytes());
        }
    }
}
