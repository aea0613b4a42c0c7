//! `grastate.dat` as the operator's agent reads and writes it.
//!
//! What it writes has neither Galera's header nor a final newline; Galera then does not see the last line and takes
//! `safe_to_bootstrap` for 1, which is what the operator wants at that moment.

use super::resource::SavedState;

/// The state UUID of a node that knows of no history.
pub const NIL: &str = "00000000-0000-0000-0000-000000000000";

impl SavedState {
    /// Reads the file. `None` when a key is missing or is no number.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let value = |key: &str| {
            text.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                (name.trim() == key).then(|| value.trim().to_owned())
            })
        };
        Some(Self {
            version: value("version")?,
            uuid: value("uuid")?,
            seqno: value("seqno")?.parse().ok()?,
            safe_to_bootstrap: value("safe_to_bootstrap")? == "1",
        })
    }

    /// The file as the agent writes it.
    #[must_use]
    pub fn render(&self) -> String {
        format!(
            "version: {}\nuuid: {}\nseqno: {}\nsafe_to_bootstrap: {}",
            self.version,
            self.uuid,
            self.seqno,
            u8::from(self.safe_to_bootstrap)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUNNING: &str = "# GALERA saved state\nversion: 2.1\nuuid:    bc86c403-e4a6-11f1-aed1-8b6eef72686a\n\
                           seqno:   -1\nsafe_to_bootstrap: 0\n";

    #[test]
    fn reads_what_galera_writes() {
        let state = SavedState::parse(RUNNING).unwrap();
        assert_eq!(state.uuid, "bc86c403-e4a6-11f1-aed1-8b6eef72686a");
        assert_eq!((state.seqno, state.safe_to_bootstrap), (-1, false));
    }

    #[test]
    fn writes_without_a_final_newline_and_reads_it_again() {
        let state = SavedState {
            seqno: 5,
            safe_to_bootstrap: true,
            ..SavedState::parse(RUNNING).unwrap()
        };
        assert!(!state.render().ends_with('\n'));
        assert_eq!(SavedState::parse(&state.render()), Some(state));
    }

    #[test]
    fn what_is_no_state_is_none() {
        for bad in [
            "",
            "version: 2.1\n",
            "version: 2.1\nuuid: x\nseqno: many\nsafe_to_bootstrap: 1",
        ] {
            assert_eq!(SavedState::parse(bad), None, "{bad}");
        }
    }
}
