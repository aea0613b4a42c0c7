//! From what was read to the protocol (`hasteward.agent.v1`).

use hasteward_proto::primitive::{History, MemberUuid, Seqno};
use hasteward_proto::wire::agent as wire;

use super::cache::GaleraCache;
use super::files::{ConfigFiles, DataFiles, StateTransfer};
use super::grastate::GraState;
use super::inspect::Node;
use super::live::{ComponentStatus, Server};
use super::recovered::Recovered;
use super::view_state::ViewState;
use crate::hands::{MariadbProcesses, ServerProcess};
use crate::postgres::convert::{reading, volume};
use crate::postgres::reading::Reading;

/// A position, with what it took to read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveredPosition {
    /// What the server said.
    pub recovered: Recovered,
    /// How long it took, milliseconds.
    pub elapsed_ms: u64,
    /// What it wrote beside the data directory, bytes.
    pub scratch_bytes: u64,
}

fn history(history: History) -> wire::History {
    match history {
        History::Nil => wire::History {
            kind: wire::HistoryKind::Nil.into(),
            uuid: String::new(),
        },
        History::Uuid(uuid) => wire::History {
            kind: wire::HistoryKind::Uuid.into(),
            uuid: uuid.to_string(),
        },
    }
}

fn number(seqno: Option<Seqno>) -> Option<u64> {
    seqno.map(Seqno::get)
}

fn member(uuid: Option<MemberUuid>) -> String {
    uuid.map(|uuid| uuid.to_string()).unwrap_or_default()
}

reading! {
    GaleraProcessesReading, galera_processes_reading: MariadbProcesses => wire::GaleraProcesses::from;
    GraStateReading, gra_state_reading: GraState => wire::GraState::from;
    ViewStateReading, view_state_reading: ViewState => wire::ViewState::from;
    GaleraCacheReading, galera_cache_reading: GaleraCache => wire::GaleraCache::from;
    StateTransferReading, state_transfer_reading: StateTransfer => wire::StateTransfer::from;
    MariadbFilesReading, mariadb_files_reading: DataFiles => wire::MariadbFiles::from;
    GaleraConfigReading, galera_config_reading: ConfigFiles => wire::GaleraConfig::from;
    RecoveredPositionReading, recovered_position_reading: RecoveredPosition => wire::RecoveredPosition::from;
    GaleraServerReading, galera_server_reading: Server => wire::GaleraServer::from;
}

impl From<Node> for wire::InspectGaleraReply {
    /// All but `processes`, `recovered` and `server`, which do not come from files.
    fn from(node: Node) -> Self {
        Self {
            processes: None,
            grastate: Some(node.grastate.into()),
            view_state: Some(node.view_state.into()),
            cache: Some(node.cache.into()),
            state_transfer: Some(node.state_transfer.into()),
            files: Some(node.files.into()),
            config: Some(node.config.into()),
            recovered: None,
            volumes: node
                .volumes
                .into_iter()
                .map(|(role, space)| volume(role, space))
                .collect(),
            leftovers: Some(node.leftovers.into()),
            server: None,
        }
    }
}

impl From<MariadbProcesses> for wire::GaleraProcesses {
    fn from(processes: MariadbProcesses) -> Self {
        Self {
            server: processes.server.map(Into::into),
            tools: processes.tools,
            count: processes.count,
        }
    }
}

impl From<ServerProcess> for wire::ServerProcess {
    fn from(server: ServerProcess) -> Self {
        Self {
            pid: server.pid,
            uid: server.uid,
            gid: server.gid,
            started_at_ms: server.started_at_ms,
            stopped: server.stopped,
            new_cluster: server.new_cluster,
        }
    }
}

impl From<GraState> for wire::GraState {
    fn from(state: GraState) -> Self {
        Self {
            version: state.version.unwrap_or_default(),
            history: state.history.map(history),
            seqno: number(state.seqno),
            safe_to_bootstrap: state.safe_to_bootstrap,
            unterminated: state.unterminated.unwrap_or_default(),
            empty: state.empty,
        }
    }
}

impl From<ViewState> for wire::ViewState {
    fn from(state: ViewState) -> Self {
        match state {
            ViewState::Empty => Self {
                empty: true,
                ..Self::default()
            },
            ViewState::View(view) => Self {
                my_uuid: view.me.to_string(),
                representative_uuid: view.representative.to_string(),
                view_seq: view.seq,
                bootstrap: view.bootstrap,
                members: view
                    .members
                    .into_iter()
                    .map(|(uuid, segment)| wire::ViewMember {
                        uuid: uuid.to_string(),
                        segment: segment.into(),
                    })
                    .collect(),
                empty: false,
            },
        }
    }
}

impl From<GaleraCache> for wire::GaleraCache {
    fn from(cache: GaleraCache) -> Self {
        Self {
            version: cache.version,
            history: cache.history.map(history),
            seqno_min: number(cache.range.map(|(min, _)| min)),
            seqno_max: number(cache.range.map(|(_, max)| max)),
            offset: cache.offset,
            synced: cache.synced,
        }
    }
}

impl From<StateTransfer> for wire::StateTransfer {
    fn from(transfer: StateTransfer) -> Self {
        Self {
            sst_in_progress: transfer.in_progress,
            pid_file: transfer.pid_file,
            receive_directory: transfer.receive_directory,
            names: transfer.names,
        }
    }
}

impl From<DataFiles> for wire::MariadbFiles {
    fn from(files: DataFiles) -> Self {
        Self {
            mysql_directory: files.mysql_directory,
            ibdata1_bytes: files.ibdata1_bytes,
            redo_files: files.redo_files,
            aria_control: files.aria_control,
            entries: files.entries,
            failed_write_sets: files.failed_write_sets,
            cache_pages: files.cache_pages,
            cache_page_bytes: files.cache_page_bytes,
            upgrade_version: files.upgrade_version.unwrap_or_default(),
            device: files.identity.0,
            inode: files.identity.1,
        }
    }
}

impl From<ConfigFiles> for wire::GaleraConfig {
    fn from(config: ConfigFiles) -> Self {
        Self {
            bootstrap: config.bootstrap,
            hold: config.hold.is_some(),
            held_by: config.hold.flatten().unwrap_or_default(),
            galera: config.galera,
        }
    }
}

impl From<RecoveredPosition> for wire::RecoveredPosition {
    fn from(position: RecoveredPosition) -> Self {
        let recovered = position.recovered;
        Self {
            history: Some(history(recovered.history)),
            seqno: number(recovered.seqno),
            gtid: recovered.gtid.unwrap_or_default(),
            server_version: recovered.server_version.unwrap_or_default(),
            elapsed_ms: position.elapsed_ms,
            scratch_bytes: position.scratch_bytes,
        }
    }
}

impl From<ComponentStatus> for wire::ComponentStatus {
    fn from(status: ComponentStatus) -> Self {
        match status {
            ComponentStatus::Primary => Self::Primary,
            ComponentStatus::NonPrimary => Self::NonPrimary,
            ComponentStatus::Disconnected => Self::Disconnected,
        }
    }
}

impl From<Server> for wire::GaleraServer {
    fn from(server: Server) -> Self {
        Self {
            version: server.version,
            wsrep_on: server.wsrep_on,
            cluster_status: wire::ComponentStatus::from(server.cluster_status).into(),
            cluster_history: server.cluster_history.map(history),
            cluster_conf_id: server.cluster_conf_id,
            cluster_size: server.cluster_size,
            local_history: server.local_history.map(history),
            local_state: server.local_state,
            local_state_comment: server.local_state_comment,
            last_committed: number(server.last_committed),
            ready: server.ready,
            connected: server.connected,
            local_index: server.local_index,
            incoming_addresses: server.incoming_addresses,
            gcomm_uuid: member(server.member),
            evs_state: server.evs_state,
            provider_version: server.provider_version,
            protocol_version: server.protocol_version,
            desync_count: server.desync_count,
            cached_down_to: number(server.cached_down_to),
            flow_control_paused_ppm: server.paused_ppm,
            flow_control_paused_ns: server.paused_ns,
            flow_control_sent: server.flow_control_sent,
            flow_control_received: server.flow_control_received,
            flow_control_active: server.flow_control_active,
            recv_queue: server.recv_queue,
            send_queue: server.send_queue,
            cert_failures: server.cert_failures,
            bf_aborts: server.bf_aborts,
            read_only: server.read_only,
            uptime_s: server.uptime_s,
            cluster_name: server.cluster_name,
            node_name: server.node_name,
            sst_method: server.sst_method,
            flush_log_at_commit: server.flush_log_at_commit,
        }
    }
}
