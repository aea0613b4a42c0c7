//! Who holds the data that counts.

use hasteward_proto::primitive::Lsn;

use super::case::{Case, Member, Transition, resource_gap};
use super::relation::{self, Parted, Reader, Relation};
use crate::report::{Branch, Verdict, VerdictKind};

/// Judge a case.
pub(crate) fn judge(case: &Case<'_>) -> Verdict {
    if let Some(gap) = resource_gap(case.ev) {
        return undeterminable(vec![gap]);
    }
    if let Some(transition) = case.transition() {
        return undeterminable(vec![moving(transition)]);
    }
    let foreign = foreign(case);
    if !foreign.is_empty() {
        return undeterminable(foreign);
    }
    let blockers = blockers(case);
    match case.primary_reader() {
        Some(primary) => with_primary(case, &primary, blockers),
        None => without_primary(case, blockers),
    }
}

fn moving(transition: Transition<'_>) -> String {
    match transition {
        Transition::FailoverPending => {
            "a failover is pending: the operator waits for the WAL receivers to go down".to_owned()
        }
        Transition::Handover(target) => format!("the role of primary is on its way to {target}"),
        Transition::Moved => "roles or the timeline changed while the instances were read, or that they did not was not confirmed".to_owned(),
        Transition::MajorUpgrade => "a major upgrade of PostgreSQL is in progress".to_owned(),
    }
}

/// Another system's data is never compared: which of the two is the cluster is for a human to say.
fn foreign(case: &Case<'_>) -> Vec<String> {
    let name = |member: &Member<'_>| match member.relation {
        Relation::Foreign(id) => Some(format!(
            "{} holds data of another system ({id})",
            member.subject.name()
        )),
        _ => None,
    };
    case.members.iter().filter_map(name).collect()
}

fn blockers(case: &Case<'_>) -> Vec<String> {
    let unread = |member: &Member<'_>| match &member.relation {
        Relation::Unread(why) => Some(format!("{} could not be placed: {why}", member.subject.name())),
        _ => None,
    };
    let mut all: Vec<_> = case.members.iter().filter_map(unread).collect();
    let missing = |name: &&hasteward_proto::primitive::InstanceName| case.member(name).is_none();
    let named = case
        .resource
        .map(|resource| resource.instance_names.as_slice())
        .unwrap_or_default();
    all.extend(
        named
            .iter()
            .filter(missing)
            .map(|name| format!("{name} is named by the cluster's status and was not looked at")),
    );
    all
}

fn with_primary(case: &Case<'_>, primary: &Reader<'_>, blockers: Vec<String>) -> Verdict {
    let rivals: Vec<(&Member<'_>, Parted)> = case
        .members
        .iter()
        .filter_map(|member| member.parted().map(|parted| (member, parted)))
        .filter(|(_, parted)| parted.own.may_hold())
        .collect();
    let branches = branches(case, primary);
    if rivals.is_empty() {
        return if blockers.is_empty() {
            let mut reasons = vec![standing(primary)];
            reasons.extend(case.members.iter().filter_map(following));
            Verdict {
                kind: VerdictKind::Provable,
                authority: Some(primary.subject.name().clone()),
                reasons,
                fork: None,
                branches,
            }
        } else {
            Verdict {
                branches,
                ..undeterminable(blockers)
            }
        };
    }
    let fork = rivals.iter().filter_map(|(_, parted)| parted.fork).min();
    let held = rivals.iter().any(|(_, parted)| parted.other.may_hold());
    let leader = if held {
        None
    } else {
        leader(rivals.iter().map(|(member, _)| *member))
    };
    let mut reasons: Vec<_> = rivals
        .iter()
        .map(|(member, parted)| rivalry(member, parted, primary))
        .collect();
    match leader {
        Some(_) if !blockers.is_empty() => Verdict {
            branches,
            ..undeterminable([blockers, reasons].concat())
        },
        Some(member) => Verdict {
            kind: VerdictKind::LeaderNotPrimary,
            authority: Some(member.subject.name().clone()),
            reasons,
            fork,
            branches,
        },
        None => {
            reasons.extend(blockers);
            Verdict {
                kind: VerdictKind::Diverged,
                authority: None,
                reasons,
                fork,
                branches,
            }
        }
    }
}

/// The primary cannot be compared with. Unless it is proven to hold nothing, nobody else can stand in for it.
fn without_primary(case: &Case<'_>, blockers: Vec<String>) -> Verdict {
    let Some(primary) = case.primary() else {
        let named = case
            .resource
            .and_then(|resource| resource.current_primary.as_ref());
        let why = named.map_or_else(
            || "the cluster names no current primary yet".to_owned(),
            |name| format!("{name}, the current primary, was not found"),
        );
        return undeterminable([vec![why], blockers].concat());
    };
    if !matches!(primary.relation, Relation::Nothing(_)) {
        let hibernates = case.resource.is_some_and(|resource| resource.hibernation);
        let asleep = hibernates.then(|| "the cluster hibernates: nothing runs, on purpose".to_owned());
        return undeterminable(asleep.into_iter().chain(blockers).collect());
    }
    let lost = format!("{}, the current primary, holds no data", primary.subject.name());
    if !blockers.is_empty() {
        return undeterminable([vec![lost], blockers].concat());
    }
    let readers = case
        .members
        .iter()
        .filter(|member| member.relation == Relation::Uncompared);
    match leader(readers.clone()) {
        Some(member) => Verdict {
            kind: VerdictKind::LeaderNotPrimary,
            authority: Some(member.subject.name().clone()),
            reasons: vec![
                lost,
                format!("{} holds everything that is left", member.subject.name()),
            ],
            fork: None,
            branches: Vec::new(),
        },
        None if readers.clone().next().is_none() => {
            undeterminable(vec![lost, "no other instance holds data".to_owned()])
        }
        None => Verdict {
            kind: VerdictKind::Diverged,
            authority: None,
            reasons: vec![lost, "the others hold commits that each other lack".to_owned()],
            fork: None,
            branches: Vec::new(),
        },
    }
}

/// The member that none of the others surpasses. Equal ones: the furthest, then the first by name.
fn leader<'m, 'a: 'm>(members: impl Iterator<Item = &'m Member<'a>>) -> Option<&'m Member<'a>> {
    let readers: Vec<(&Member<'_>, Reader<'_>)> = members
        .filter_map(|member| {
            relation::reader(&member.subject)
                .ok()
                .map(|reader| (member, reader))
        })
        .collect();
    let surpassed = |reader: &Reader<'_>| {
        readers.iter().any(|(_, other)| {
            !std::ptr::eq(other.subject, reader.subject)
                && relation::part(other, reader).is_some_and(|parted| parted.own.may_hold())
        })
    };
    // A directory that a rewind left half overwritten can block, but it can supply nothing.
    let best = readers
        .iter()
        .filter(|(member, reader)| !surpassed(reader) && !member.subject.half_rewound());
    best.min_by_key(|(member, reader)| {
        (
            std::cmp::Reverse(reader.position.lsn),
            member.subject.name().clone(),
        )
    })
    .map(|(member, _)| *member)
}

fn standing(primary: &Reader<'_>) -> String {
    let name = primary.subject.name();
    let Reader { position, .. } = primary;
    match (primary.subject.writes(), primary.subject.running()) {
        (true, _) => format!(
            "{name}, the current primary, writes timeline {} and is at {}",
            position.timeline, position.lsn
        ),
        (false, Some(true)) => {
            format!(
                "{name}, the current primary, runs and does not answer; it ends at {} on timeline {}",
                position.lsn, position.timeline
            )
        }
        (false, _) => {
            format!(
                "{name}, the current primary, does not run; it ends at {} on timeline {}",
                position.lsn, position.timeline
            )
        }
    }
}

fn following(member: &Member<'_>) -> Option<String> {
    let name = member.subject.name();
    Some(match &member.relation {
        Relation::Contained => format!("{name} holds nothing that the primary lacks"),
        Relation::SeenByPrimary(position) => format!(
            "{name} is not readable; the primary streams to it, up to {}",
            position.lsn
        ),
        Relation::Remembered(position) => {
            format!(
                "{name} is not readable; it was seen streaming on timeline {} up to {}",
                position.timeline, position.lsn
            )
        }
        Relation::Nothing(_) => format!("{name} holds no data of its own"),
        Relation::Parted(parted) => format!(
            "{name} left the primary's history at {} and committed nothing since",
            parted
                .fork
                .map_or_else(|| "an unknown position".to_owned(), |fork| fork.to_string())
        ),
        Relation::Primary | Relation::Foreign(_) | Relation::Uncompared | Relation::Unread(_) => return None,
    })
}

fn rivalry(member: &Member<'_>, parted: &Parted, primary: &Reader<'_>) -> String {
    let commits = |worth: relation::Worth| match worth.count() {
        Some(1) => "1 commit".to_owned(),
        Some(count) => format!("{count} commits"),
        None => "commits that could not be counted".to_owned(),
    };
    let fork = parted
        .fork
        .map_or_else(|| "an unknown position".to_owned(), |fork| fork.to_string());
    format!(
        "{} and {} part at {fork}: past it {} holds {}, {} holds {}",
        member.subject.name(),
        primary.subject.name(),
        member.subject.name(),
        commits(parted.own),
        primary.subject.name(),
        commits(parted.other),
    )
}

/// The branches past the earliest fork, the primary's first.
fn branches(case: &Case<'_>, primary: &Reader<'_>) -> Vec<Branch> {
    let parted: Vec<_> = case
        .members
        .iter()
        .filter_map(|member| Some((member, member.parted()?)))
        .collect();
    let Some((_, first)) = parted.iter().min_by_key(|(_, parted)| parted.fork) else {
        return Vec::new();
    };
    let followers = case.members.iter().filter(|member| {
        matches!(
            member.relation,
            Relation::SeenByPrimary(_) | Relation::Remembered(_) | Relation::Contained
        ) && relation::seen(&member.subject, &member.relation)
            .is_some_and(|position| position.timeline == primary.position.timeline)
    });
    let with = followers.map(|member| member.subject.name().clone());
    let mut branches = vec![branch(
        std::iter::once(primary.subject.name().clone())
            .chain(with)
            .collect(),
        primary,
        first.fork,
        first.other,
    )];
    for (member, parted) in &parted {
        if let Ok(reader) = relation::reader(&member.subject) {
            branches.push(branch(
                vec![member.subject.name().clone()],
                &reader,
                parted.fork,
                parted.own,
            ));
        }
    }
    branches
}

fn branch(
    instances: Vec<hasteward_proto::primitive::InstanceName>,
    reader: &Reader<'_>,
    fork: Option<Lsn>,
    worth: relation::Worth,
) -> Branch {
    Branch {
        instances,
        timeline: reader.position.timeline,
        end: reader.position.lsn,
        bytes_past_fork: fork.map_or(reader.position.lsn.bytes(), |fork| {
            reader.position.lsn.bytes_past(fork)
        }),
        commits_past_fork: worth.count(),
        first_commit_at: worth.span().map(|(first, _)| first),
        last_commit_at: worth.span().map(|(_, last)| last),
    }
}

fn undeterminable(reasons: Vec<String>) -> Verdict {
    let reasons = if reasons.is_empty() {
        vec!["the current primary could not be read".to_owned()]
    } else {
        reasons
    };
    Verdict {
        kind: VerdictKind::Undeterminable,
        authority: None,
        reasons,
        fork: None,
        branches: Vec::new(),
    }
}
