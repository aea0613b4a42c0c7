//! `gvwstate.dat`: the last primary view of the group communication (Galera `gcomm/src/view.cpp`, `ViewState`). Written with
//! every primary view, removed by a clean stop. Members are `wsrep_gcomm_uuid`s, not names or addresses.

use hasteward_proto::primitive::{GaleraUuidError, MemberUuid};

/// Bytes of the longest file: far above any real cluster.
pub const MAX: usize = 64 * 1024;

/// Members of the largest view (`gcomm` numbers segments with 8 bits; no cluster is near this).
const MEMBERS_MAX: usize = 1024;

/// `V_PRIM` of `gcomm/view.hpp`: nothing else is ever saved.
const PRIMARY: &str = "3";

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ViewState {
    /// The file has no byte.
    Empty,
    /// A view.
    View(View),
}

/// A saved view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// `my_uuid`
    pub me: MemberUuid,
    /// Second field of `view_id`.
    pub representative: MemberUuid,
    /// Third field of `view_id`.
    pub seq: u32,
    /// `bootstrap`
    pub bootstrap: bool,
    /// `member`: UUID and segment.
    pub members: Vec<(MemberUuid, u8)>,
}

/// Why a file is no `gvwstate.dat`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ViewStateError {
    /// Longer than it can be.
    #[error("gvwstate.dat has {0} bytes")]
    TooLarge(usize),
    /// Not text.
    #[error("gvwstate.dat is not text")]
    NotText,
    /// A line that must be there is not.
    #[error("gvwstate.dat has no {0}")]
    Missing(&'static str),
    /// A UUID.
    #[error("gvwstate.dat: {0}")]
    Uuid(#[from] GaleraUuidError),
    /// A value that cannot be.
    #[error("gvwstate.dat: {what} is {text:?}")]
    Value {
        /// Of which line.
        what: &'static str,
        /// The value.
        text: String,
    },
    /// More members than a view can have.
    #[error("gvwstate.dat has more than {MEMBERS_MAX} members")]
    Members,
}

fn number<T: std::str::FromStr>(what: &'static str, text: &str) -> Result<T, ViewStateError> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    plain
        .then(|| text.parse().ok())
        .flatten()
        .ok_or_else(|| ViewStateError::Value {
            what,
            text: text.chars().take(64).collect(),
        })
}

/// Takes the file apart.
pub fn parse(bytes: &[u8]) -> Result<ViewState, ViewStateError> {
    if bytes.len() > MAX {
        return Err(ViewStateError::TooLarge(bytes.len()));
    }
    let text = super::text(bytes).ok_or(ViewStateError::NotText)?;
    if text.trim().is_empty() {
        return Ok(ViewState::Empty);
    }
    let mut me = None;
    let mut id = None;
    let mut bootstrap = false;
    let mut members = Vec::new();
    let mut ended = false;
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let key = words.next().unwrap_or("");
        let mut word = || words.next().unwrap_or("");
        match key {
            "my_uuid:" => me = Some(word().parse()?),
            "view_id:" => {
                let kind = word();
                if kind != PRIMARY {
                    return Err(ViewStateError::Value {
                        what: "type of view_id",
                        text: kind.chars().take(64).collect(),
                    });
                }
                let representative: MemberUuid = word().parse()?;
                id = Some((representative, number("number of view_id", word())?));
            }
            "bootstrap:" => bootstrap = number::<u8>("bootstrap", word())? != 0,
            "member:" => {
                if members.len() >= MEMBERS_MAX {
                    return Err(ViewStateError::Members);
                }
                members.push((word().parse()?, number("segment", word())?));
            }
            "#vwend" => {
                ended = true;
                break;
            }
            _ => {}
        }
    }
    let (representative, seq) = id.ok_or(ViewStateError::Missing("view_id"))?;
    if !ended {
        return Err(ViewStateError::Missing("#vwend"));
    }
    Ok(ViewState::View(View {
        me: me.ok_or(ViewStateError::Missing("my_uuid"))?,
        representative,
        seq,
        bootstrap,
        members,
    }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::fixture::{CASES, bytes};
    use super::*;

    fn view(case: &str) -> View {
        match parse(&bytes(&format!("{case}/gvwstate.dat"))).unwrap() {
            ViewState::View(view) => view,
            ViewState::Empty => panic!("{case}: empty"),
        }
    }

    #[test]
    fn real_files_tell_who_was_together_last() {
        for case in CASES.into_iter().filter(|case| *case != "stopped") {
            let view = view(case);
            let two = matches!(case, "running" | "joined" | "killed");
            assert_eq!(view.members.len(), if two { 2 } else { 1 }, "{case}");
            assert!(view.members.iter().any(|(uuid, _)| *uuid == view.me), "{case}");
            assert!(!view.bootstrap, "{case}");
        }
        let (donor, joiner) = (view("running"), view("killed"));
        assert_eq!(
            (donor.representative, donor.seq),
            (joiner.representative, joiner.seq)
        );
        assert_ne!(donor.me, joiner.me);
        assert_eq!(view("bootstrapped").seq, 1);
    }

    #[test]
    fn a_file_that_is_not_whole_is_no_view() {
        let whole = String::from_utf8(bytes("killed/gvwstate.dat")).unwrap();
        assert_eq!(parse(b"").unwrap(), ViewState::Empty);
        for without in ["my_uuid:", "view_id:", "#vwend"] {
            assert!(
                parse(whole.replace(without, "x").as_bytes()).is_err(),
                "{without}"
            );
        }
        for (what, with) in [("view_id: 3", "view_id: 1"), ("bootstrap: 0", "bootstrap: -1")] {
            assert!(parse(whole.replace(what, with).as_bytes()).is_err(), "{with}");
        }
        let many = whole.replace(
            "#vwend",
            &"member: bf23855f-e4c1-11f1-90f8-7f724c5160aa 0\n".repeat(1100),
        );
        assert_eq!(parse(many.as_bytes()), Err(ViewStateError::Members));
        assert!(parse(&[0; 64]).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_view_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn any_lines_are_a_view_or_an_error(text in "((my_uuid:|view_id:|member:|bootstrap:|#vwend|#vwbeg)[ 0-9a-f-]{0,44}\n){0,8}") {
            let _ = parse(text.as_bytes());
        }
    }
}
