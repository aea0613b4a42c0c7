//! What the agent reads of PostgreSQL, against what real servers and their own tools say.
#![allow(clippy::unwrap_used, reason = "tests")]

mod live;
mod oracle;
mod server;
mod timelines;

use std::time::Duration;

use hasteward_agent::postgres::files::Files;
use hasteward_agent::postgres::inspect::{Inspection, Instance, WalScan};
use hasteward_agent::postgres::reading::{Deadline, Reading, Unread};
use hasteward_agent::postgres::wal::scan::{Commits, WalEnd};
use hasteward_agent::volume::PlainDirectory;
use hasteward_proto::primitive::{Lsn, TimelineId, UnixMillis};

/// When the tests' readings were made.
const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

fn inspect_directory<T>(directory: &PlainDirectory, run: impl FnOnce(&Inspection<'_>) -> T) -> T {
    let now = || NOW;
    let deadline = Deadline::never();
    let files = Files { directory, now: &now };
    run(&Inspection {
        files,
        pause: &|pause: Duration| std::thread::sleep(pause),
        deadline: &deadline,
    })
}

fn inspect<T>(server: &server::Server, run: impl FnOnce(&Inspection<'_>) -> T) -> T {
    inspect_directory(&PlainDirectory::new(&server.data()).unwrap(), run)
}

/// Everything that the files say.
fn instance(server: &server::Server) -> Instance {
    inspect(server, |inspection| inspection.instance(WalScan::Wanted))
}

fn end(server: &server::Server) -> WalEnd {
    known(&instance(server).wal_end).clone()
}

fn commits(server: &server::Server, timeline: u32, past: Lsn) -> Result<Commits, Unread> {
    inspect(server, |inspection| {
        inspection.commits(TimelineId::new(timeline).unwrap(), past)
    })
}

#[track_caller]
fn known<T: std::fmt::Debug>(reading: &Reading<T>) -> &T {
    reading.value().unwrap_or_else(|| panic!("{reading:?}"))
}

fn lsn(text: &str) -> Lsn {
    text.parse().unwrap()
}
