//! `triage`: verdict, table, diagnoses.

use std::fmt::Write;

use hasteward_verdict::report::{
    Action, Branch, Diagnosis, InstanceReport, Role, Severity, TriageReport, Verdict, VerdictKind,
    VolumeReport,
};

use super::super::table::{self, Field, Tone};
use super::{BOLD, CYAN, DIM, GREEN, RED, YELLOW, styled, units};

/// Instances with less than this part free are marked.
const LOW_PERCENT: u64 = 10;

pub(super) fn render(report: &TriageReport, now: i64) -> String {
    let mut text = headline(report);
    text.push_str(&reasons(&report.verdict));
    text.push('\n');
    text.push_str(&instances(&report.instances, now));
    text.push_str(&why(report));
    text.push_str(&diagnoses(&report.diagnoses));
    text
}

fn headline(report: &TriageReport) -> String {
    let healthy = report.exit_code() == 0;
    let authority = report
        .verdict
        .authority
        .as_ref()
        .map(ToString::to_string)
        .unwrap_or_default();
    let (style, word, sentence) = match report.verdict.kind {
        VerdictKind::Provable if healthy => (
            GREEN,
            "HEALTHY",
            format!("{authority} is the primary and holds everything."),
        ),
        VerdictKind::Provable => (
            YELLOW,
            "ACTION NEEDED",
            format!("{authority} is the primary and holds everything."),
        ),
        VerdictKind::LeaderNotPrimary => (
            RED,
            "LEADER NOT PRIMARY",
            format!("{authority} holds everything, but is not the primary."),
        ),
        VerdictKind::Diverged => (
            RED,
            "DIVERGED",
            "Each branch holds commits that the other lacks. Erase nothing.".to_owned(),
        ),
        VerdictKind::Undeterminable => (
            RED,
            "CANNOT KNOW",
            "Who holds the newest data could not be established. Erase nothing.".to_owned(),
        ),
    };
    let engine = report.engine;
    let cluster = styled(BOLD, &report.cluster);
    let phase = report
        .phase
        .as_deref()
        .map(|p| styled(DIM, format!("  operator says: {p}\n")))
        .unwrap_or_default();
    format!(
        "{cluster} ({engine}): {}. {sentence}\n{phase}",
        styled(style, word)
    )
}

fn reasons(verdict: &Verdict) -> String {
    let mut text = String::new();
    if verdict.kind != VerdictKind::Provable {
        for reason in &verdict.reasons {
            let _ = writeln!(text, "  - {reason}");
        }
    }
    if let Some(fork) = verdict.fork {
        let _ = writeln!(text, "  fork at {fork}:");
    }
    for branch in &verdict.branches {
        let _ = writeln!(text, "    {}", self::branch(branch));
    }
    text
}

fn branch(branch: &Branch) -> String {
    let names: Vec<_> = branch.instances.iter().map(ToString::to_string).collect();
    let commits = match branch.commits_past_fork {
        None => "commits not counted".to_owned(),
        Some(0) => "no commit".to_owned(),
        Some(1) => "1 commit".to_owned(),
        Some(n) => format!("{n} commits"),
    };
    let times = match (branch.first_commit_at, branch.last_commit_at) {
        (Some(first), Some(last)) if first != last => {
            format!(", {} to {}", units::moment(first.0), units::moment(last.0))
        }
        (Some(at), _) | (_, Some(at)) => format!(", {}", units::moment(at.0)),
        (None, None) => String::new(),
    };
    let past = units::bytes(branch.bytes_past_fork);
    format!(
        "{} on timeline {} to {}: {past} past the fork, {commits}{times}",
        names.join(", "),
        branch.timeline,
        branch.end
    )
}

fn instances(instances: &[InstanceReport], now: i64) -> String {
    let rows = instances.iter().map(|i| {
        let role = match i.role {
            Role::Primary => Field::toned("primary", Tone::Plain),
            Role::Replica => Field::plain("replica"),
            Role::Unknown => Field::toned("unknown", Tone::Warning),
        };
        let position = i.position.as_ref();
        let seen = position
            .and_then(|p| p.seen_at)
            .map(|t| format!(" ({})", units::ago(now, t.0)))
            .unwrap_or_default();
        let lag = position.and_then(|p| p.lag_bytes).map_or_else(
            || "-".to_owned(),
            |lag| {
                if lag == 0 {
                    "0".to_owned()
                } else {
                    units::bytes(lag)
                }
            },
        );
        let action = action(i.action);
        vec![
            Field::plain(i.instance.to_string()),
            Field::plain(i.node.as_deref().unwrap_or("-")),
            role,
            Field::toned(&i.state, action.1),
            Field::number(position.map_or_else(|| "-".to_owned(), |p| p.timeline.to_string())),
            Field::plain(position.map_or_else(|| "-".to_owned(), |p| format!("{}{seen}", p.lsn))),
            Field::number(lag),
            disk(&i.disk),
            Field::toned(action.0, action.1),
        ]
    });
    let header = [
        "INSTANCE",
        "NODE",
        "ROLE",
        "STATE",
        "TIMELINE",
        "POSITION",
        "LAG",
        "DISK FREE",
        "ACTION",
    ];
    table::render(&header, rows.collect())
}

fn action(action: Action) -> (&'static str, Tone) {
    match action {
        Action::None => ("none", Tone::Good),
        Action::Wait => ("wait", Tone::Warning),
        Action::Restart => ("restart", Tone::Warning),
        Action::Rejoin => ("rejoin", Tone::Warning),
        Action::Rewind => ("rewind", Tone::Bad),
        Action::Reseed => ("reseed", Tone::Bad),
        Action::Recreate => ("recreate", Tone::Bad),
        Action::Blocked => ("blocked", Tone::Bad),
    }
}

/// The fullest volume.
fn disk(volumes: &[VolumeReport]) -> Field {
    let percent = |v: &VolumeReport| {
        v.free_bytes
            .saturating_mul(100)
            .checked_div(v.total_bytes)
            .unwrap_or(100)
    };
    let Some(fullest) = volumes.iter().min_by_key(|v| percent(v)) else {
        return Field::plain("-");
    };
    let name = if fullest.volume == "data" {
        String::new()
    } else {
        format!(" ({})", fullest.volume)
    };
    let tone = if percent(fullest) <= LOW_PERCENT {
        Tone::Bad
    } else {
        Tone::Plain
    };
    Field::toned(
        format!(
            "{}% of {}{name}",
            percent(fullest),
            units::bytes(fullest.total_bytes)
        ),
        tone,
    )
}

/// Why an instance is to be acted on, where no diagnosis says it, and what could not be read of it.
fn why(report: &TriageReport) -> String {
    let mut text = String::new();
    for instance in &report.instances {
        let diagnosed = report
            .diagnoses
            .iter()
            .any(|d| d.target.as_ref() == Some(&instance.instance));
        if instance.action != Action::None && !diagnosed {
            for reason in &instance.reasons {
                let _ = writeln!(text, "  {}: {reason}", instance.instance);
            }
        }
        for (detail, items) in unread(instance) {
            let line = format!("{}: {} not read: {detail}", instance.instance, several(&items));
            let _ = writeln!(text, "  {}", styled(DIM, line));
        }
    }
    if text.is_empty() {
        text
    } else {
        format!("\n{text}")
    }
}

/// What could not be read of an instance, by why.
fn unread(instance: &InstanceReport) -> Vec<(&str, Vec<&str>)> {
    let mut by_detail: Vec<(&str, Vec<&str>)> = Vec::new();
    for unread in &instance.unread {
        match by_detail
            .iter_mut()
            .find(|(detail, _)| *detail == unread.why.detail)
        {
            Some((_, items)) => items.push(&unread.item),
            None => by_detail.push((&unread.why.detail, vec![&unread.item])),
        }
    }
    by_detail
}

/// `a, b and 3 more`.
fn several(items: &[&str]) -> String {
    const NAMED: usize = 3;
    match items.len() {
        0..=NAMED => items.join(", "),
        all => format!("{} and {} more", items[..NAMED].join(", "), all - NAMED),
    }
}

fn diagnoses(diagnoses: &[Diagnosis]) -> String {
    let mut text = String::new();
    for diagnosis in diagnoses {
        let (style, word) = match diagnosis.severity {
            Severity::Critical => (RED, "CRITICAL"),
            Severity::Error => (RED, "ERROR"),
            Severity::Warning => (YELLOW, "WARNING"),
            Severity::Info => (CYAN, "INFO"),
        };
        let target = diagnosis
            .target
            .as_ref()
            .map(|t| format!("  {t}"))
            .unwrap_or_default();
        let _ = writeln!(
            text,
            "\n{}  {}{target}",
            styled(style, word),
            styled(BOLD, &diagnosis.id)
        );
        let _ = writeln!(text, "  {}", diagnosis.summary);
        for evidence in &diagnosis.evidence {
            let _ = writeln!(text, "  {}", styled(DIM, format!("· {evidence}")));
        }
        for (index, line) in diagnosis.remedy.lines().enumerate() {
            let _ = writeln!(
                text,
                "  {} {line}",
                styled(CYAN, if index == 0 { "→" } else { " " })
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a person sees in a pipe: the text without its styles.
    fn plain(report: &str) -> String {
        let report: TriageReport = serde_json::from_str(report).unwrap();
        anstream::adapter::strip_str(&render(&report, 1_700_000_600_000)).to_string()
    }

    #[test]
    fn healthy() {
        insta::assert_snapshot!(plain(include_str!("testdata/healthy.json")));
    }

    #[test]
    fn diverged() {
        insta::assert_snapshot!(plain(include_str!("testdata/diverged.json")));
    }

    #[test]
    fn undeterminable() {
        insta::assert_snapshot!(plain(include_str!("testdata/undeterminable.json")));
    }

    #[test]
    fn no_line_ends_in_blanks() {
        for report in [
            include_str!("testdata/healthy.json"),
            include_str!("testdata/diverged.json"),
        ] {
            for line in plain(report).lines() {
                assert_eq!(line, line.trim_end());
            }
        }
    }
}
