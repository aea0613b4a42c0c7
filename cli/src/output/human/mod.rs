//! The view for people: what is wrong, what is safe, what to type, in that order.

mod lists;
mod triage;
mod units;

use anstyle::{AnsiColor, Style};
use hasteward_proto::failure::Failure;

use super::{Data, Outcome};

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const RED: Style = AnsiColor::Red.on_default().bold();
const YELLOW: Style = AnsiColor::Yellow.on_default().bold();
const GREEN: Style = AnsiColor::Green.on_default().bold();
const CYAN: Style = AnsiColor::Cyan.on_default();

/// `text` in `style`.
fn styled(style: Style, text: impl std::fmt::Display) -> String {
    format!("{style}{text}{style:#}")
}

/// The whole answer.
pub(super) fn render(outcome: &Outcome) -> String {
    let mut text = match &outcome.data {
        Data::Triage(report) => triage::render(report, jiff::Timestamp::now().as_millisecond()),
        Data::Status(list) => lists::status(list),
        Data::Agents(list) => lists::agents(list, jiff::Timestamp::now().as_millisecond()),
        Data::Version(version) => lists::version(version),
        Data::Man(man) => man.files.iter().map(|f| format!("{f}\n")).collect(),
        Data::Schema(schema) => format!("{}\n", serde_json::to_string_pretty(schema).unwrap_or_default()),
    };
    for warning in &outcome.warnings {
        text.push_str(&format!("{} {}\n", styled(YELLOW, "warning:"), warning.message));
    }
    text
}

/// An error, with what to do next.
pub(super) fn failure(failure: &Failure) -> String {
    let mut text = format!("{} {}\n", styled(RED, "error:"), failure.message);
    if let Some(hint) = &failure.hint {
        text.push_str(&format!("{} {hint}\n", styled(CYAN, " next:")));
    }
    if failure.retryable {
        text.push_str(&styled(DIM, "       the same command may succeed later\n"));
    }
    text
}
