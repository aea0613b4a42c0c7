//! One inspection of a Galera node: the processes, then the server, then the files, then, where asked for and nothing runs,
//! the position by a recovery on an overlay. All within one budget; what was not read by then is unread.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hasteward_proto::failure::{Failure, FailureKind};
use hasteward_proto::wire::agent as wire;
use secrecy::SecretString;

use super::admission::Place;
use super::agent::{Shared, now};
use super::inspect::{Budget, kind_of_connect, kind_of_process, refused};
use super::target::locator;
use crate::galera::convert::RecoveredPosition;
use crate::galera::grastate::GraState;
use crate::galera::inspect::{Inspection, Node};
use crate::galera::live::{self, Passwords, Server};
use crate::galera::recovered;
use crate::hands::{
    ConnectError, Hands, InstanceLocator, MariadbProcesses, ProcessError, RecoverError, RecoveryRun,
    RootPassword, Session,
};
use crate::postgres::files::Files;
use crate::postgres::reading::{Deadline, Reading, Unread, UnreadKind};
use crate::volume::VolumeRole;

/// The part of the budget that a server which does not answer may take.
const SERVER_SHARE: u32 = 3;

/// What a recovery must leave of the budget: to end, to clean up, to answer.
const RECOVERY_MARGIN: Duration = Duration::from_secs(1);

/// With less time, none is begun.
const RECOVERY_MIN: Duration = Duration::from_secs(2);

/// Root's password is not longer.
const PASSWORD_MAX: usize = 4096;

/// What the hands said at once.
struct Begun {
    session: Arc<Session>,
    processes: Result<MariadbProcesses, ProcessError>,
    socket: Result<(OwnedFd, Option<RootPassword>), ConnectError>,
}

/// Answers `InspectGalera`.
pub(super) async fn inspect(
    shared: &Shared,
    mut request: wire::InspectGaleraRequest,
) -> Result<wire::InspectGaleraReply, Failure> {
    let wanted = request.recover_position();
    let locator = locator(request.target.take())?;
    let roles: Vec<VolumeRole> = locator.volumes.iter().map(|volume| volume.role.clone()).collect();
    if !roles.contains(&VolumeRole::MariadbData) {
        let message = "the target has no volume with a MariaDB data directory";
        return Err(Failure::new("agent-target", FailureKind::Input, message));
    }
    let secret = secret(&request.root_password)?;
    let budget = Budget::new(request.budget_ms);
    let place = Arc::new(shared.admission.enter(&locator.pod, budget.wait()).await?);

    let Some(begun) = begin(&shared.hands, locator.clone(), &budget, place.clone()).await? else {
        let unread = budget.too_slow();
        return Ok(reply(
            Node::unread(&roles, &unread),
            unread.clone().into(),
            unread.clone().into(),
            unread.into(),
        ));
    };
    let Begun {
        session,
        processes,
        socket,
    } = begun;
    let server = match socket {
        Ok((socket, password)) => {
            let mut passwords = Passwords::default();
            passwords.extend(password.map(RootPassword::into_secret));
            passwords.extend(secret);
            let deadline = (Instant::now() + budget.whole / SERVER_SHARE).min(budget.readers);
            live::read(socket, &passwords, deadline.into(), &now).await
        }
        Err(error) => Reading::unread(kind_of_connect(&error), error.to_string()),
    };
    let readers = budget.readers;
    let held = place.clone();
    let read = move || {
        let _place = held;
        node(&session, readers)
    };
    let node = budget
        .run(read)
        .await?
        .unwrap_or_else(|| Node::unread(&roles, &budget.too_slow()));
    let recovered = match needed(wanted, &processes, &server, &node.grastate) {
        Some(reason) => Reading::Unread(reason),
        None => recover(shared, locator, &budget, place).await?,
    };
    let processes = match processes {
        Ok(processes) => Reading::known(processes, "/proc", now()),
        Err(error) => Reading::unread(kind_of_process(&error), error.to_string()),
    };
    Ok(reply(node, processes, recovered, server))
}

fn secret(bytes: &[u8]) -> Result<Option<SecretString>, Failure> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let text = std::str::from_utf8(bytes)
        .ok()
        .filter(|text| text.len() <= PASSWORD_MAX);
    let invalid = || {
        Failure::new(
            "agent-password",
            FailureKind::Input,
            "the root password is not a short text",
        )
    };
    text.map(|text| Some(SecretString::from(text)))
        .ok_or_else(invalid)
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
        let processes = session.mariadb_processes();
        let socket = match &processes {
            Ok(MariadbProcesses { server: None, .. }) => Err(ConnectError::NoServer),
            Ok(_) => session.mariadb_socket(),
            Err(error) => Err(ConnectError::Processes(error.clone())),
        };
        Ok(Begun {
            session: Arc::new(session),
            processes,
            socket,
        })
    };
    budget.run(begin).await?.transpose()
}

fn node(session: &Session, until: Instant) -> Node {
    let files = Files {
        directory: session,
        now: &now,
    };
    let deadline = Deadline::until(until);
    Inspection {
        files,
        deadline: &deadline,
    }
    .node()
}

/// Why no recovery is to be begun, or `None`.
fn needed(
    wanted: wire::PositionRecovery,
    processes: &Result<MariadbProcesses, ProcessError>,
    server: &Reading<Server>,
    grastate: &Reading<GraState>,
) -> Option<Unread> {
    let no = |kind, detail: &str| Some(Unread::new(kind, detail));
    if wanted == wire::PositionRecovery::Unspecified {
        return no(UnreadKind::NotNeeded, "not asked for");
    }
    match (processes, server) {
        (_, Reading::Known(_)) => no(UnreadKind::NotNeeded, "the server answers"),
        (Ok(MariadbProcesses { server: Some(_), .. }), Reading::Unread(why)) => Some(Unread::new(
            why.kind,
            "a server runs, which alone can say where it stands",
        )),
        (Err(error), _) => no(UnreadKind::Depends, &format!("processes: {error}")),
        (Ok(_), _) => match grastate {
            Reading::Known(state)
                if wanted == wire::PositionRecovery::IfNeeded && state.value.has_position() =>
            {
                no(UnreadKind::NotNeeded, "grastate.dat has the position")
            }
            _ => None,
        },
    }
}

async fn recover(
    shared: &Shared,
    locator: InstanceLocator,
    budget: &Budget,
    place: Arc<Place>,
) -> Result<Reading<RecoveredPosition>, Failure> {
    // One at a time: it is a database server, and takes this agent's memory.
    let turn = shared.recoveries.clone().acquire_owned();
    let Ok(Ok(turn)) = tokio::time::timeout_at(budget.readers.into(), turn).await else {
        return Ok(Reading::unread(
            UnreadKind::Timeout,
            "another recovery is under way on this node",
        ));
    };
    let left = budget.readers.saturating_duration_since(Instant::now());
    let limit = left.saturating_sub(RECOVERY_MARGIN);
    if limit < RECOVERY_MIN {
        return Ok(Reading::unread(
            UnreadKind::Timeout,
            format!("{} ms are left, too little for a recovery", left.as_millis()),
        ));
    }
    let hands = shared.hands.clone();
    let run = move || -> Result<_, Failure> {
        let _held = (place, turn);
        // It outlives its limit, so that it can clean up even where nobody waits any more.
        let lifetime = limit + Duration::from_secs(10);
        let session = hands
            .recovery(&locator, lifetime)
            .map_err(|error| refused(&error))?;
        Ok(session.recover(limit))
    };
    Ok(match budget.run(run).await?.transpose()? {
        None => budget.too_slow().into(),
        Some(Ok(run)) => position(&run),
        Some(Err(RecoverError::NoData(proof))) => Reading::absent(proof),
        Some(Err(error)) => Reading::unread(kind_of_recover(&error), error.to_string()),
    })
}

fn position(run: &RecoveryRun) -> Reading<RecoveredPosition> {
    match (recovered::parse(run.log.as_bytes()), run.exit) {
        (Ok(recovered), Some(0)) => {
            let position = RecoveredPosition {
                recovered,
                elapsed_ms: run.elapsed_ms,
                scratch_bytes: run.scratch_bytes,
            };
            Reading::known(position, "mariadbd --wsrep-recover on an overlay", now())
        }
        (Ok(_), exit) => Reading::unread(
            UnreadKind::ServerError,
            format!("mariadbd --wsrep-recover ended with {exit:?} after it named a position"),
        ),
        (Err(error), _) => Reading::Unread(error.into()),
    }
}

fn kind_of_recover(error: &RecoverError) -> UnreadKind {
    match error {
        RecoverError::NoData(_) => UnreadKind::Depends,
        RecoverError::InUse(_) | RecoverError::Refused(_) => UnreadKind::Refused,
        RecoverError::NoProgram(_) => UnreadKind::NoProgram,
        RecoverError::NoRoom(_) => UnreadKind::TooLarge,
        RecoverError::Timeout(_) => UnreadKind::Timeout,
        RecoverError::Step { .. } => UnreadKind::Io,
        RecoverError::Processes(error) => kind_of_process(error),
        RecoverError::Volume(error) => Unread::from(error).kind,
    }
}

fn reply(
    node: Node,
    processes: Reading<MariadbProcesses>,
    recovered: Reading<RecoveredPosition>,
    server: Reading<Server>,
) -> wire::InspectGaleraReply {
    wire::InspectGaleraReply {
        processes: Some(processes.into()),
        recovered: Some(recovered.into()),
        server: Some(server.into()),
        ..node.into()
    }
}
