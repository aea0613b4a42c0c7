//! [`Supply`]: whether a replica can still get the WAL that it needs next.

use hasteward_proto::primitive::{Lsn, UnixMillis};

use super::case::{Case, Member};
use crate::evidence::cnpg::{ControlFile, SlotWal, StandbyState};

/// A server that works moves or answers within this time; CNPG's own stall verdict uses the same.
pub(crate) const STALL_MS: u64 = 60 * 1000;
/// A replica that archive recovery feeds moves within this time, also where a segment must be fetched from a slow store and
/// `restore_command` is tried again after failures. What follows erases it, so this is generous.
pub(crate) const ARCHIVE_STALL_MS: u64 = 15 * 60 * 1000;

/// Where the next WAL of a replica comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Supply {
    /// The primary sends it.
    Streaming,
    /// The primary sends what was missed.
    CatchingUp,
    /// The primary has it.
    Kept,
    /// The primary proves that it has it no longer.
    Gone {
        needed: Lsn,
        oldest: Lsn,
        /// An archive is configured and may still have it.
        archived: bool,
    },
    /// Not known.
    Unknown(String),
}

/// The state of the primary's row for an instance: `application_name` is the instance's name under CNPG.
pub(crate) fn row(case: &Case<'_>, member: &Member<'_>) -> Option<StandbyState> {
    let donor = case.donor()?;
    let rows = &donor.subject.server()?.standbys;
    let own = rows
        .iter()
        .filter(|row| row.application_name == member.subject.name().as_str());
    own.map(|row| row.state).max_by_key(|state| match state {
        StandbyState::Streaming => 3,
        StandbyState::Catchup => 2,
        StandbyState::Startup => 1,
        StandbyState::Other => 0,
    })
}

/// Where the next WAL of `member` comes from.
///
/// That the WAL is gone takes a proof: the segment that it needs next lies before the oldest segment that is really on the
/// primary, and no slot of exactly this instance's name holds it. An answer that is missing proves nothing.
///
/// An archive is a second source. `archive_mode = on` is no evidence of one (without a configured archive CNPG's
/// `archive_command` succeeds and keeps nothing), and a failing archiver is no evidence against one (what was archived
/// before it failed is still there). So where an archive is configured, only a replica that runs and stands still shows
/// that the archive does not serve it either; see [`stands_still`].
pub(crate) fn of(case: &Case<'_>, member: &Member<'_>) -> Supply {
    match row(case, member) {
        Some(StandbyState::Streaming) => return Supply::Streaming,
        Some(StandbyState::Catchup | StandbyState::Startup) => return Supply::CatchingUp,
        Some(StandbyState::Other) | None => {}
    }
    if member.subject.receives() {
        return Supply::Streaming;
    }
    proof(case, member).unwrap_or_else(Supply::Unknown)
}

fn proof(case: &Case<'_>, member: &Member<'_>) -> Result<Supply, String> {
    let primary = case
        .primary()
        .filter(|primary| !primary.subject.name().eq(member.subject.name()));
    let primary = primary.ok_or("there is no primary to ask")?;
    let position = member
        .subject
        .position
        .filter(|position| position.exact)
        .ok_or("its position is not known")?;
    let wal = primary
        .subject
        .ev
        .disk
        .wal
        .value()
        .ok_or("the primary's WAL directory was not read")?;
    let (oldest, _) = wal.oldest.ok_or("the primary's oldest segment is not known")?;
    let size = [member, primary]
        .into_iter()
        .find_map(|one| {
            one.subject
                .ev
                .disk
                .control
                .value()
                .map(|control: &ControlFile| control.wal_segment_size)
        })
        .filter(|&size| size > 0)
        .ok_or("the WAL segment size is not known")?;
    let needed = position.lsn.segment(size);
    if needed >= oldest.segment(size) {
        return Ok(Supply::Kept);
    }
    if held(primary, &member.subject.name().cnpg_slot_name(), needed, size)? {
        return Err("the primary's oldest segment and its slot contradict each other".to_owned());
    }
    let configured = case.resource.is_some_and(|resource| resource.wal_archive);
    let off = primary
        .subject
        .server()
        .is_some_and(|server| !server.archive_enabled);
    Ok(Supply::Gone {
        needed: position.lsn,
        oldest,
        archived: configured && !off,
    })
}

/// Whether a slot of exactly this name reserves the segment.
fn held(primary: &Member<'_>, name: &str, needed: u64, size: u32) -> Result<bool, String> {
    let reserves = |restart: Option<Lsn>| restart.is_some_and(|restart| restart.segment(size) <= needed);
    if let Some(server) = primary.subject.server() {
        let alive = |status| matches!(status, SlotWal::Kept | SlotWal::Unreserved);
        return Ok(server
            .slots
            .iter()
            .any(|slot| slot.name == name && alive(slot.wal_status) && reserves(slot.restart)));
    }
    let slots = primary
        .subject
        .ev
        .disk
        .slots
        .value()
        .ok_or("the primary's slots were not read")?;
    let mut own = slots.iter().filter(|slot| slot.name == name);
    match own.next() {
        None => Ok(false),
        Some(slot) => {
            let state = slot
                .state
                .value()
                .ok_or_else(|| format!("slot {name} was not read"))?;
            Ok(reserves(state.restart))
        }
    }
}

/// The coordinator has seen it at one position for at least `millis`.
pub(crate) fn stands_still(since: Option<UnixMillis>, now: UnixMillis, millis: u64) -> bool {
    since.is_some_and(|since| now.millis_since(since) >= millis)
}
