//! `backup_label`: this directory is a base backup that was not recovered yet (PostgreSQL `xlogrecovery.c`,
//! `read_backup_label`). Its presence means: never judge by the control file.

use hasteward_proto::primitive::{Lsn, TimelineId};

use super::bytes::excerpt;

/// Bound on the file. PostgreSQL caps the label at 1 KiB.
pub const MAX_BYTES: u64 = 64 * 1024;

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupLabel {
    /// `START WAL LOCATION`: redo point of the backup's checkpoint.
    pub start: Lsn,
    /// `CHECKPOINT LOCATION`.
    pub checkpoint: Lsn,
    /// `BACKUP METHOD`.
    pub method: BackupMethod,
    /// `BACKUP FROM`.
    pub from: Option<BackupFrom>,
    /// `START TIMELINE`, else the timeline in the name of the START WAL file.
    pub timeline: TimelineId,
    /// `INCREMENTAL FROM LSN` (17 and later): not usable before `pg_combinebackup`.
    pub incremental_from: Option<Lsn>,
}

/// `BACKUP METHOD`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackupMethod {
    /// Made by the backup functions or `pg_basebackup`.
    Streamed,
    /// Left by `pg_rewind`.
    PgRewind,
    /// Anything else, or no such line.
    Other(String),
}

/// `BACKUP FROM`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackupFrom {
    /// `primary` (`master` before 14).
    Primary,
    /// `standby`.
    Standby,
}

/// Why bytes are no backup label.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackupLabelError {
    /// Larger than [`MAX_BYTES`].
    #[error("backup_label of {length} bytes")]
    TooLarge {
        /// Bytes that were there.
        length: usize,
    },
    /// A line that must be there is not, or is not what it must be.
    #[error("backup_label has no valid `{line}`: `{text}`")]
    Line {
        /// Its key.
        line: &'static str,
        /// What was found.
        text: String,
    },
    /// `START TIMELINE` and the name of the START WAL file differ.
    #[error("backup_label names timeline {stated} and a WAL file of timeline {file}")]
    Timeline {
        /// In `START TIMELINE`.
        stated: TimelineId,
        /// In the file's name.
        file: TimelineId,
    },
}

impl BackupLabel {
    /// Parses the file's bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, BackupLabelError> {
        if bytes.len() as u64 > MAX_BYTES {
            return Err(BackupLabelError::TooLarge { length: bytes.len() });
        }
        // LABEL is free text, so a line counts only where PostgreSQL writes it: the first of its key.
        let find = |key: &str| {
            bytes.split(|&b| b == b'\n').find_map(|line| {
                line.strip_prefix(key.as_bytes())?
                    .strip_prefix(b": ")
                    .map(<[u8]>::trim_ascii_end)
            })
        };
        let bad = |line| BackupLabelError::Line {
            line,
            text: find(line).map(excerpt).unwrap_or_default(),
        };
        let text = |key: &'static str| find(key).and_then(|value| std::str::from_utf8(value).ok());

        let (start, file) = text("START WAL LOCATION")
            .and_then(|value| {
                let (lsn, file) = value.split_once(" (file ")?;
                Some((lsn.parse::<Lsn>().ok()?, file.strip_suffix(')')?))
            })
            .ok_or_else(|| bad("START WAL LOCATION"))?;
        let file_timeline = (file.len() == 24 && file.bytes().all(|b| b.is_ascii_hexdigit()))
            .then(|| u32::from_str_radix(&file[..8], 16).ok().and_then(TimelineId::new))
            .flatten()
            .ok_or_else(|| bad("START WAL LOCATION"))?;
        let checkpoint = text("CHECKPOINT LOCATION")
            .and_then(|value| value.parse::<Lsn>().ok())
            .ok_or_else(|| bad("CHECKPOINT LOCATION"))?;
        let method = match text("BACKUP METHOD") {
            Some("streamed") => BackupMethod::Streamed,
            Some("pg_rewind") => BackupMethod::PgRewind,
            other => BackupMethod::Other(other.map(|o| excerpt(o.as_bytes())).unwrap_or_default()),
        };
        let from = match text("BACKUP FROM") {
            Some("primary" | "master") => Some(BackupFrom::Primary),
            Some("standby") => Some(BackupFrom::Standby),
            _ => None,
        };
        if find("START TIMELINE").is_some() {
            let stated = text("START TIMELINE")
                .and_then(|value| value.parse::<TimelineId>().ok())
                .ok_or_else(|| bad("START TIMELINE"))?;
            if stated != file_timeline {
                return Err(BackupLabelError::Timeline {
                    stated,
                    file: file_timeline,
                });
            }
        }
        let incremental_from = match find("INCREMENTAL FROM LSN") {
            None => None,
            Some(_) => Some(
                text("INCREMENTAL FROM LSN")
                    .and_then(|value| value.parse::<Lsn>().ok())
                    .ok_or_else(|| bad("INCREMENTAL FROM LSN"))?,
            ),
        };
        Ok(Self {
            start,
            checkpoint,
            method,
            from,
            timeline: file_timeline,
            incremental_from,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LABEL: &str = "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\n\
        CHECKPOINT LOCATION: 0/2000060\nBACKUP METHOD: streamed\nBACKUP FROM: primary\n\
        START TIME: 2026-11-20 08:00:00 UTC\nLABEL: pg_basebackup base backup\nSTART TIMELINE: 1\n";

    #[test]
    fn a_streamed_backup() {
        let label = BackupLabel::parse(LABEL.as_bytes()).unwrap();
        assert_eq!(label.start.to_string(), "0/2000028");
        assert_eq!(label.checkpoint.to_string(), "0/2000060");
        assert_eq!(label.method, BackupMethod::Streamed);
        assert_eq!(label.from, Some(BackupFrom::Primary));
        assert_eq!(label.timeline, TimelineId::FIRST);
        assert_eq!(label.incremental_from, None);
    }

    #[test]
    fn an_incremental_backup_says_so() {
        let text = format!("{LABEL}INCREMENTAL FROM LSN: 0/2000028\nINCREMENTAL FROM TLI: 1\n");
        assert!(
            BackupLabel::parse(text.as_bytes())
                .unwrap()
                .incremental_from
                .is_some()
        );
    }

    #[test]
    fn a_damaged_one_is_refused() {
        for (what, with) in [
            ("0/2000028 (", "0/x ("),
            ("(file 0", "(file Z"),
            ("START WAL", "START VAL"),
            ("CHECKPOINT LOCATION: 0/2000060", "CHECKPOINT LOCATION: "),
            ("TIMELINE: 1", "TIMELINE: one"),
        ] {
            let text = LABEL.replace(what, with);
            assert!(
                matches!(
                    BackupLabel::parse(text.as_bytes()),
                    Err(BackupLabelError::Line { .. })
                ),
                "{with}"
            );
        }
        let text = LABEL.replace("TIMELINE: 1", "TIMELINE: 2");
        assert!(matches!(
            BackupLabel::parse(text.as_bytes()),
            Err(BackupLabelError::Timeline { .. })
        ));
        assert!(BackupLabel::parse(b"").is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_label_or_an_error(bytes: Vec<u8>) {
            let _ = BackupLabel::parse(&bytes);
        }

        #[test]
        fn any_damage_is_a_label_or_an_error(at in 0..LABEL.len(), byte: u8) {
            let mut bytes = LABEL.as_bytes().to_vec();
            bytes[at] = byte;
            let _ = BackupLabel::parse(&bytes);
        }
    }
}
