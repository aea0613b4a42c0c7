//! `pg_wal/%08X.history`: the ancestors of a timeline (PostgreSQL `access/transam/timeline.c`).

use hasteward_proto::primitive::{Lsn, TimelineId};

use super::bytes::excerpt;

/// Bound on a history file; a line takes some 50 bytes, so this is thousands of promotions.
pub const MAX_BYTES: u64 = 1024 * 1024;

/// The history of one timeline: its ancestors, oldest first, each with where it was left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimelineHistory {
    /// The timeline that this is the history of.
    pub timeline: TimelineId,
    /// Ancestors, oldest first; the last one is the direct parent.
    pub switches: Vec<Switch>,
}

/// `parent` was left at `at`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Switch {
    /// The timeline that was left.
    pub parent: TimelineId,
    /// Where: the end of the last record of `parent` that the child shares.
    pub at: Lsn,
}

/// Why bytes are no timeline history.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HistoryError {
    /// Larger than [`MAX_BYTES`].
    #[error("timeline history of {length} bytes")]
    TooLarge {
        /// Bytes that were there.
        length: usize,
    },
    /// A line that is neither blank, nor a comment, nor an entry.
    #[error("line {line} is no `<timeline> <LSN>`: `{text}`")]
    Syntax {
        /// Counted from 1.
        line: usize,
        /// Its start.
        text: String,
    },
    /// Timelines do not increase ("Timeline IDs must be in increasing sequence").
    #[error("line {line}: timeline {found} follows timeline {before}")]
    NotIncreasing {
        /// Counted from 1.
        line: usize,
        /// In this line.
        found: TimelineId,
        /// In the line before.
        before: TimelineId,
    },
    /// A switch lies before the one that led to its timeline.
    #[error("line {line}: switch at {found} lies before the one at {before}")]
    SwitchBeforeStart {
        /// Counted from 1.
        line: usize,
        /// In this line.
        found: Lsn,
        /// In the line before.
        before: Lsn,
    },
    /// An ancestor is not older ("Timeline IDs must be less than child timeline's ID").
    #[error("ancestor {ancestor} is not older than timeline {timeline}")]
    NotOlder {
        /// The last ancestor.
        ancestor: TimelineId,
        /// The timeline that the file is for.
        timeline: TimelineId,
    },
}

impl TimelineHistory {
    /// Parses the history file of `timeline`.
    pub fn parse(timeline: TimelineId, bytes: &[u8]) -> Result<Self, HistoryError> {
        if bytes.len() as u64 > MAX_BYTES {
            return Err(HistoryError::TooLarge { length: bytes.len() });
        }
        let mut switches: Vec<Switch> = Vec::new();
        for (index, raw) in bytes.split(|&b| b == b'\n').enumerate() {
            let line = index + 1;
            let text = raw.trim_ascii();
            if text.is_empty() || text.starts_with(b"#") {
                continue;
            }
            let switch = parse_entry(text).ok_or_else(|| HistoryError::Syntax {
                line,
                text: excerpt(text),
            })?;
            if let Some(before) = switches.last() {
                if switch.parent <= before.parent {
                    let (found, before) = (switch.parent, before.parent);
                    return Err(HistoryError::NotIncreasing { line, found, before });
                }
                if switch.at < before.at {
                    return Err(HistoryError::SwitchBeforeStart {
                        line,
                        found: switch.at,
                        before: before.at,
                    });
                }
            }
            switches.push(switch);
        }
        match switches.last() {
            Some(last) if last.parent >= timeline => Err(HistoryError::NotOlder {
                ancestor: last.parent,
                timeline,
            }),
            _ => Ok(Self { timeline, switches }),
        }
    }

    /// Where this timeline's line of descent left `ancestor`; `None` if it is no ancestor.
    #[must_use]
    pub fn left(&self, ancestor: TimelineId) -> Option<Lsn> {
        self.switches
            .iter()
            .find(|switch| switch.parent == ancestor)
            .map(|switch| switch.at)
    }

    /// The timeline that a history file name is for (`%08X.history`).
    #[must_use]
    pub fn timeline_of_name(name: &str) -> Option<TimelineId> {
        let digits = name.strip_suffix(".history")?;
        let plain = digits.len() == 8 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'A'..=b'F'));
        plain
            .then(|| u32::from_str_radix(digits, 16).ok().and_then(TimelineId::new))
            .flatten()
    }
}

/// `<timeline><blanks><LSN>[<blanks><reason>]`; the reason may be in any encoding.
fn parse_entry(text: &[u8]) -> Option<Switch> {
    let mut fields = text
        .split(u8::is_ascii_whitespace)
        .filter(|field| !field.is_empty());
    let mut field = || fields.next().and_then(|field| std::str::from_utf8(field).ok());
    Some(Switch {
        parent: field()?.parse().ok()?,
        at: field()?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tli(id: u32) -> TimelineId {
        TimelineId::new(id).unwrap()
    }

    fn parse(timeline: u32, text: &str) -> Result<TimelineHistory, HistoryError> {
        TimelineHistory::parse(tli(timeline), text.as_bytes())
    }

    #[test]
    fn entries_comments_and_blank_lines() {
        let text =
            "# made by hand\n1\t0/3E437E78\tno recovery target specified\n\n 2\t0/40000000\tcaf\u{e9}\n";
        let history = parse(3, text).unwrap();
        let at = |s: &str| s.parse::<Lsn>().unwrap();
        assert_eq!(
            history.switches,
            [
                Switch {
                    parent: tli(1),
                    at: at("0/3E437E78")
                },
                Switch {
                    parent: tli(2),
                    at: at("0/40000000")
                }
            ]
        );
        assert_eq!(history.left(tli(1)), Some(at("0/3E437E78")));
        assert_eq!(history.left(tli(3)), None);
        assert_eq!(parse(1, "").unwrap().switches, []);
    }

    #[test]
    fn refuses_what_postgres_refuses() {
        assert!(matches!(
            parse(3, "x\t0/1\n"),
            Err(HistoryError::Syntax { line: 1, .. })
        ));
        assert!(matches!(parse(3, "1\n"), Err(HistoryError::Syntax { .. })));
        assert!(matches!(parse(3, "1\t0/0\n"), Err(HistoryError::Syntax { .. })));
        assert!(matches!(
            parse(4, "2\t0/1\n1\t0/2\n"),
            Err(HistoryError::NotIncreasing { line: 2, .. })
        ));
        assert!(matches!(
            parse(4, "1\t0/1\n1\t0/2\n"),
            Err(HistoryError::NotIncreasing { .. })
        ));
        assert!(matches!(parse(2, "2\t0/1\n"), Err(HistoryError::NotOlder { .. })));
        assert!(matches!(
            parse(4, "1\t0/9\n2\t0/2\n"),
            Err(HistoryError::SwitchBeforeStart { .. })
        ));
        let long = vec![b'\n'; usize::try_from(MAX_BYTES).unwrap() + 1];
        assert!(matches!(
            TimelineHistory::parse(tli(2), &long),
            Err(HistoryError::TooLarge { .. })
        ));
    }

    #[test]
    fn names() {
        assert_eq!(
            TimelineHistory::timeline_of_name("0000001A.history"),
            Some(tli(26))
        );
        for bad in [
            "0000001a.history",
            "00000000.history",
            "1.history",
            "00000001.history.tmp",
            ".history",
            "",
        ] {
            assert_eq!(TimelineHistory::timeline_of_name(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_history_or_an_error(timeline in 1u32.., bytes: Vec<u8>) {
            let _ = TimelineHistory::parse(tli(timeline), &bytes);
        }

        #[test]
        fn accepted_histories_increase(timeline in 1u32..9, lines in proptest::collection::vec((0u32..9, 0u64..20), 0..5)) {
            let lines: Vec<_> = lines.iter().map(|(t, l)| format!("{t}\t0/{l:X}\twhy")).collect();
            let text = lines.join("\n");
            if let Ok(history) = parse(timeline, &text) {
                prop_assert!(history.switches.is_sorted_by(|a, b| a.parent < b.parent && a.at <= b.at));
                prop_assert!(history.switches.iter().all(|s| s.parent < history.timeline));
            }
        }
    }
}
