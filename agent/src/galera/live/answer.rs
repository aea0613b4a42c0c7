//! [`Server`]: the rows of `SHOW GLOBAL STATUS` and `SHOW GLOBAL VARIABLES`.

use std::collections::HashMap;

use hasteward_proto::primitive::{GaleraUuidError, History, MemberUuid, Seqno, SeqnoError};

/// `wsrep_cluster_status`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ComponentStatus {
    /// `Primary`
    Primary,
    /// `non-Primary`
    NonPrimary,
    /// `Disconnected`
    Disconnected,
}

/// What the server says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// `version`
    pub version: String,
    /// `wsrep_on`
    pub wsrep_on: bool,
    /// `wsrep_cluster_status`
    pub cluster_status: ComponentStatus,
    /// `wsrep_cluster_state_uuid`; `None` = empty.
    pub cluster_history: Option<History>,
    /// `wsrep_cluster_conf_id`; `None` = -1.
    pub cluster_conf_id: Option<u64>,
    /// `wsrep_cluster_size`
    pub cluster_size: u32,
    /// `wsrep_local_state_uuid`; `None` = empty.
    pub local_history: Option<History>,
    /// `wsrep_local_state`
    pub local_state: u32,
    /// `wsrep_local_state_comment`
    pub local_state_comment: String,
    /// `wsrep_last_committed`; `None` = -1.
    pub last_committed: Option<Seqno>,
    /// `wsrep_ready`
    pub ready: bool,
    /// `wsrep_connected`
    pub connected: bool,
    /// `wsrep_local_index`; `None` = -1.
    pub local_index: Option<u32>,
    /// `wsrep_incoming_addresses`
    pub incoming_addresses: Vec<String>,
    /// `wsrep_gcomm_uuid`; `None` = empty or nil.
    pub member: Option<MemberUuid>,
    /// `wsrep_evs_state`
    pub evs_state: String,
    /// `wsrep_provider_version`
    pub provider_version: String,
    /// `wsrep_protocol_version`
    pub protocol_version: u32,
    /// `wsrep_desync_count`
    pub desync_count: u32,
    /// `wsrep_local_cached_downto`; `None` = the cache is empty.
    pub cached_down_to: Option<Seqno>,
    /// `wsrep_flow_control_paused`, parts per million.
    pub paused_ppm: u32,
    /// `wsrep_flow_control_paused_ns`
    pub paused_ns: u64,
    /// `wsrep_flow_control_sent`
    pub flow_control_sent: u64,
    /// `wsrep_flow_control_recv`
    pub flow_control_received: u64,
    /// `wsrep_flow_control_active`
    pub flow_control_active: bool,
    /// `wsrep_local_recv_queue`
    pub recv_queue: u32,
    /// `wsrep_local_send_queue`
    pub send_queue: u32,
    /// `wsrep_local_cert_failures`
    pub cert_failures: u64,
    /// `wsrep_local_bf_aborts`
    pub bf_aborts: u64,
    /// `read_only`
    pub read_only: bool,
    /// `Uptime`, seconds.
    pub uptime_s: u64,
    /// `wsrep_cluster_name`
    pub cluster_name: String,
    /// `wsrep_node_name`
    pub node_name: String,
    /// `wsrep_sst_method`
    pub sst_method: String,
    /// `innodb_flush_log_at_trx_commit`
    pub flush_log_at_commit: u32,
}

/// Why an answer cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// A row that must be there is not.
    #[error("the server's answer has no {0}")]
    Missing(&'static str),
    /// A value that cannot be.
    #[error("the server's answer has {what} {text:?}")]
    Impossible {
        /// Of what.
        what: &'static str,
        /// The value.
        text: String,
    },
    /// A UUID.
    #[error("the server's answer: {0}")]
    Uuid(#[from] GaleraUuidError),
    /// A position.
    #[error("the server's answer: {0}")]
    Seqno(#[from] SeqnoError),
}

/// Name and value, the names in lower case.
#[derive(Debug, Default)]
pub struct Rows(HashMap<String, String>);

impl Rows {
    /// Adds a row.
    pub fn add(&mut self, name: &str, value: String) {
        self.0.insert(name.to_ascii_lowercase(), value);
    }

    fn text(&self, name: &'static str) -> Result<&str, AnswerError> {
        self.0
            .get(name)
            .map(String::as_str)
            .ok_or(AnswerError::Missing(name))
    }

    fn owned(&self, name: &'static str) -> Result<String, AnswerError> {
        self.text(name).map(|text| text.chars().take(1024).collect())
    }

    fn impossible<T>(what: &'static str, text: &str) -> Result<T, AnswerError> {
        Err(AnswerError::Impossible {
            what,
            text: text.chars().take(64).collect(),
        })
    }

    fn number<T: std::str::FromStr>(&self, name: &'static str) -> Result<T, AnswerError> {
        let text = self.text(name)?;
        match text.parse() {
            Ok(number) if text.bytes().all(|b| b.is_ascii_digit()) => Ok(number),
            _ => Self::impossible(name, text),
        }
    }

    /// A number of which -1, also as 2^64-1 or 2^32-1, means none.
    fn optional(&self, name: &'static str) -> Result<Option<u64>, AnswerError> {
        match self.text(name)? {
            "-1" | "18446744073709551615" | "4294967295" => Ok(None),
            _ => self.number(name).map(Some),
        }
    }

    fn seqno(&self, name: &'static str) -> Result<Option<Seqno>, AnswerError> {
        match self.text(name)? {
            "18446744073709551615" | "9223372036854775807" => Ok(None),
            text => Ok(Seqno::parse_optional(text)?),
        }
    }

    fn switch(&self, name: &'static str) -> Result<bool, AnswerError> {
        let text = self.text(name)?;
        match text.to_ascii_lowercase().as_str() {
            "on" | "1" | "true" | "yes" => Ok(true),
            "off" | "0" | "false" | "no" => Ok(false),
            // MariaDB 12 has read_only levels; every one but off refuses writes.
            other if name == "read_only" && other.starts_with("no_lock") => Ok(true),
            _ => Self::impossible(name, text),
        }
    }

    fn history(&self, name: &'static str) -> Result<Option<History>, AnswerError> {
        match self.text(name)? {
            "" => Ok(None),
            text => Ok(Some(text.parse()?)),
        }
    }

    fn ppm(&self, name: &'static str) -> Result<u32, AnswerError> {
        let text = self.text(name)?;
        match text.parse::<f64>() {
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "between 0 and a million"
            )]
            Ok(share) if share.is_finite() && share >= 0.0 => Ok((share.min(1.0) * 1e6) as u32),
            _ => Self::impossible(name, text),
        }
    }

    /// Takes the answer apart.
    pub fn server(&self) -> Result<Server, AnswerError> {
        let cluster_status = match self.text("wsrep_cluster_status")? {
            status if status.eq_ignore_ascii_case("primary") => ComponentStatus::Primary,
            status if status.eq_ignore_ascii_case("non-primary") => ComponentStatus::NonPrimary,
            status if status.eq_ignore_ascii_case("disconnected") => ComponentStatus::Disconnected,
            other => return Self::impossible("wsrep_cluster_status", other),
        };
        let addresses = self.text("wsrep_incoming_addresses").unwrap_or("");
        let member = match self.text("wsrep_gcomm_uuid").unwrap_or("") {
            "" => None,
            text => match text.parse() {
                Ok(member) => Some(member),
                Err(GaleraUuidError::Nil) => None,
                Err(error) => return Err(error.into()),
            },
        };
        Ok(Server {
            version: self.owned("version")?,
            wsrep_on: self.switch("wsrep_on")?,
            cluster_status,
            cluster_history: self.history("wsrep_cluster_state_uuid")?,
            cluster_conf_id: self.optional("wsrep_cluster_conf_id")?,
            cluster_size: self.number("wsrep_cluster_size")?,
            local_history: self.history("wsrep_local_state_uuid")?,
            local_state: self.number("wsrep_local_state")?,
            local_state_comment: self.owned("wsrep_local_state_comment")?,
            last_committed: self.seqno("wsrep_last_committed")?,
            ready: self.switch("wsrep_ready")?,
            connected: self.switch("wsrep_connected")?,
            local_index: self
                .optional("wsrep_local_index")?
                .and_then(|index| u32::try_from(index).ok()),
            incoming_addresses: addresses
                .split(',')
                .map(str::trim)
                .filter(|address| !address.is_empty())
                .take(256)
                .map(|address| address.chars().take(300).collect())
                .collect(),
            member,
            evs_state: self.owned("wsrep_evs_state").unwrap_or_default(),
            provider_version: self.owned("wsrep_provider_version")?,
            protocol_version: self
                .optional("wsrep_protocol_version")?
                .map_or(0, |version| u32::try_from(version).unwrap_or(u32::MAX)),
            desync_count: self.number("wsrep_desync_count")?,
            cached_down_to: self.seqno("wsrep_local_cached_downto")?,
            paused_ppm: self.ppm("wsrep_flow_control_paused")?,
            paused_ns: self.number("wsrep_flow_control_paused_ns")?,
            flow_control_sent: self.number("wsrep_flow_control_sent")?,
            flow_control_received: self.number("wsrep_flow_control_recv")?,
            flow_control_active: self.switch("wsrep_flow_control_active").unwrap_or(false),
            recv_queue: self.number("wsrep_local_recv_queue")?,
            send_queue: self.number("wsrep_local_send_queue")?,
            cert_failures: self.number("wsrep_local_cert_failures")?,
            bf_aborts: self.number("wsrep_local_bf_aborts")?,
            read_only: self.switch("read_only")?,
            uptime_s: self.number("uptime")?,
            cluster_name: self.owned("wsrep_cluster_name")?,
            node_name: self.owned("wsrep_node_name")?,
            sst_method: self.owned("wsrep_sst_method")?,
            flush_log_at_commit: self.number("innodb_flush_log_at_trx_commit")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::super::fixture::bytes;
    use super::*;

    fn rows(fixture: &str) -> Rows {
        let mut rows = Rows::default();
        for line in String::from_utf8(bytes(fixture)).unwrap().lines() {
            let (name, value) = line.split_once('\t').unwrap();
            rows.add(name, value.to_owned());
        }
        for (name, value) in [
            ("version", "10.11.19-MariaDB"),
            ("wsrep_on", "ON"),
            ("read_only", "OFF"),
            ("Uptime", "7"),
            ("wsrep_cluster_name", "c"),
            ("wsrep_node_name", "n"),
            ("wsrep_sst_method", "rsync"),
            ("innodb_flush_log_at_trx_commit", "1"),
        ] {
            rows.add(name, value.to_owned());
        }
        rows
    }

    #[test]
    fn a_synced_member() {
        let server = rows("status-synced.tsv").server().unwrap();
        assert_eq!(server.cluster_status, ComponentStatus::Primary);
        assert_eq!(
            (server.local_state, server.local_state_comment.as_str()),
            (4, "Synced")
        );
        assert!(
            server
                .cluster_history
                .unwrap()
                .same(server.local_history.unwrap())
        );
        assert_eq!(server.last_committed.map(Seqno::get), Some(9));
        assert_eq!((server.cluster_conf_id, server.cluster_size), (Some(2), 2));
        assert_eq!(server.incoming_addresses.len(), 2);
        assert!(server.ready && server.connected && server.member.is_some());
    }

    #[test]
    fn without_quorum() {
        let server = rows("status-non-primary.tsv").server().unwrap();
        assert_eq!(server.cluster_status, ComponentStatus::NonPrimary);
        assert_eq!(server.cluster_conf_id, None);
        assert!(!server.ready && server.connected);
        assert_eq!(server.last_committed.map(Seqno::get), Some(9));
    }

    #[test]
    fn nil_none_and_nonsense_are_told_apart() {
        let with = |name: &str, value: &str| {
            let mut rows = rows("status-synced.tsv");
            rows.add(name, value.to_owned());
            rows.server()
        };
        let nil = "00000000-0000-0000-0000-000000000000";
        assert_eq!(
            with("wsrep_cluster_state_uuid", nil).unwrap().cluster_history,
            Some(History::Nil)
        );
        assert_eq!(with("wsrep_local_state_uuid", "").unwrap().local_history, None);
        assert_eq!(with("wsrep_last_committed", "-1").unwrap().last_committed, None);
        assert_eq!(with("wsrep_gcomm_uuid", nil).unwrap().member, None);
        for (name, value) in [
            ("wsrep_cluster_status", "Fine"),
            ("wsrep_cluster_state_uuid", "x"),
            ("wsrep_last_committed", "x"),
            ("wsrep_ready", "maybe"),
            ("wsrep_cluster_size", "-3"),
        ] {
            assert!(with(name, value).is_err(), "{name}");
        }
        assert_eq!(
            Rows::default().server(),
            Err(AnswerError::Missing("wsrep_cluster_status"))
        );
    }

    proptest! {
        #[test]
        fn any_value_is_taken_or_refused(name in "wsrep_[a-z_]{4,20}|uptime|read_only", value in ".*") {
            let mut rows = rows("status-synced.tsv");
            rows.add(&name, value);
            let _ = rows.server();
        }
    }
}
