//! [`questions`]: which commits must be counted before a verdict can be better than "may hold anything".

use hasteward_proto::primitive::{InstanceName, Lsn, TimelineId};
use serde::{Deserialize, Serialize};

use super::case::Case;
use super::relation::{self, Reader, Relation};
use super::subject::Subject;
use crate::evidence::UnreadReason;
use crate::evidence::cnpg::CnpgEvidence;

/// How many commit records does `instance` hold on `timeline` that begin at or after `past`?
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Question {
    /// Whom to ask.
    pub instance: InstanceName,
    /// On this timeline,
    pub timeline: TimelineId,
    /// from here on.
    pub past: Lsn,
}

/// What must be asked before [`super::assess`]. Put each answer (also *unread*) into the instance's `commits_past`; then
/// there are no more questions. A healthy cluster has none.
#[must_use]
pub fn questions(ev: &CnpgEvidence) -> Vec<Question> {
    let case = Case::new(ev);
    let Some(primary) = case.primary_reader() else {
        return orphans(&case);
    };
    let parted: Vec<Reader<'_>> = case
        .members
        .iter()
        .filter(|member| member.parted().is_some())
        .filter_map(|member| relation::reader(&member.subject).ok())
        .collect();
    let mut asked = Vec::new();
    for (i, reader) in parted.iter().enumerate() {
        ask(reader, &primary, &mut asked);
        for other in &parted[i + 1..] {
            ask(reader, other, &mut asked);
        }
    }
    finish(&case, asked)
}

/// Whose end of WAL must be scanned although their servers answer: a standby that has received nothing since its start may
/// hold more in `pg_wal` than it has replayed, and one that received past the primary's history and does not stream may end
/// inside a record. Inspect these again with the scan, before [`questions`].
#[must_use]
pub fn unscanned(ev: &CnpgEvidence) -> Vec<InstanceName> {
    let skipped = |subject: &Subject<'_>| {
        subject
            .ev
            .disk
            .wal_end
            .why_unread()
            .is_some_and(|unread| unread.reason == UnreadReason::NotNeeded)
    };
    let case = Case::new(ev);
    let wanted = case.members.iter().filter(|member| {
        let subject = &member.subject;
        let open = subject.position.is_none_or(|position| !position.exact)
            || (subject.ends_in_doubt()
                && matches!(member.relation, Relation::Parted(_) | Relation::Uncompared));
        subject.recovers() && skipped(subject) && open
    });
    wanted.map(|member| member.subject.name().clone()).collect()
}

/// The primary holds nothing: the others are compared with each other.
fn orphans(case: &Case<'_>) -> Vec<Question> {
    let readers: Vec<Reader<'_>> = case
        .members
        .iter()
        .filter(|member| member.relation == Relation::Uncompared)
        .filter_map(|member| relation::reader(&member.subject).ok())
        .collect();
    let mut asked = Vec::new();
    if case
        .primary()
        .is_some_and(|primary| matches!(primary.relation, Relation::Nothing(_)))
    {
        for (i, reader) in readers.iter().enumerate() {
            for other in &readers[i + 1..] {
                ask(reader, other, &mut asked);
            }
        }
    }
    finish(case, asked)
}

fn ask(first: &Reader<'_>, second: &Reader<'_>, asked: &mut Vec<Question>) {
    let comparison = relation::compare(first, second);
    let mut put = |subject: &Subject<'_>, past: bool, stretches: &[relation::Stretch]| {
        let open = stretches
            .iter()
            .filter(|_| past)
            .filter(|&&stretch| !relation::answered(subject, stretch));
        asked.extend(open.map(|&(timeline, past)| Question {
            instance: subject.name().clone(),
            timeline,
            past,
        }));
    };
    put(first.subject, comparison.first_past, &comparison.first_stretches);
    put(
        second.subject,
        comparison.second_past,
        &comparison.second_stretches,
    );
}

fn finish(case: &Case<'_>, mut asked: Vec<Question>) -> Vec<Question> {
    let left = case.members.iter().filter_map(|member| {
        let subject = &member.subject;
        let stretch = subject.ev.disk.wal_end.value()?.abandoned?;
        (!relation::answered(subject, stretch)).then(|| Question {
            instance: subject.name().clone(),
            timeline: stretch.0,
            past: stretch.1,
        })
    });
    asked.extend(left);
    asked.sort();
    asked.dedup();
    asked
}
