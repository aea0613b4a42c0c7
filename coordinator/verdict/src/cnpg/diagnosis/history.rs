//! Histories that parted, were lost, or belong to another system.

use hasteward_proto::primitive::UnixMillis;

use super::{Finding, about, bytes, general};
use crate::cnpg::case::Member;
use crate::cnpg::relation::{self, Parted, Relation, Worth};
use crate::cnpg::room;
use crate::report::{Diagnosis, Severity, VerdictKind};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

pub(super) fn find(finding: &Finding<'_, '_>) -> Vec<Diagnosis> {
    let mut found = Vec::new();
    for (member, _) in finding.members() {
        found.extend(branch(finding, member));
        found.extend(foreign(finding, member));
        found.extend(lost(finding, member));
        found.extend(backwards(finding, member));
        found.extend(abandoned(finding, member));
    }
    found.extend(not_primary(finding));
    found
}

/// A branch that may hold commits: promoted apart, or what a failover left behind.
fn branch(finding: &Finding<'_, '_>, member: &Member<'_>) -> Option<Diagnosis> {
    let parted = member.parted().filter(|parted| parted.own.may_hold())?;
    let name = member.subject.name();
    let primary = finding.case.primary_reader()?;
    let at = parted
        .fork
        .map_or_else(|| "an unknown position".to_owned(), |fork| fork.to_string());
    let promoted = parted.left || parted.fork.is_none();
    let (id, summary) = if promoted {
        (
            "cnpg-split-brain-diverged",
            format!("{name} was promoted apart from the primary at {at}, and both may hold commits"),
        )
    } else {
        (
            "cnpg-unreplicated-commits",
            format!(
                "{name} holds {} that did not reach the primary before {at}",
                held(parted.own)
            ),
        )
    };
    let remedy = format!(
        "decide which history survives before anything is restarted, unfenced or cloned; keep the volumes of both: kubectl get pvc {} -l cnpg.io/cluster={}",
        finding.namespace(),
        finding.case.name()
    );
    let evidence = vec![
        side(name.as_str(), member, &parted, parted.own),
        side(
            primary.subject.name().as_str(),
            finding.case.primary()?,
            &parted,
            parted.other,
        ),
    ];
    Some(Diagnosis {
        evidence,
        remedy,
        ..about(member, id, Severity::Critical, summary)
    })
}

fn held(worth: Worth) -> String {
    match worth.count() {
        Some(1) => "1 commit".to_owned(),
        Some(count) => format!("{count} commits"),
        None => "WAL whose commits could not be counted".to_owned(),
    }
}

fn side(name: &str, member: &Member<'_>, parted: &Parted, worth: Worth) -> String {
    let reach = member.subject.position.map_or_else(String::new, |position| {
        let past = parted.fork.map_or_else(String::new, |fork| {
            format!(", {} past the fork", bytes(position.lsn.bytes_past(fork)))
        });
        format!(
            " ends at {} on timeline {}{past}",
            position.lsn, position.timeline
        )
    });
    let times = worth.span().map_or_else(String::new, |(first, last)| {
        format!(", from {} to {}", utc(first), utc(last))
    });
    format!("{name}{reach}: {}{times}", held(worth))
}

fn foreign(finding: &Finding<'_, '_>, member: &Member<'_>) -> Option<Diagnosis> {
    let Relation::Foreign(id) = member.relation else {
        return None;
    };
    let name = member.subject.name();
    let own = finding.case.resource.and_then(|resource| resource.system_id);
    let evidence = vec![
        format!("{name} holds system {id}"),
        own.map_or_else(
            || "the cluster's status names no system".to_owned(),
            |own| format!("the cluster is system {own}"),
        ),
    ];
    let summary = format!("{name} holds the data of another PostgreSQL system");
    let remedy = format!(
        "find out where this volume comes from before anything is cloned over it: kubectl get pvc {} -l cnpg.io/instanceName={name} -o yaml",
        finding.namespace()
    );
    Some(Diagnosis {
        evidence,
        remedy,
        ..about(member, "cnpg-system-id-mismatch", Severity::Critical, summary)
    })
}

/// Commits that were seen on a timeline past the point where the surviving history left it, and are on no instance now.
///
/// Nothing on the instance itself is wrong any more, but a loss that nobody is told of is worse than a second look: a warning
/// for a day, then a line worth knowing for as long as it is remembered.
fn lost(finding: &Finding<'_, '_>, member: &Member<'_>) -> Option<Diagnosis> {
    let wrote = member.subject.ev.last_written?;
    let primary = finding.case.primary_reader()?;
    if !matches!(member.relation, Relation::Contained | Relation::SeenByPrimary(_)) {
        return None;
    }
    let fresh = finding.case.ev.collected_at.millis_since(wrote.at) < DAY_MS;
    let severity = if fresh { Severity::Warning } else { Severity::Info };
    let fork = primary
        .lineage
        .left(wrote.timeline)
        .filter(|&fork| wrote.lsn > fork)?;
    let name = member.subject.name();
    let summary = format!(
        "{} that {name} wrote on timeline {} are in no instance any more",
        bytes(wrote.lsn.bytes_past(fork)),
        wrote.timeline
    );
    let evidence = vec![
        format!(
            "{name} was seen writing timeline {} up to {} at {}",
            wrote.timeline,
            wrote.lsn,
            utc(wrote.at)
        ),
        format!("the surviving history left that timeline at {fork}"),
        format!("{name} has been rewound since"),
    ];
    let remedy = format!(
        "what was committed there can only be in the WAL archive now (timeline {} past {fork}); keep the archive and decide whether to restore it beside: kubectl cnpg status {} {}",
        wrote.timeline,
        finding.namespace(),
        finding.case.name()
    );
    Some(Diagnosis {
        evidence,
        remedy,
        ..about(member, "cnpg-history-lost", severity, summary)
    })
}

/// Bytes of a timeline that its history left earlier: nothing leads to them, and erasing or recycling them ends them.
fn abandoned(finding: &Finding<'_, '_>, member: &Member<'_>) -> Option<Diagnosis> {
    let ((timeline, at), worth) = relation::abandoned(&member.subject)?;
    let name = member.subject.name();
    let times = worth.span().map_or_else(String::new, |(first, last)| {
        format!(", from {} to {}", utc(first), utc(last))
    });
    let evidence = vec![
        format!("past {at} on timeline {timeline}: {}{times}", held(worth)),
        format!("the history of {name} left timeline {timeline} at {at}"),
    ];
    let remedy = format!(
        "copy pg_wal of {name} away before its server recycles it, and decide whether to restore it beside: kubectl get pvc {} -l cnpg.io/instanceName={name}",
        finding.namespace()
    );
    let summary =
        format!("the pg_wal of {name} holds WAL of timeline {timeline} that no history leads to any more");
    Some(Diagnosis {
        evidence,
        remedy,
        ..about(member, "cnpg-abandoned-wal", Severity::Warning, summary)
    })
}

fn backwards(finding: &Finding<'_, '_>, member: &Member<'_>) -> Option<Diagnosis> {
    let lineage = member
        .subject
        .lineage
        .as_ref()
        .ok()
        .filter(|lineage| lineage.goes_backwards())?;
    let name = member.subject.name();
    let summary = format!("the history of {name} names a switch before the one that precedes it");
    let evidence = vec![format!(
        "{} of {name}: somebody restored to a point before a timeline that had already begun",
        lineage.timeline().history_file_name()
    )];
    let remedy = format!(
        "nothing to do if a point-in-time restore was meant; otherwise: {}",
        finding.triage()
    );
    Some(Diagnosis {
        evidence,
        remedy,
        ..about(member, "cnpg-timeline-rewind", Severity::Info, summary)
    })
}

fn not_primary(finding: &Finding<'_, '_>) -> Vec<Diagnosis> {
    if finding.verdict.kind != VerdictKind::LeaderNotPrimary {
        return Vec::new();
    }
    let Some(member) = finding
        .verdict
        .authority
        .as_ref()
        .and_then(|name| finding.case.member(name))
    else {
        return Vec::new();
    };
    let name = member.subject.name();
    let remedy = format!(
        "keep every volume as it is and decide about {name} before the operator rewinds or clones it: kubectl get pvc {} -l cnpg.io/cluster={}",
        finding.namespace(),
        finding.case.name()
    );
    let summary = format!("{name} holds everything, and the operator's primary is another instance");
    let mut found = vec![Diagnosis {
        evidence: finding.verdict.reasons.clone(),
        remedy,
        ..about(member, "cnpg-authority-not-primary", Severity::Critical, summary)
    }];
    if let Some(full) = room::wal_full(&member.subject)
        && member.subject.server().is_none()
    {
        found.push(Diagnosis {
            evidence: vec![format!("its {} volume is full", room::volume_name(&full.role))],
            remedy: super::storage::grow(finding, member, &full),
            ..about(
                member,
                "cnpg-authority-wal-trapped",
                Severity::Critical,
                format!("{name} holds the data that counts and cannot start: its WAL volume is full"),
            )
        });
    }
    let lost = finding
        .case
        .primary()
        .filter(|primary| matches!(primary.relation, Relation::Nothing(_)));
    if let Some(primary) = lost {
        found.push(Diagnosis {
            evidence: vec![format!("{} holds no data", primary.subject.name())],
            remedy: finding.triage(),
            ..general(
                "cnpg-primary-lost",
                Severity::Critical,
                "the current primary's data is gone".to_owned(),
            )
        });
    }
    found
}

/// RFC 3339, UTC, seconds.
fn utc(at: UnixMillis) -> String {
    let seconds = at.0.div_euclid(1000);
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Civil date from days since 1970-01-01 (proleptic Gregorian, eras of 400 years).
    let shifted = i128::from(days) + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_shifted + 2) / 5 + 1;
    let month = if month_shifted < 10 {
        month_shifted + 3
    } else {
        month_shifted - 9
    };
    let year = year_of_era + era * 400 + i128::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        rest / 3600,
        rest % 3600 / 60,
        rest % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(0, "1970-01-01T00:00:00Z")]
    #[case(951_782_400_000, "2000-02-29T00:00:00Z")]
    #[case(1_763_624_930_999, "2025-11-20T07:48:50Z")]
    #[case(-1, "1969-12-31T23:59:59Z")]
    #[case(i64::MAX, "292278994-08-17T07:12:55Z")]
    fn times_are_written_as_rfc_3339(#[case] millis: i64, #[case] text: &str) {
        assert_eq!(utc(UnixMillis(millis)), text);
    }
}
