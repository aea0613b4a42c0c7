//! One inspection: the processes, then the server, then the files, within one budget. What was not read by then is unread.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hasteward_proto::failure::{Failure, FailureKind};
use hasteward_proto::primitive::{Lsn, TimelineId};
use hasteward_proto::wire::agent as wire;

use super::admission::Place;
use super::agent::{Shared, now};
use super::target::locator;
use crate::hands::{ConnectError, Hands, InstanceLocator, ProcessError, Processes, Session, SessionError};
use crate::postgres::convert::count_commits;
use crate::postgres::files::Files;
use crate::postgres::inspect::{Inspection, Instance, WalScan};
use crate::postgres::live::{self, Server};
use crate::postgres::reading::{Deadline, Reading, Unread, UnreadKind};
use crate::volume::VolumeRole;

/// Where the request names no budget.
const BUDGET: Duration = Duration::from_secs(5);
/// Less is of no use.
const BUDGET_MIN: Duration = Duration::from_millis(100);
/// More is not granted: a session of the hands lives ten minutes.
const BUDGET_MAX: Duration = Duration::from_secs(300);
/// The part of the budget that waiting for a place may take.
const WAIT_SHARE: u32 = 4;
/// The part of the budget that a server which does not answer may take.
const SERVER_SHARE: u32 = 3;
/// What is kept back for the answer itself.
const ANSWER_SHARE: u32 = 20;

/// One call's time.
pub(super) struct Budget {
    pub(super) whole: Duration,
    pub(super) readers: Instant,
    end: Instant,
}

impl Budget {
    pub(super) fn new(millis: u32) -> Self {
        let whole = match millis {
            0 => BUDGET,
            millis => Duration::from_millis(millis.into()).clamp(BUDGET_MIN, BUDGET_MAX),
        };
        let begun = Instant::now();
        Self {
            whole,
            readers: begun + (whole / ANSWER_SHARE) * (ANSWER_SHARE - 1),
            end: begun + whole,
        }
    }

    /// The outcome of `work`, or `None` at the end of the budget; `work` then goes on alone until the kernel lets it go.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Option<T>, Failure> {
        let task = tokio::task::spawn_blocking(work);
        match tokio::time::timeout_at(self.end.into(), task).await {
            Ok(Ok(outcome)) => Ok(Some(outcome)),
            Ok(Err(error)) => Err(Failure::new(
                "agent-internal",
                FailureKind::Internal,
                format!("a reader failed: {error}"),
            )),
            Err(_) => Ok(None),
        }
    }

    /// How long to wait for a place.
    pub(super) fn wait(&self) -> Duration {
        self.whole / WAIT_SHARE
    }

    pub(super) fn too_slow(&self) -> Unread {
        Unread::new(
            UnreadKind::Timeout,
            format!("not read within {} ms", self.whole.as_millis()),
        )
    }
}

/// What the hands said at once.
struct Begun {
    session: Arc<Session>,
    processes: Result<Processes, ProcessError>,
    connection: Result<std::os::unix::net::UnixStream, ConnectError>,
}

/// Answers `InspectPostgres`.
pub(super) async fn inspect(
    shared: &Shared,
    request: wire::InspectPostgresRequest,
) -> Result<wire::InspectPostgresReply, Failure> {
    let locator = locator(request.target)?;
    let roles: Vec<VolumeRole> = locator.volumes.iter().map(|volume| volume.role.clone()).collect();
    let budget = Budget::new(request.budget_ms);
    let place = Arc::new(shared.admission.enter(&locator.pod, budget.wait()).await?);

    let Some(begun) = begin(&shared.hands, locator, &budget, place.clone()).await? else {
        let unread = budget.too_slow();
        return Ok(reply(
            nothing(&roles, &unread),
            Reading::Unread(unread.clone()),
            Reading::Unread(unread),
        ));
    };
    let Begun {
        session,
        processes,
        connection,
    } = begun;
    let server = match connection {
        Ok(connection) => ask(connection, &budget).await,
        Err(error) => Reading::unread(kind_of_connect(&error), error.to_string()),
    };
    let scan = match &server {
        Reading::Known(_) if !request.always_scan_wal => WalScan::NotNeeded,
        _ => WalScan::Wanted,
    };
    let readers = budget.readers;
    let read = move || {
        let _place = place;
        with_inspection(&session, readers, |inspection| inspection.instance(scan))
    };
    let instance = budget
        .run(read)
        .await?
        .unwrap_or_else(|| nothing(&roles, &budget.too_slow()));
    let processes = match processes {
        Ok(processes) => Reading::known(processes, "/proc", now()),
        Err(error) => Reading::unread(kind_of_process(&error), error.to_string()),
    };
    Ok(reply(instance, processes, server))
}

/// Answers `CountCommits`.
pub(super) async fn count(
    shared: &Shared,
    request: wire::CountCommitsRequest,
) -> Result<wire::CountCommitsReply, Failure> {
    let invalid = |what: &str| Failure::new("agent-position", FailureKind::Input, what);
    let locator = locator(request.target)?;
    let timeline = TimelineId::new(request.timeline).ok_or_else(|| invalid("timeline 0 does not exist"))?;
    let past = Lsn::new(request.past_lsn).ok_or_else(|| invalid("position 0/0 does not exist"))?;
    let budget = Budget::new(request.budget_ms);
    let place = shared.admission.enter(&locator.pod, budget.wait()).await?;
    let hands = shared.hands.clone();
    let readers = budget.readers;
    let whole = budget.whole;
    let read = move || -> Result<_, Failure> {
        let _place = place;
        let session = hands.session(&locator, whole).map_err(|error| refused(&error))?;
        Ok(with_inspection(&session, readers, |inspection| {
            inspection.commits(timeline, past)
        }))
    };
    let commits = budget
        .run(read)
        .await?
        .unwrap_or_else(|| Ok(Err(budget.too_slow())))?;
    Ok(count_commits(commits))
}

async fn begin(
    hands: &Arc<Hands>,
    locator: InstanceLocator,
    budget: &Budget,
    place: Arc<Place>,
) -> Result<Option<Begun>, Failure> {
    let hands = hands.clone();
    let whole = budget.whole;
    let begin = move || {
        let _place = place;
        let session = hands.session(&locator, whole).map_err(|error| refused(&error))?;
        let processes = session.processes();
        let connection = match &processes {
            Ok(Processes { postmaster: None, .. }) => Err(ConnectError::NoServer),
            Ok(_) => session.connect(),
            Err(error) => Err(ConnectError::Processes(error.clone())),
        };
        Ok(Begun {
            session: Arc::new(session),
            processes,
            connection,
        })
    };
    budget.run(begin).await?.transpose()
}

async fn ask(connection: std::os::unix::net::UnixStream, budget: &Budget) -> Reading<Server> {
    let stream = connection
        .set_nonblocking(true)
        .and_then(|()| tokio::net::UnixStream::from_std(connection));
    match stream {
        Ok(stream) => {
            let deadline = (Instant::now() + budget.whole / SERVER_SHARE).min(budget.readers);
            live::read(stream, deadline.into(), &now).await
        }
        Err(error) => Reading::unread(UnreadKind::Io, format!("the connection: {error}")),
    }
}

fn with_inspection<T>(session: &Session, until: Instant, read: impl FnOnce(&Inspection<'_>) -> T) -> T {
    let files = Files {
        directory: session,
        now: &now,
    };
    let deadline = Deadline::until(until);
    read(&Inspection {
        files,
        pause: &std::thread::sleep,
        deadline: &deadline,
    })
}

fn reply(
    instance: Instance,
    processes: Reading<Processes>,
    server: Reading<Server>,
) -> wire::InspectPostgresReply {
    wire::InspectPostgresReply {
        processes: Some(processes.into()),
        server: Some(server.into()),
        ..instance.into()
    }
}

/// An instance of whose files nothing was read.
fn nothing(roles: &[VolumeRole], why: &Unread) -> Instance {
    let volumes = roles.iter().filter(|role| **role != VolumeRole::Scratch);
    Instance {
        control: why.clone().into(),
        signals: why.clone().into(),
        backup_label: why.clone().into(),
        histories: why.clone().into(),
        wal_end: why.clone().into(),
        wal: why.clone().into(),
        slots: why.clone().into(),
        tablespaces: why.clone().into(),
        volumes: volumes.map(|role| (role.clone(), why.clone().into())).collect(),
        leftovers: why.clone().into(),
    }
}

pub(super) fn refused(error: &SessionError) -> Failure {
    let message = error.to_string();
    match error {
        SessionError::Busy(_) => Failure::new("agent-busy", FailureKind::Busy, message).retryable(),
        SessionError::Lost(_) | SessionError::Mixed => {
            Failure::new("agent-hands", FailureKind::Internal, message).retryable()
        }
    }
}

pub(super) fn kind_of_process(error: &ProcessError) -> UnreadKind {
    match error {
        ProcessError::List(_)
        | ProcessError::BootTime(_)
        | ProcessError::Look { .. }
        | ProcessError::OtherContainer { .. }
        | ProcessError::Lost(_) => UnreadKind::Io,
        ProcessError::TooMany => UnreadKind::TooLarge,
        ProcessError::Root { .. } => UnreadKind::Refused,
        ProcessError::Timeout(_) => UnreadKind::Timeout,
    }
}

pub(super) fn kind_of_connect(error: &ConnectError) -> UnreadKind {
    match error {
        ConnectError::Processes(error) => kind_of_process(error),
        ConnectError::NoServer | ConnectError::NotListening { .. } => UnreadKind::ServerDown,
        ConnectError::Hung { .. } => UnreadKind::ServerHung,
        ConnectError::Refused(_) => UnreadKind::Refused,
        ConnectError::Attempt(_) => UnreadKind::Io,
        ConnectError::Timeout(_) => UnreadKind::Timeout,
    }
}

impl From<Reading<Processes>> for wire::ProcessesReading {
    fn from(reading: Reading<Processes>) -> Self {
        use wire::processes_reading::Outcome;
        let (provenance, outcome) = match reading {
            Reading::Known(known) => {
                let provenance = wire::Provenance {
                    source: known.source,
                    read_at_ms: known.read_at.0,
                };
                (Some(provenance), Outcome::Known(known.value.into()))
            }
            Reading::Unread(unread) => (None, Outcome::Unread(unread.into())),
            Reading::Absent { proof } => (None, Outcome::Absent(wire::Absent { proof })),
        };
        Self {
            provenance,
            outcome: Some(outcome),
        }
    }
}

impl From<Processes> for wire::Processes {
    fn from(processes: Processes) -> Self {
        let postmaster = processes.postmaster.map(|postmaster| wire::Postmaster {
            pid: postmaster.pid,
            uid: postmaster.uid,
            gid: postmaster.gid,
            started_at_ms: postmaster.started_at_ms,
            stopped: postmaster.stopped,
        });
        Self {
            manager: processes.manager,
            postmaster,
            tools: processes.tools,
        }
    }
}
