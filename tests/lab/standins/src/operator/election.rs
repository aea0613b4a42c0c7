//! Who leads: the order in which the operator gives up early, and whom it elects. Pure.

use crate::cnpg::{InstanceReport, names};
use std::cmp::Reverse;

/// An instance as the operator sees it: its pod (not being deleted) and what it reports.
#[derive(Clone, Debug, Default)]
pub struct Candidate {
    /// Instance and pod name.
    pub name: String,
    /// The kubelet says Ready.
    pub ready: bool,
    /// The answer of `/pg/status`; none = an error.
    pub report: Option<InstanceReport>,
    /// The manager left with code 4.
    pub no_space: bool,
}

impl Candidate {
    fn is_primary(&self) -> bool {
        self.report.as_ref().is_some_and(|report| report.is_primary)
    }

    fn receives(&self) -> bool {
        self.report
            .as_ref()
            .is_some_and(|report| report.is_wal_receiver_active)
    }
}

/// The roles as the Cluster's status has them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Roles<'a> {
    /// `status.currentPrimary`.
    pub current: Option<&'a str>,
    /// `status.targetPrimary`.
    pub target: Option<&'a str>,
}

/// What follows from the roles and the reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The primary is the target and healthy, or nothing can be done about it; other work may go on.
    Proceed,
    /// A switchover runs.
    AwaitSwitchover,
    /// The target has no active pod: `targetPrimary` goes back.
    RevertTarget,
    /// More than one instance reports to be a primary.
    AwaitOldPrimary,
    /// No Ready pod answers.
    CommunicationIssue,
    /// A manager left for lack of disk space: no failover at all.
    NoSpace,
    /// The first instance answers, its pod is not Ready. A fenced primary stops everything here.
    AwaitReadiness(String),
    /// The primary's pod is Ready, its status fails.
    PrimaryStatusFails,
    /// Another instance sorts first: the failover begins (`pending`).
    StartFailover,
    /// WAL still arrives somewhere.
    AwaitReceivers,
    /// The winner.
    Elect(String),
}

/// The operator's order: errors last, primaries first, received position, replayed position, name. Timelines do not
/// count, and a fenced instance is no error.
pub fn sort(candidates: &mut [Candidate]) {
    candidates.sort_by_key(|candidate| {
        let report = candidate.report.clone().unwrap_or_default();
        (
            candidate.report.is_none(),
            !candidate.is_primary(),
            Reverse(report.received_lsn),
            Reverse(report.replay_lsn),
            candidate.name.clone(),
        )
    });
}

/// Decides; `candidates` must be sorted.
#[must_use]
pub fn decide(roles: Roles<'_>, candidates: &[Candidate]) -> Decision {
    let pending = roles.target == Some(names::PENDING);
    if let (Some(current), Some(target)) = (roles.current, roles.target)
        && current != target
        && !pending
    {
        return if candidates.iter().any(|candidate| candidate.name == target) {
            Decision::AwaitSwitchover
        } else {
            Decision::RevertTarget
        };
    }
    if candidates
        .iter()
        .filter(|candidate| candidate.is_primary())
        .count()
        > 1
    {
        return Decision::AwaitOldPrimary;
    }
    let mut ready = candidates.iter().filter(|candidate| candidate.ready).peekable();
    if ready.peek().is_some() && ready.all(|candidate| candidate.report.is_none()) {
        return Decision::CommunicationIssue;
    }
    if candidates.iter().any(|candidate| candidate.no_space) {
        return Decision::NoSpace;
    }
    let Some(first) = candidates.first() else {
        return Decision::Proceed;
    };
    if first.report.is_some() && !first.ready {
        return Decision::AwaitReadiness(first.name.clone());
    }
    let primary = candidates
        .iter()
        .find(|candidate| roles.current == Some(&candidate.name));
    if primary.is_some_and(|primary| primary.ready && primary.report.is_none()) {
        return Decision::PrimaryStatusFails;
    }
    if first.report.is_none() || roles.current.is_none() {
        return Decision::Proceed;
    }
    if pending {
        let receiving = candidates
            .iter()
            .any(|candidate| !candidate.is_primary() && candidate.receives());
        return if receiving {
            Decision::AwaitReceivers
        } else {
            Decision::Elect(first.name.clone())
        };
    }
    if roles.target == Some(&first.name) {
        Decision::Proceed
    } else {
        Decision::StartFailover
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cnpg::Lsn;

    fn replica(name: &str, received: u64, replayed: u64) -> Candidate {
        Candidate {
            name: name.to_owned(),
            ready: true,
            report: Some(InstanceReport {
                received_lsn: Lsn(received),
                replay_lsn: Lsn(replayed),
                ..InstanceReport::default()
            }),
            no_space: false,
        }
    }

    fn primary(name: &str) -> Candidate {
        let mut candidate = replica(name, 0, 0);
        candidate.report.as_mut().unwrap().is_primary = true;
        candidate
    }

    fn broken(name: &str) -> Candidate {
        Candidate {
            name: name.to_owned(),
            ..Candidate::default()
        }
    }

    fn fenced(name: &str) -> Candidate {
        let mut candidate = replica(name, 0, 0);
        candidate.ready = false;
        candidate.report.as_mut().unwrap().might_be_unavailable = true;
        candidate
    }

    fn decided(current: &str, target: &str, mut candidates: Vec<Candidate>) -> Decision {
        sort(&mut candidates);
        decide(
            Roles {
                current: Some(current),
                target: Some(target),
            },
            &candidates,
        )
    }

    #[test]
    fn order() {
        let mut all = vec![
            broken("c-0"),
            replica("c-4", 9, 9),
            replica("c-3", 9, 9),
            replica("c-2", 10, 1),
            primary("c-9"),
        ];
        sort(&mut all);
        let names: Vec<&str> = all.iter().map(|candidate| candidate.name.as_str()).collect();
        assert_eq!(names, ["c-9", "c-2", "c-3", "c-4", "c-0"]);
    }

    #[test]
    fn timelines_do_not_count() {
        let mut ahead_on_a_dead_branch = replica("c-2", 20, 20);
        ahead_on_a_dead_branch.report.as_mut().unwrap().timeline_id = 1;
        let mut on_the_right_one = replica("c-3", 10, 10);
        on_the_right_one.report.as_mut().unwrap().timeline_id = 2;
        assert_eq!(
            decided("c-1", "pending", vec![on_the_right_one, ahead_on_a_dead_branch]),
            Decision::Elect("c-2".to_owned())
        );
    }

    #[test]
    fn a_lost_primary_is_replaced_after_the_receivers_are_down() {
        let mut receiving = replica("c-2", 5, 5);
        receiving.report.as_mut().unwrap().is_wal_receiver_active = true;
        assert_eq!(
            decided("c-1", "c-1", vec![broken("c-1"), receiving.clone()]),
            Decision::StartFailover
        );
        assert_eq!(
            decided("c-1", "pending", vec![broken("c-1"), receiving]),
            Decision::AwaitReceivers
        );
        assert_eq!(
            decided("c-1", "pending", vec![broken("c-1"), replica("c-2", 5, 5)]),
            Decision::Elect("c-2".to_owned())
        );
    }

    #[test]
    fn a_ready_primary_with_a_failing_status_is_kept() {
        let mut primary = broken("c-1");
        primary.ready = true;
        assert_eq!(
            decided("c-1", "c-1", vec![primary, replica("c-2", 5, 5)]),
            Decision::PrimaryStatusFails
        );
    }

    #[test]
    fn a_fenced_primary_stops_everything() {
        let mut primary = fenced("c-1");
        primary.report.as_mut().unwrap().is_primary = true;
        assert_eq!(
            decided("c-1", "c-1", vec![primary, replica("c-2", 5, 5)]),
            Decision::AwaitReadiness("c-1".to_owned())
        );
    }

    #[test]
    fn a_fenced_replica_blocks_or_wins() {
        assert_eq!(
            decided("c-1", "c-1", vec![broken("c-1"), fenced("c-2")]),
            Decision::AwaitReadiness("c-2".to_owned()),
            "blocked by the readiness guard"
        );
        let mut just_fenced = fenced("c-2");
        just_fenced.ready = true;
        assert_eq!(
            decided("c-1", "pending", vec![broken("c-1"), just_fenced]),
            Decision::Elect("c-2".to_owned()),
            "not excluded from the election"
        );
    }

    #[test]
    fn a_full_disk_forbids_failover() {
        let mut full = broken("c-1");
        full.no_space = true;
        assert_eq!(
            decided("c-1", "c-1", vec![full, replica("c-2", 5, 5)]),
            Decision::NoSpace
        );
    }

    #[test]
    fn two_primaries_are_waited_for() {
        assert_eq!(
            decided("c-1", "c-1", vec![primary("c-1"), primary("c-2")]),
            Decision::AwaitOldPrimary
        );
    }

    #[test]
    fn switchover() {
        let all = vec![primary("c-1"), replica("c-2", 5, 5)];
        assert_eq!(decided("c-1", "c-2", all.clone()), Decision::AwaitSwitchover);
        assert_eq!(decided("c-1", "c-3", all.clone()), Decision::RevertTarget);
        assert_eq!(decided("c-1", "c-1", all), Decision::Proceed);
    }

    #[test]
    fn nobody_answers() {
        let mut a = broken("c-1");
        a.ready = true;
        assert_eq!(decided("c-1", "c-1", vec![a]), Decision::CommunicationIssue);
        assert_eq!(decided("c-1", "c-1", vec![broken("c-1")]), Decision::Proceed);
        assert_eq!(decided("c-1", "c-1", vec![]), Decision::Proceed);
    }
}
