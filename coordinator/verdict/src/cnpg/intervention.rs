//! Starting, rewinding, replacing: what each of them needs to be offered at all.

use hasteward_proto::primitive::Lsn;

use super::action::{Conduct, conduct};
use super::case::{Case, Member};
use super::relation::{self, Parted};
use super::subject::{STARTING_MS, Subject};
use super::supply;
use crate::evidence::cnpg::ClusterState;
use crate::report::Action;

/// Off the primary's history without a commit of its own: promoted, or a former primary that does not come back.
pub(super) fn off_timeline(case: &Case<'_>, member: &Member<'_>, parted: Option<&Parted>) -> Conduct {
    let subject = &member.subject;
    let reason = match parted {
        Some(Parted {
            fork: Some(fork),
            left: true,
            ..
        }) => format!("it was promoted at {fork} and committed nothing since"),
        Some(Parted { fork: Some(fork), .. }) => {
            format!("it has WAL past the fork at {fork}, and no commit in it")
        }
        _ => "it ran as a primary, is not one any more, and did not come back as a replica".to_owned(),
    };
    // A standby that runs finds its way onto the new timeline by itself, once its receiver is connected again.
    let still = supply::stands_still(subject.ev.standing_since, case.ev.collected_at, STARTING_MS);
    if subject.running() == Some(true) && !subject.writes() && !subject.stopped() && !still {
        return conduct(Action::Wait, reason).because("it runs, and has not stood still for long enough");
    }
    let fork = parted
        .and_then(|parted| parted.fork)
        .or_else(|| subject.position.map(|position| position.lsn));
    if fork.is_some_and(|fork| rewindable(subject, fork)) {
        return destroy(case, member, Action::Rewind, reason)
            .because("its WAL reaches back to its last checkpoint before the fork");
    }
    destroy(case, member, Action::Reseed, reason).because("a rewind is not proven to be possible")
}

/// `pg_rewind` needs hint bits in WAL or checksums, an orderly shutdown (a running server can be shut down), and WAL back to
/// the last checkpoint before the fork. The control file's own checkpoint is that one only if it lies before the fork.
fn rewindable(subject: &Subject<'_>, fork: Lsn) -> bool {
    let (Some(control), Some(wal)) = (subject.ev.disk.control.value(), subject.ev.disk.wal.value()) else {
        return false;
    };
    let orderly = subject.server().is_some()
        || matches!(
            control.state,
            ClusterState::ShutDown | ClusterState::ShutDownInRecovery
        );
    let reaches = wal.oldest.is_some_and(|(oldest, _)| oldest <= control.redo);
    (control.wal_log_hints || control.data_checksums)
        && orderly
        && control.checkpoint <= fork
        && control.redo <= fork
        && reaches
}

/// Something that erases data needs a primary that serves, so that there is a copy to put in its place.
pub(super) fn destroy(
    case: &Case<'_>,
    member: &Member<'_>,
    action: Action,
    reason: impl Into<String>,
) -> Conduct {
    if let Some(((timeline, at), _)) = relation::abandoned(&member.subject) {
        return conduct(
            Action::Blocked,
            format!(
                "its pg_wal holds WAL of timeline {timeline} past {at} that may hold commits nobody else has"
            ),
        )
        .because(reason);
    }
    match case.donor() {
        Some(_) => conduct(action, reason),
        None => conduct(Action::Blocked, reason)
            .because("the primary does not serve, so there is no healthy donor"),
    }
}

/// A replica that is started again needs a primary to follow; and while none serves, the operator may be choosing one.
pub(super) fn restart(case: &Case<'_>, reason: impl Into<String>) -> Conduct {
    match case.donor() {
        Some(_) => conduct(Action::Restart, reason),
        None => conduct(Action::Wait, "the primary does not serve").because(reason),
    }
}
