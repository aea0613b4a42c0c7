//! `grastate.dat`: what Galera saved of the node's state (Galera `galera/src/saved_state.cpp`).
//!
//! Read as Galera itself reads it: line by line, and a last line without a newline is *not* read. So a file whose
//! `safe_to_bootstrap: 0` lost its newline says 1, the default. What stands in such a line is kept for people.

use hasteward_proto::primitive::{GaleraUuidError, History, Seqno, SeqnoError};

/// Bytes of the longest file; Galera writes at most 256.
pub const MAX: usize = 4096;

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GraState {
    /// `version`
    pub version: Option<String>,
    /// `uuid`; `None` = no such line, which Galera takes for nil.
    pub history: Option<History>,
    /// `seqno`; `None` = -1, or no such line.
    pub seqno: Option<Seqno>,
    /// `safe_to_bootstrap`; true where there is no such line.
    pub safe_to_bootstrap: bool,
    /// The last line, where it lacks its newline.
    pub unterminated: Option<String>,
    /// The file has no byte.
    pub empty: bool,
}

impl GraState {
    /// A named history and a position in it, by this file alone.
    #[must_use]
    pub fn has_position(&self) -> bool {
        self.history.is_some_and(|history| history.uuid().is_some()) && self.seqno.is_some()
    }
}

/// Why a file is no `grastate.dat`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GraStateError {
    /// Longer than it can be.
    #[error("grastate.dat has {0} bytes")]
    TooLarge(usize),
    /// Not text: overwritten, or zeroed by a loss of power.
    #[error("grastate.dat is not text")]
    NotText,
    /// `uuid`.
    #[error("grastate.dat: uuid: {0}")]
    Uuid(#[from] GaleraUuidError),
    /// `seqno`.
    #[error("grastate.dat: {0}")]
    Seqno(#[from] SeqnoError),
    /// `safe_to_bootstrap` is neither 0 nor 1.
    #[error("grastate.dat: safe_to_bootstrap is {0:?}")]
    SafeToBootstrap(String),
}

/// Takes the file apart.
pub fn parse(bytes: &[u8]) -> Result<GraState, GraStateError> {
    if bytes.len() > MAX {
        return Err(GraStateError::TooLarge(bytes.len()));
    }
    let text = super::text(bytes).ok_or(GraStateError::NotText)?;
    let mut state = GraState {
        version: None,
        history: None,
        seqno: None,
        safe_to_bootstrap: true,
        unterminated: None,
        empty: bytes.is_empty(),
    };
    let (lines, rest) = text.rsplit_once('\n').unwrap_or(("", text));
    // Galera overwrites in place and fills with spaces what was longer before.
    state.unterminated = Some(rest.trim())
        .filter(|rest| !rest.is_empty())
        .map(|rest| rest.chars().take(200).collect());
    for line in lines.split('\n') {
        let mut words = line.split_ascii_whitespace();
        let (key, value) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        match key {
            "version:" => state.version = Some(value.chars().take(32).collect()),
            "uuid:" => state.history = Some(value.parse()?),
            "seqno:" => state.seqno = Seqno::parse_optional(value)?,
            "safe_to_bootstrap:" => {
                state.safe_to_bootstrap = match value {
                    "0" => false,
                    "1" => true,
                    other => {
                        return Err(GraStateError::SafeToBootstrap(other.chars().take(32).collect()));
                    }
                };
            }
            _ => {}
        }
    }
    Ok(state)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::fixture::{CASES, bytes};
    use super::*;

    const GOOD: &str = "# GALERA saved state\nversion: 2.1\nuuid:    bc86c403-e4a6-11f1-aed1-8b6eef72686a\nseqno:   228\nsafe_to_bootstrap: 0\n";

    #[test]
    fn real_files_of_every_kind_of_end() {
        for case in CASES {
            let state = parse(&bytes(&format!("{case}/grastate.dat"))).unwrap();
            assert_eq!(state.version.as_deref(), Some("2.1"), "{case}");
            assert_eq!(
                state.seqno.map(Seqno::get),
                (case == "stopped").then_some(9),
                "{case}"
            );
            assert_eq!(state.has_position(), case == "stopped", "{case}");
            assert_eq!(
                state.history == Some(History::Nil),
                case == "killed-ddl",
                "{case}"
            );
            let alone = matches!(case, "bootstrapped" | "killed-ddl");
            assert_eq!(state.safe_to_bootstrap, alone, "{case}");
            assert_eq!(state.unterminated, None, "{case}");
        }
    }

    #[test]
    fn a_last_line_without_its_newline_is_not_read() {
        assert!(!parse(GOOD.as_bytes()).unwrap().safe_to_bootstrap);
        let cut = parse(GOOD.trim_end().as_bytes()).unwrap();
        assert!(cut.safe_to_bootstrap, "as Galera reads it");
        assert_eq!(cut.unterminated.as_deref(), Some("safe_to_bootstrap: 0"));
        assert!(cut.has_position());
    }

    #[test]
    fn empty_is_not_corrupt_and_zeroes_are() {
        let empty = parse(b"").unwrap();
        assert!(empty.empty && empty.safe_to_bootstrap && !empty.has_position());
        assert_eq!(empty.history, None);
        assert_eq!(parse(&[0; 120]), Err(GraStateError::NotText));
        assert_eq!(parse(&[b' '; MAX + 1]), Err(GraStateError::TooLarge(MAX + 1)));
    }

    #[test]
    fn impossible_values_are_errors() {
        for (what, with) in [
            ("228", "x"),
            ("228", "-2"),
            ("228", ""),
            ("bc86c403-", "bc86c403"),
            ("bootstrap: 0", "bootstrap: 2"),
        ] {
            assert!(parse(GOOD.replace(what, with).as_bytes()).is_err(), "{with}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_state_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn a_cut_file_never_gives_another_position(end in 0..GOOD.len()) {
            let whole = parse(GOOD.as_bytes()).unwrap();
            if let Ok(cut) = parse(&GOOD.as_bytes()[..end]) {
                prop_assert!(cut.seqno.is_none() || cut.seqno == whole.seqno);
                prop_assert!(cut.history.is_none() || cut.history == whole.history);
            }
        }
    }
}
