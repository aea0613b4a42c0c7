//! The head's side of the socket: [`Hands`] and [`Session`].

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::unistd::Pid;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::mariadb::RootPassword;
use super::packet::{PacketError, PacketSocket};
use super::verb::{
    ConnectError, ControlAnswer, ControlRequest, HandsStatus, InstanceLocator, MariadbProcesses, Numbered,
    ProcessError, Processes, RecoverError, RecoveryRun, SESSION_MAX_SECONDS, SessionAnswer, SessionRequest,
};
use crate::volume::{DataDirectory, Listing, ReadError, RelativePath, Space, Stat, VolumeRole};

/// The hands themselves only fork: they answer at once, or are gone.
const CONTROL_TIME: Duration = Duration::from_secs(5);

/// A session whose socket is closed ends within this, unless its volume hangs.
const ENDING_TIME: Duration = Duration::from_millis(500);

/// Why the hands gave no session.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// They do not answer any more.
    #[error("hands: {0}")]
    Lost(#[from] PacketError),
    /// Too many sessions are open, here or for this pod.
    #[error("hands are busy: {0}")]
    Busy(String),
    /// They answered something else.
    #[error("hands: an answer to another question")]
    Mixed,
}

/// One end of a socket on which questions are asked one at a time.
#[derive(Debug)]
struct Line {
    socket: PacketSocket,
    next: u64,
}

impl Line {
    fn new(socket: PacketSocket) -> Mutex<Self> {
        Mutex::new(Self { socket, next: 0 })
    }

    fn ask<Q: Serialize, A: DeserializeOwned>(
        &mut self,
        question: Q,
        within: Duration,
    ) -> Result<(A, Option<OwnedFd>), PacketError> {
        let id = self.next;
        self.next += 1;
        let deadline = Instant::now() + within;
        self.socket.set_timeout(within)?;
        self.socket.send(&Numbered { id, body: question }, None)?;
        loop {
            let (Numbered { id: answered, body }, descriptor) = self.socket.receive::<Numbered<A>>()?;
            if answered == id {
                return Ok((body, descriptor));
            }
            // The late answer to a question that nobody waits for any more.
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(PacketError::Timeout);
            }
            self.socket.set_timeout(left)?;
        }
    }
}

/// The hands, as the head knows them. Dropping this ends them.
#[derive(Debug)]
pub struct Hands {
    control: Mutex<Line>,
    lifeline: UnixStream,
    pid: Pid,
}

impl Hands {
    pub(super) fn new(control: PacketSocket, lifeline: UnixStream, pid: Pid) -> Self {
        Self {
            control: Line::new(control),
            lifeline,
            pid,
        }
    }

    /// Their process.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Ends (end of file) when the hands are gone; nothing is ever sent on it.
    pub fn lifeline(&self) -> std::io::Result<UnixStream> {
        self.lifeline.try_clone()
    }

    /// How they are.
    pub fn status(&self) -> Result<HandsStatus, SessionError> {
        match self.ask(ControlRequest::Status)? {
            (ControlAnswer::Status(status), _) => Ok(status),
            _ => Err(SessionError::Mixed),
        }
    }

    /// A session for one instance, which the kernel ends after `lifetime`, at most ten minutes. Sessions that were closed just
    /// now may still be ending: full hands are asked again for half a second.
    pub fn session(&self, instance: &InstanceLocator, lifetime: Duration) -> Result<Session, SessionError> {
        self.begin(instance, lifetime, false)
    }

    /// The same, for [`Session::recover`].
    pub fn recovery(&self, instance: &InstanceLocator, lifetime: Duration) -> Result<Session, SessionError> {
        self.begin(instance, lifetime, true)
    }

    fn begin(
        &self,
        instance: &InstanceLocator,
        lifetime: Duration,
        recover: bool,
    ) -> Result<Session, SessionError> {
        let full = Instant::now() + ENDING_TIME;
        loop {
            match self.session_now(instance, lifetime, recover) {
                Err(SessionError::Busy(_)) if Instant::now() < full => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                other => return other,
            }
        }
    }

    fn session_now(
        &self,
        instance: &InstanceLocator,
        lifetime: Duration,
        recover: bool,
    ) -> Result<Session, SessionError> {
        let seconds = u16::try_from(lifetime.as_secs().saturating_add(1))
            .unwrap_or(SESSION_MAX_SECONDS)
            .min(SESSION_MAX_SECONDS);
        match self.ask(ControlRequest::Session {
            instance: instance.clone(),
            seconds,
            recover,
        })? {
            (ControlAnswer::Session, Some(socket)) => Ok(Session {
                line: Line::new(PacketSocket::from_descriptor(socket)),
                volumes: instance
                    .volumes
                    .iter()
                    .map(|volume| volume.role.clone())
                    .collect(),
                deadline: Instant::now() + lifetime,
            }),
            (ControlAnswer::Busy(detail), _) => Err(SessionError::Busy(detail)),
            _ => Err(SessionError::Mixed),
        }
    }

    fn ask(&self, request: ControlRequest) -> Result<(ControlAnswer, Option<OwnedFd>), PacketError> {
        self.control
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .ask(request, CONTROL_TIME)
    }
}

/// One instance's volumes, processes and server, as a process of the hands sees them. Several threads may ask; answers come
/// one at a time. Dropping it ends that process. Its time over, every question fails at once.
#[derive(Debug)]
pub struct Session {
    line: Mutex<Line>,
    volumes: Vec<VolumeRole>,
    deadline: Instant,
}

impl Session {
    /// The processes of the instance's container.
    pub fn processes(&self) -> Result<Processes, ProcessError> {
        match self.ask(SessionRequest::Processes) {
            Ok((SessionAnswer::Processes(answer), _)) => answer,
            Ok(_) => Err(ProcessError::Lost("an answer to another question".to_owned())),
            Err(PacketError::Timeout) => Err(ProcessError::Timeout(SLOW.to_owned())),
            Err(error) => Err(ProcessError::Lost(error.to_string())),
        }
    }

    /// A connection to the instance's server, made as the server's own user. Non-blocking.
    pub fn connect(&self) -> Result<UnixStream, ConnectError> {
        match self.ask(SessionRequest::Connect) {
            Ok((SessionAnswer::Connected(Ok(())), Some(connection))) => Ok(UnixStream::from(connection)),
            Ok((SessionAnswer::Connected(Err(error)), _)) => Err(error),
            Ok(_) => Err(ConnectError::Attempt("an answer to another question".to_owned())),
            Err(PacketError::Timeout) => Err(ConnectError::Timeout(SLOW.to_owned())),
            Err(error) => Err(ConnectError::Attempt(error.to_string())),
        }
    }

    /// The processes of a MariaDB instance's container.
    pub fn mariadb_processes(&self) -> Result<MariadbProcesses, ProcessError> {
        match self.ask(SessionRequest::MariadbProcesses) {
            Ok((SessionAnswer::MariadbProcesses(answer), _)) => answer,
            Ok(_) => Err(ProcessError::Lost("an answer to another question".to_owned())),
            Err(PacketError::Timeout) => Err(ProcessError::Timeout(SLOW.to_owned())),
            Err(error) => Err(ProcessError::Lost(error.to_string())),
        }
    }

    /// The socket file of a MariaDB server (`O_PATH`), and the root password in the server's environment.
    pub fn mariadb_socket(&self) -> Result<(OwnedFd, Option<RootPassword>), ConnectError> {
        match self.ask(SessionRequest::MariadbSocket) {
            Ok((SessionAnswer::MariadbSocket(Ok(password)), Some(socket))) => Ok((socket, password)),
            Ok((SessionAnswer::MariadbSocket(Err(error)), _)) => Err(error),
            Ok(_) => Err(ConnectError::Attempt("an answer to another question".to_owned())),
            Err(PacketError::Timeout) => Err(ConnectError::Timeout(SLOW.to_owned())),
            Err(error) => Err(ConnectError::Attempt(error.to_string())),
        }
    }

    /// Runs `mariadbd --wsrep-recover` of the instance's container on an overlay of its data directory, which does not
    /// change by a byte. Only in a session of [`Hands::recovery`]. The session should outlive `limit` by some seconds.
    pub fn recover(&self, limit: Duration) -> Result<RecoveryRun, RecoverError> {
        let millis = u32::try_from(limit.as_millis()).unwrap_or(u32::MAX);
        let lost = |detail: String| RecoverError::Step {
            step: "hands".to_owned(),
            detail,
        };
        match self.ask(SessionRequest::Recover(millis)) {
            Ok((SessionAnswer::Recovered(answer), _)) => answer,
            Ok(_) => Err(lost("an answer to another question".to_owned())),
            Err(PacketError::Timeout) => Err(RecoverError::Timeout(SLOW.to_owned())),
            Err(error) => Err(lost(error.to_string())),
        }
    }

    fn ask(&self, request: SessionRequest) -> Result<(SessionAnswer, Option<OwnedFd>), PacketError> {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        match self.deadline.checked_duration_since(Instant::now()) {
            Some(left) if !left.is_zero() => line.ask(request, left),
            _ => Err(PacketError::Timeout),
        }
    }

    fn read(
        &self,
        path: &str,
        request: SessionRequest,
    ) -> Result<(SessionAnswer, Option<OwnedFd>), ReadError> {
        self.ask(request).map_err(|error| match error {
            PacketError::Timeout => ReadError::Timeout {
                detail: format!("{path}: {SLOW}"),
            },
            other => ReadError::Io {
                path: path.to_owned(),
                detail: format!("hands: {other}"),
            },
        })
    }
}

const SLOW: &str = "the hands did not answer in time";

fn mixed<T>(path: &str) -> Result<T, ReadError> {
    Err(ReadError::Io {
        path: path.to_owned(),
        detail: "hands: an answer to another question".to_owned(),
    })
}

impl DataDirectory for Session {
    fn open(&self, path: &RelativePath) -> Result<File, ReadError> {
        match self.read(path.as_str(), SessionRequest::Open(path.clone()))? {
            (SessionAnswer::Opened(Ok(())), Some(file)) => Ok(File::from(file)),
            (SessionAnswer::Opened(Err(error)), _) => Err(error),
            _ => mixed(path.as_str()),
        }
    }

    fn open_on(&self, volume: &VolumeRole, path: &RelativePath) -> Result<File, ReadError> {
        let request = SessionRequest::OpenOn(volume.clone(), path.clone());
        match self.read(path.as_str(), request)? {
            (SessionAnswer::Opened(Ok(())), Some(file)) => Ok(File::from(file)),
            (SessionAnswer::Opened(Err(error)), _) => Err(error),
            _ => mixed(path.as_str()),
        }
    }

    fn list(&self, path: &RelativePath, limit: usize) -> Result<Listing, ReadError> {
        match self.read(path.as_str(), SessionRequest::List(path.clone(), limit))? {
            (SessionAnswer::Listing(answer), _) => answer,
            _ => mixed(path.as_str()),
        }
    }

    fn list_volume(&self, volume: &VolumeRole, limit: usize) -> Result<Listing, ReadError> {
        match self.read(".", SessionRequest::ListVolume(volume.clone(), limit))? {
            (SessionAnswer::Listing(answer), _) => answer,
            _ => mixed("."),
        }
    }

    fn read_link(&self, path: &RelativePath) -> Result<PathBuf, ReadError> {
        match self.read(path.as_str(), SessionRequest::ReadLink(path.clone()))? {
            (SessionAnswer::Link(answer), _) => answer.map(PathBuf::from),
            _ => mixed(path.as_str()),
        }
    }

    fn stat(&self, path: &RelativePath) -> Result<Stat, ReadError> {
        match self.read(path.as_str(), SessionRequest::Stat(path.clone()))? {
            (SessionAnswer::Stat(answer), _) => answer,
            _ => mixed(path.as_str()),
        }
    }

    fn space(&self, volume: &VolumeRole) -> Result<Space, ReadError> {
        match self.read(".", SessionRequest::Space(volume.clone()))? {
            (SessionAnswer::Space(answer), _) => answer,
            _ => mixed("."),
        }
    }

    fn volumes(&self) -> Vec<VolumeRole> {
        self.volumes.clone()
    }
}
