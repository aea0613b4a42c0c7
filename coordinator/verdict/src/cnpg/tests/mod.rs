//! Tables of cases; one file a theme.

mod chaos;
mod fences;
mod gate;
mod held;
mod history;
mod oracle;
mod properties;
mod reading;
mod supply;

use crate::report::{Action, TriageReport};
use crate::testing::name;

/// What to do with `c-<n>`.
fn action(report: &TriageReport, n: u32) -> Action {
    report
        .instances
        .iter()
        .find(|one| one.instance == name(n))
        .unwrap()
        .action
}

/// The state of `c-<n>`.
fn state(report: &TriageReport, n: u32) -> &str {
    &report
        .instances
        .iter()
        .find(|one| one.instance == name(n))
        .unwrap()
        .state
}

/// The ids of all diagnoses.
fn ids(report: &TriageReport) -> Vec<&str> {
    report
        .diagnoses
        .iter()
        .map(|diagnosis| diagnosis.id.as_str())
        .collect()
}
