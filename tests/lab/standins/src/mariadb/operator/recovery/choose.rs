//! Where to bootstrap. UUIDs are never compared, and a node that calls itself safe is believed without a look at its
//! UUID or position: both cost users their data.

use crate::mariadb::grastate::NIL;
use crate::mariadb::names;
use crate::mariadb::resource::{Position, SavedState};
use std::collections::BTreeMap;

/// A choice by recovered positions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ByPosition {
    /// Highest sequence number; ties go to the highest ordinal.
    Chosen(String),
    /// All are nil:-1.
    NobodyKnows,
}

/// The lowest ordinal that says `safe_to_bootstrap: 1`.
pub(super) fn by_state(states: &BTreeMap<String, SavedState>) -> Option<String> {
    states
        .iter()
        .filter(|(_, state)| state.safe_to_bootstrap)
        .min_by_key(|(pod, _)| names::ordinal(pod))
        .map(|(pod, _)| pod.clone())
}

/// The furthest of all pods but those without any history.
pub(super) fn by_position(recovered: &BTreeMap<String, Position>) -> ByPosition {
    recovered
        .iter()
        .filter(|(_, position)| !(position.uuid == NIL && position.seqno == -1))
        .max_by_key(|(pod, position)| (position.seqno, names::ordinal(pod)))
        .map_or(ByPosition::NobodyKnows, |(pod, _)| {
            ByPosition::Chosen(pod.clone())
        })
}

/// Reads `WSREP: Recovered position: <uuid>:<seqno>[,<gtid>…]` out of a server's log; the last one counts.
pub(super) fn recovered_position(log: &str) -> Option<Position> {
    const MARK: &str = "WSREP: Recovered position: ";
    log.lines().rev().find_map(|line| {
        let text = &line[line.find(MARK)? + MARK.len()..];
        let text = text.split([',', ' ']).next()?;
        let (uuid, seqno) = text.rsplit_once(':')?;
        Some(Position {
            uuid: uuid.to_owned(),
            seqno: seqno.trim().parse().ok()?,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "bc86c403-e4a6-11f1-aed1-8b6eef72686a";
    const B: &str = "cc86c403-e4a6-11f1-aed1-8b6eef72686a";

    fn positions(list: &[(&str, &str, i64)]) -> BTreeMap<String, Position> {
        list.iter()
            .map(|(pod, uuid, seqno)| {
                let uuid = (*uuid).to_owned();
                ((*pod).to_owned(), Position { uuid, seqno: *seqno })
            })
            .collect()
    }

    fn state(uuid: &str, safe: bool) -> SavedState {
        SavedState {
            version: "2.1".into(),
            uuid: uuid.into(),
            seqno: -1,
            safe_to_bootstrap: safe,
        }
    }

    #[test]
    fn the_highest_wins_without_a_look_at_the_uuid() {
        let recovered = positions(&[("m-0", A, 7), ("m-1", B, 9), ("m-2", A, 8)]);
        assert_eq!(by_position(&recovered), ByPosition::Chosen("m-1".into()));
    }

    #[test]
    fn ties_go_to_the_highest_ordinal() {
        let recovered = positions(&[("m-10", A, 7), ("m-2", A, 7)]);
        assert_eq!(by_position(&recovered), ByPosition::Chosen("m-10".into()));
    }

    #[test]
    fn nil_is_skipped_only_without_a_number() {
        assert_eq!(
            by_position(&positions(&[("m-0", NIL, -1)])),
            ByPosition::NobodyKnows
        );
        let recovered = positions(&[("m-0", NIL, 12), ("m-1", A, 7)]);
        assert_eq!(by_position(&recovered), ByPosition::Chosen("m-0".into()));
    }

    #[test]
    fn a_safe_node_is_believed_even_with_a_nil_uuid() {
        let states = BTreeMap::from([
            ("m-0".to_owned(), state(A, false)),
            ("m-2".to_owned(), state(A, true)),
            ("m-1".to_owned(), state(NIL, true)),
        ]);
        assert_eq!(by_state(&states).as_deref(), Some("m-1"));
    }

    #[test]
    fn positions_in_logs() {
        let log = format!(
            "2026-01-01 [Note] WSREP: Recovered position: {A}:3\n[Note] WSREP: Recovered position: {A}:5,5-7-4\nbye\n"
        );
        assert_eq!(recovered_position(&log).unwrap().seqno, 5);
        assert_eq!(
            recovered_position(&format!("WSREP: Recovered position: {NIL}:-1\n"))
                .unwrap()
                .seqno,
            -1
        );
        assert_eq!(
            recovered_position("WSREP: disabled, skipping position recovery"),
            None
        );
    }
}
