//! One session: a process of the hands for one instance, which ends with its socket or its time.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use super::HandsConfig;
use super::connect::connect_as_server;
use super::locate::locate;
use super::mariadb::{self, FoundMariadb, RootPassword};
use super::packet::{PacketError, PacketSocket};
use super::process::{Found, ProcessTable};
use super::recover;
use super::verb::{
    ConnectError, InstanceLocator, Numbered, ProcessError, RecoverError, SessionAnswer, SessionRequest,
};
use crate::volume::{DataDirectory, ReadError, VolumeTree};

/// What a session remembers.
struct State<'a> {
    config: &'a HandsConfig,
    instance: &'a InstanceLocator,
    tree: Option<VolumeTree>,
    found: Option<Found>,
    mariadb: Option<FoundMariadb>,
    recover: bool,
}

/// Answers until the other end closes.
pub(super) fn serve(
    config: &HandsConfig,
    instance: &InstanceLocator,
    socket: &PacketSocket,
    recover: bool,
) -> Result<(), PacketError> {
    let mut state = State {
        config,
        instance,
        tree: None,
        found: None,
        mariadb: None,
        recover,
    };
    loop {
        let Numbered { id, body } = match socket.receive::<Numbered<SessionRequest>>() {
            Ok((request, _)) => request,
            Err(PacketError::Closed) => return Ok(()),
            Err(error) => return Err(error),
        };
        let (body, descriptor) = state.answer(body);
        match socket.send(&Numbered { id, body }, descriptor.as_ref().map(AsFd::as_fd)) {
            Ok(()) => {}
            Err(PacketError::Closed) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

impl State<'_> {
    fn answer(&mut self, request: SessionRequest) -> (SessionAnswer, Option<OwnedFd>) {
        let plain = |answer| (answer, None);
        match request {
            SessionRequest::Processes => plain(SessionAnswer::Processes(
                self.processes().map(|found| found.processes.clone()),
            )),
            SessionRequest::Connect => {
                let (outcome, connection) = split(self.connect());
                (SessionAnswer::Connected(outcome), connection)
            }
            SessionRequest::Open(path) => {
                let (outcome, file) = split(self.tree().open(&path).map(OwnedFd::from));
                (SessionAnswer::Opened(outcome), file)
            }
            SessionRequest::List(path, limit) => {
                plain(SessionAnswer::Listing(self.tree().list(&path, limit)))
            }
            SessionRequest::ListVolume(role, limit) => {
                plain(SessionAnswer::Listing(self.tree().list_volume(&role, limit)))
            }
            SessionRequest::ReadLink(path) => {
                let text = self.tree().read_link(&path).and_then(|target| {
                    target
                        .into_os_string()
                        .into_string()
                        .map_err(|_| ReadError::Refused {
                            path: path.to_string(),
                            why: "its target is not UTF-8".to_owned(),
                        })
                });
                plain(SessionAnswer::Link(text))
            }
            SessionRequest::Stat(path) => plain(SessionAnswer::Stat(self.tree().stat(&path))),
            SessionRequest::Space(role) => plain(SessionAnswer::Space(self.tree().space(&role))),
            SessionRequest::OpenOn(role, path) => {
                let (outcome, file) = split(self.tree().open_on(&role, &path).map(OwnedFd::from));
                (SessionAnswer::Opened(outcome), file)
            }
            SessionRequest::MariadbProcesses => plain(SessionAnswer::MariadbProcesses(
                self.mariadb().map(|found| found.processes.clone()),
            )),
            SessionRequest::MariadbSocket => match self.mariadb_socket() {
                Ok((socket, password)) => (SessionAnswer::MariadbSocket(Ok(password)), Some(socket)),
                Err(error) => plain(SessionAnswer::MariadbSocket(Err(error))),
            },
            SessionRequest::Recover(millis) => {
                let limit = Duration::from_millis(millis.into());
                let outcome = if self.recover {
                    recover::run(self.config, self.instance, limit)
                } else {
                    Err(RecoverError::Refused("this session may not recover".to_owned()))
                };
                plain(SessionAnswer::Recovered(outcome))
            }
        }
    }

    fn tree(&mut self) -> &VolumeTree {
        self.tree
            .get_or_insert_with(|| VolumeTree::from_mounts(locate(self.config, self.instance)))
    }

    fn processes(&mut self) -> Result<&mut Found, ProcessError> {
        let table = ProcessTable::open(&self.config.proc)?;
        let found = table.of_instance(&self.instance.pod, self.instance.container.as_ref())?;
        Ok(self.found.insert(found))
    }

    fn mariadb(&mut self) -> Result<&mut FoundMariadb, ProcessError> {
        let table = ProcessTable::open(&self.config.proc)?;
        let found = mariadb::of_instance(&table, &self.instance.pod, self.instance.container.as_ref())?;
        Ok(self.mariadb.insert(found))
    }

    fn mariadb_socket(&mut self) -> Result<(OwnedFd, Option<RootPassword>), ConnectError> {
        let known = self.mariadb.take().filter(mariadb::still_runs);
        let found = match known {
            Some(found) => self.mariadb.insert(found),
            None => self.mariadb()?,
        };
        match (&found.processes.server, &found.directory) {
            (Some(server), Some(directory)) => mariadb::socket(server, directory.as_fd()),
            _ => Err(ConnectError::NoServer),
        }
    }

    fn connect(&mut self) -> Result<OwnedFd, ConnectError> {
        // A server that has been restarted since is another process.
        let known = self.found.take().filter(ProcessTable::still_runs);
        let found = match known {
            Some(found) => self.found.insert(found),
            None => self.processes()?,
        };
        match (&found.processes.postmaster, &found.directory) {
            (Some(server), Some(directory)) => connect_as_server(server, directory.as_fd()),
            _ => Err(ConnectError::NoServer),
        }
    }
}

fn split<E>(outcome: Result<OwnedFd, E>) -> (Result<(), E>, Option<OwnedFd>) {
    match outcome {
        Ok(descriptor) => (Ok(()), Some(descriptor)),
        Err(error) => (Err(error), None),
    }
}
