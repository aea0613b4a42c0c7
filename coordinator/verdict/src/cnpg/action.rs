//! What to do with each instance, and why.

use super::case::{Case, Member};
use super::intervention::{destroy, off_timeline, restart};
use super::relation::{Nothing, Relation};
use super::subject::{Life, STARTING_MS, Subject};
use super::supply::{self, ARCHIVE_STALL_MS, Supply};
use super::{position, room};
use crate::evidence::cnpg::{AgentPresence, ContainerState};
use crate::report::{Action, Verdict, VerdictKind};

/// A decision about one instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Conduct {
    pub(crate) action: Action,
    /// Most important first.
    pub(crate) reasons: Vec<String>,
}

pub(super) fn conduct(action: Action, reason: impl Into<String>) -> Conduct {
    Conduct {
        action,
        reasons: vec![reason.into()],
    }
}

impl Conduct {
    pub(super) fn because(mut self, reason: impl Into<String>) -> Self {
        self.reasons.push(reason.into());
        self
    }
}

/// Decide about one instance.
pub(crate) fn decide(case: &Case<'_>, verdict: &Verdict, member: &Member<'_>) -> Conduct {
    if case.resource.is_some_and(|resource| resource.hibernation) {
        return conduct(Action::None, "the cluster hibernates");
    }
    if case.transition().is_some() {
        return in_transition(case, member);
    }
    match verdict.kind {
        VerdictKind::Provable if member.subject.is_primary => primary(case, member),
        VerdictKind::Provable => replica(case, member),
        VerdictKind::LeaderNotPrimary | VerdictKind::Diverged | VerdictKind::Undeterminable => {
            unsafe_to_heal(case, verdict, member)
        }
    }
}

/// Roles are moving: the operator is at work, and every instance may be something else in a second.
fn in_transition(case: &Case<'_>, member: &Member<'_>) -> Conduct {
    if follows(case, member) {
        conduct(Action::None, "it streams")
    } else {
        conduct(
            Action::Wait,
            "the operator is moving roles; decide when it has finished",
        )
    }
}

/// Without a proven authority nothing is touched; what works is left alone.
fn unsafe_to_heal(case: &Case<'_>, verdict: &Verdict, member: &Member<'_>) -> Conduct {
    let subject = &member.subject;
    if verdict.authority.as_ref() == Some(subject.name()) {
        return conduct(
            Action::Blocked,
            "it holds the data that counts and is not the primary: a human decides",
        );
    }
    if let Relation::Parted(parted) = member.relation
        && parted.own.may_hold()
    {
        return conduct(Action::Blocked, "it may hold commits that no other instance has");
    }
    if let Relation::Foreign(id) = member.relation {
        return conduct(Action::Blocked, format!("it holds data of another system ({id})"));
    }
    if subject.is_primary && serves_as_primary(case, subject) {
        return match verdict.kind {
            VerdictKind::Undeterminable => conduct(Action::None, "it serves as the primary"),
            _ => conduct(
                Action::Blocked,
                "histories parted: a human decides which one survives",
            ),
        };
    }
    if follows(case, member) {
        return conduct(Action::None, "it streams from the primary");
    }
    if subject.fenced && subject.running() == Some(false) && matches!(member.relation, Relation::Contained) {
        return conduct(Action::None, "it is fenced, and that is respected");
    }
    if matches!(member.relation, Relation::Nothing(Nothing::Joining)) {
        return conduct(Action::Wait, "it is being cloned for the first time");
    }
    if matches!(subject.life, Life::Starting) {
        return conduct(Action::Wait, "it is starting");
    }
    match &member.relation {
        Relation::Unread(why) => conduct(
            Action::Blocked,
            format!("it could not be placed in history: {why}"),
        ),
        _ => conduct(
            Action::Blocked,
            "no authority is proven, so nothing is done to any instance",
        ),
    }
}

fn primary(case: &Case<'_>, member: &Member<'_>) -> Conduct {
    let subject = &member.subject;
    if let Some(full) = room::wal_full(subject) {
        return conduct(Action::Blocked, format!("its {} volume, which holds pg_wal, is full", room::volume_name(&full.role)))
            .because("more room or less retained WAL is for a human to arrange; nothing in pg_wal may be deleted by hand");
    }
    if serves_as_primary(case, subject) {
        return conduct(Action::None, "it serves as the primary");
    }
    if subject.fenced {
        return conduct(Action::None, "it is fenced, and that is respected");
    }
    match subject.life {
        Life::Serving if young(case, subject) => conduct(Action::Wait, "it is the primary and still in recovery"),
        Life::Serving => conduct(Action::Blocked, "it is the primary and stays in recovery"),
        Life::Starting => conduct(Action::Wait, "it is starting"),
        Life::Slow => conduct(Action::Wait, "its server did not answer in time, once"),
        _ => conduct(Action::Blocked, "the primary does not serve")
            .because("a primary has no standby.signal: if a failover happens first, its start path rewinds it, so starting it again is no harmless act"),
    }
}

fn replica(case: &Case<'_>, member: &Member<'_>) -> Conduct {
    let subject = &member.subject;
    if subject.fenced {
        let sound = !subject.writes()
            && matches!(
                member.relation,
                Relation::Contained | Relation::SeenByPrimary(_) | Relation::Remembered(_)
            );
        return if sound {
            conduct(Action::None, "it is fenced, and that is respected")
                .because("the primary holds everything of it")
        } else {
            conduct(
                Action::Blocked,
                "it needs work and somebody fenced it: that is respected",
            )
        };
    }
    match &member.relation {
        Relation::Nothing(Nothing::VolumeGone(proof)) => {
            return destroy(
                case,
                member,
                Action::Recreate,
                format!("its volume is gone: {proof}"),
            );
        }
        Relation::Nothing(Nothing::Joining) => {
            return conduct(Action::Wait, "it is being cloned for the first time");
        }
        _ => {}
    }
    if let Some(tool) = subject
        .ev
        .disk
        .processes
        .value()
        .and_then(|processes| processes.tools.first())
    {
        return conduct(Action::Wait, format!("{tool} is at work in it"));
    }
    if subject.node_down() {
        return conduct(Action::Wait, "its node is not ready");
    }
    if follows(case, member) {
        return conduct(Action::None, "it streams from the primary");
    }
    if paused(member) {
        return conduct(Action::None, "its replay is paused, and that is respected")
            .because("the primary holds everything of it");
    }
    let supply = supply::of(case, member);
    if let Some(done) = settled(case, member, &supply) {
        return done;
    }
    if subject.life == Life::Starting {
        return conduct(Action::Wait, "it is starting").because("the primary holds everything of it");
    }
    match (&member.relation, &supply) {
        (Relation::Parted(parted), _) => return off_timeline(case, member, Some(parted)),
        // Right after a first clone the server refuses everybody (57P03) while it replays the backup it was made from.
        (Relation::Nothing(Nothing::Unfinished(_)), _)
            if subject.server().is_none() && subject.running() != Some(false) && !subject.stopped() =>
        {
            return conduct(
                Action::Wait,
                "it is not known to be down: it may be replaying its base backup",
            );
        }
        (Relation::Nothing(Nothing::Unfinished(why)), _) if subject.running() == Some(false) => {
            return destroy(
                case,
                member,
                Action::Reseed,
                format!("it is an unfinished base backup: {why}"),
            );
        }
        (Relation::Nothing(Nothing::Empty), _) if subject.running() == Some(true) => {
            return conduct(Action::Wait, "its PGDATA is empty, and a server runs");
        }
        (Relation::Nothing(Nothing::Empty), _) => {
            return destroy(case, member, Action::Reseed, "its PGDATA is empty");
        }
        (Relation::SeenByPrimary(_) | Relation::Remembered(_), _) => return unreadable(member),
        (_, Supply::CatchingUp) => return conduct(Action::Wait, "the primary sends it what it missed"),
        _ => {}
    }
    if let Some(full) = room::wal_full(subject) {
        return conduct(
            Action::Blocked,
            format!(
                "its {} volume, which holds pg_wal, is full",
                room::volume_name(&full.role)
            ),
        )
        .because("starting it again on a full volume ends the same way");
    }
    awake_or_down(case, member)
}

/// Its replay is paused, and nothing else is wrong with its history.
pub(crate) fn paused(member: &Member<'_>) -> bool {
    let server = member.subject.server();
    server.is_some_and(|server| server.in_recovery && server.replay_paused)
        && member.relation == Relation::Contained
}

/// What no waiting changes.
fn settled(case: &Case<'_>, member: &Member<'_>, supply: &Supply) -> Option<Conduct> {
    let subject = &member.subject;
    if subject.writes() {
        let parted = member.parted();
        return Some(off_timeline(case, member, parted.as_ref()));
    }
    // Its end must have been read: where it was seen once is no proof that erasing it loses nothing.
    let known = member.relation == Relation::Contained;
    if subject.control_corrupt() && subject.running() != Some(true) && known {
        return Some(
            destroy(
                case,
                member,
                Action::Reseed,
                "its control file is not readable, so its server cannot start",
            )
            .because("the primary holds everything of it"),
        );
    }
    let Supply::Gone {
        needed,
        oldest,
        archived,
    } = supply
    else {
        return None;
    };
    if member.relation != Relation::Contained {
        return None;
    }
    let reason = format!(
        "it needs WAL from {needed} on; the primary's oldest is {oldest}, and no slot of it holds more"
    );
    let now = case.ev.collected_at;
    let still = supply::stands_still(subject.ev.standing_since, now, ARCHIVE_STALL_MS);
    match (archived, subject.recovers()) {
        (false, _) => Some(
            destroy(case, member, Action::Reseed, reason)
                .because("no archive is configured that could serve it"),
        ),
        (true, true) if still => Some(
            destroy(case, member, Action::Reseed, reason)
                .because("the archive does not serve it either: it runs and stands still"),
        ),
        (true, true) => Some(conduct(Action::Wait, reason).because("the archive may still serve it")),
        // Not running: only a start can show whether the archive serves it.
        (true, false) => None,
    }
}

/// Seen by others as a follower, but its own files were not read.
fn unreadable(member: &Member<'_>) -> Conduct {
    let subject = &member.subject;
    let seen = "it was seen following the primary";
    match subject.life {
        Life::CrashLooping | Life::Down | Life::Stuck | Life::Hung => {
            conduct(Action::Blocked, "it is not well, and its files could not be read").because(seen)
        }
        Life::NoPod => conduct(Action::Wait, "it has no pod; the operator makes one").because(seen),
        Life::Serving => conduct(Action::Wait, "it runs and does not stream (yet)").because(seen),
        _ if agent(subject) == Some(AgentPresence::Connected) => {
            conduct(Action::Wait, "its server could not be asked").because(seen)
        }
        _ => conduct(Action::Wait, "nothing can be read on its node").because(seen),
    }
}

fn awake_or_down(case: &Case<'_>, member: &Member<'_>) -> Conduct {
    let subject = &member.subject;
    let intact =
        "the primary holds everything of it, and standby.signal is there: starting it again erases nothing";
    match subject.life {
        Life::Serving => {
            let still = supply::stands_still(subject.ev.standing_since, case.ev.collected_at, STARTING_MS);
            if still && subject.standby_signal() == Some(true) {
                restart(case, "it runs, does not stream and stands still").because(intact)
            } else {
                conduct(Action::Wait, "it runs and does not stream (yet)")
            }
        }
        Life::Running => conduct(Action::Wait, "its server runs and could not be asked"),
        Life::Slow => conduct(Action::Wait, "its server did not answer in time, once"),
        Life::Starting => conduct(Action::Wait, "it is starting"),
        Life::NoPod => conduct(Action::Wait, "it has no pod; the operator makes one"),
        Life::Stuck => conduct(
            Action::Blocked,
            format!("its pod cannot start: {}", stuck(subject)),
        ),
        Life::Unknown => conduct(Action::Blocked, "whether its server runs could not be read"),
        Life::Hung | Life::CrashLooping | Life::Down => match subject.standby_signal() {
            Some(true) => restart(case, ailment(subject)).because(intact),
            Some(false) => off_timeline(case, member, None),
            None => conduct(Action::Blocked, ailment(subject))
                .because("whether standby.signal is there is not known, so a start might rewind it"),
        },
    }
}

fn ailment(subject: &Subject<'_>) -> String {
    match subject.life {
        Life::Hung => "its server exists and does not answer".to_owned(),
        Life::CrashLooping => "its server dies whenever it is started".to_owned(),
        _ => "its server does not run".to_owned(),
    }
}

/// Why a pod cannot start.
pub(crate) fn stuck(subject: &Subject<'_>) -> String {
    let Some(pod) = subject.ev.pod.value() else {
        return "there is none".to_owned();
    };
    if pod.terminating {
        return "it was deleted and does not end".to_owned();
    }
    match (&pod.unschedulable, &pod.container) {
        (Some(why), _) => why.clone(),
        (None, ContainerState::Waiting { reason, .. }) => reason.clone(),
        (None, _) => "the kubelet has not started it".to_owned(),
    }
}

/// It follows the primary right now, and nothing of its own says otherwise.
pub(crate) fn follows(case: &Case<'_>, member: &Member<'_>) -> bool {
    let subject = &member.subject;
    // The primary keeps its row until a timeout, also of a server that is stopped or dead by now.
    if subject.writes()
        || subject.is_primary
        || subject.life == Life::Hung
        || subject.running() == Some(false)
    {
        return false;
    }
    match &member.relation {
        Relation::SeenByPrimary(_) => true,
        Relation::Contained | Relation::Nothing(Nothing::Unfinished(_)) => {
            supply::of(case, member) == Supply::Streaming
        }
        Relation::Uncompared => member.subject.receives(),
        Relation::Unread(_) => member.subject.recovers() && member.subject.receives(),
        _ => false,
    }
}

/// Its server answers and does what the cluster's primary does.
pub(crate) fn serves_as_primary(case: &Case<'_>, subject: &Subject<'_>) -> bool {
    let replica = case.resource.is_some_and(|resource| resource.replica_cluster);
    subject.writes() || (replica && subject.recovers())
}

/// Its container runs for less than five minutes.
pub(crate) fn young(case: &Case<'_>, subject: &Subject<'_>) -> bool {
    let since = subject.ev.pod.value().and_then(|pod| match pod.container {
        ContainerState::Running { since } => Some(since),
        _ => None,
    });
    since.is_some_and(|since| case.ev.collected_at.millis_since(since) < STARTING_MS)
}

/// The agent of its node; `None` = the node is not known.
pub(crate) fn agent(subject: &Subject<'_>) -> Option<AgentPresence> {
    subject.ev.node.value().map(|node| node.agent)
}

/// One or two words for the table.
pub(crate) fn state(case: &Case<'_>, member: &Member<'_>) -> String {
    let subject = &member.subject;
    let replica_cluster = case.resource.is_some_and(|resource| resource.replica_cluster);
    let word = match subject.life {
        Life::Serving if subject.is_primary && subject.writes() => "primary",
        Life::Serving if subject.is_primary && replica_cluster => "designated primary",
        Life::Serving if subject.is_primary => "in recovery",
        Life::Serving if subject.writes() => "promoted",
        Life::Serving => match supply::of(case, member) {
            Supply::Streaming => "streaming",
            Supply::CatchingUp => "catching up",
            _ => "not streaming",
        },
        Life::Hung => "server hung",
        Life::Slow => "slow",
        _ if case.resource.is_some_and(|resource| resource.hibernation) => "hibernated",
        _ if matches!(member.relation, Relation::SeenByPrimary(_)) => "streaming",
        _ if matches!(member.relation, Relation::Nothing(Nothing::VolumeGone(_))) => "volume gone",
        _ if matches!(member.relation, Relation::Nothing(Nothing::Joining)) => "joining",
        _ if subject.node_down() => "unreachable",
        _ if agent(subject).is_some_and(|agent| agent != AgentPresence::Connected) => "unreachable",
        Life::CrashLooping => "crash-looping",
        _ if subject.fenced => "fenced",
        Life::Starting => "starting",
        Life::Running => "running",
        Life::Down => "down",
        Life::Stuck => "stuck",
        Life::NoPod => "no pod",
        Life::Unknown => "unknown",
    };
    word.to_owned()
}

/// Kept here so that a report names positions in one way.
pub(crate) fn source(position: &position::Position) -> String {
    if matches!(position.source, position::Source::ControlFile) && !position.exact {
        "at least, control file".to_owned()
    } else {
        position.source.text().to_owned()
    }
}
