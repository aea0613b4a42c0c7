//! A connection to a server's socket, made as the server's own user: PostgreSQL asks the kernel who connected (peer
//! authentication), and answers nobody else, root included.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::poll::{PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, socket, sockopt};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::sys::wait::waitpid;
use serde::{Deserialize, Serialize};

use super::fork::{Fork, fork};
use super::packet::PacketSocket;
use super::privilege::become_user;
use super::verb::{ConnectError, Postmaster};

/// CNPG's socket in the instance's container (`unix_socket_directories`, CNPG `pkg/postgres/configuration.go`).
const SOCKET: &str = "controller/run/.s.PGSQL.5432";

/// A full backlog empties within this, or the server does not accept.
const BACKLOG_TIME: Duration = Duration::from_millis(300);

/// The child is not waited for longer.
const CHILD_TIME: Duration = Duration::from_secs(2);

/// What the child reports.
#[derive(Debug, Serialize, Deserialize)]
enum Report {
    Connected,
    Failed { step: String, errno: i32 },
}

/// Connects to the server whose `/proc/<pid>` is `directory`.
pub(super) fn connect_as_server(
    server: &Postmaster,
    directory: BorrowedFd<'_>,
) -> Result<OwnedFd, ConnectError> {
    let pid = server.pid;
    if server.uid == 0 || server.gid == 0 {
        return Err(ConnectError::Refused(format!(
            "the server, process {pid}, runs as uid {} gid {}",
            server.uid, server.gid
        )));
    }
    if server.stopped {
        return Err(ConnectError::Hung {
            pid,
            detail: "it is stopped by a signal or a tracer".to_owned(),
        });
    }
    let place = open_socket_file(pid, directory, SOCKET)?;
    let (ours, theirs) =
        PacketSocket::pair().map_err(|errno| ConnectError::Attempt(errno.desc().to_owned()))?;
    let child = match fork().map_err(|error| ConnectError::Attempt(error.to_string()))? {
        Fork::Child => {
            drop(ours);
            child(server, place.as_fd(), &theirs);
            std::process::exit(0);
        }
        Fork::Parent(child) => child,
    };
    drop(theirs);
    let _ = ours.set_timeout(CHILD_TIME);
    let reported = ours.receive::<Report>();
    let _ = kill(child, Signal::SIGKILL);
    let _ = waitpid(child, None);
    match reported {
        Ok((Report::Connected, Some(connection))) => check_listener(server, &connection).map(|()| connection),
        Ok((Report::Connected, None)) => Err(ConnectError::Attempt(
            "the connection was lost on the way".to_owned(),
        )),
        Ok((Report::Failed { step, errno }, _)) => Err(match Errno::from_raw(errno) {
            Errno::EAGAIN => ConnectError::Hung {
                pid,
                detail: "its backlog is full".to_owned(),
            },
            Errno::ECONNREFUSED => ConnectError::NotListening {
                pid,
                detail: "nobody listens on its socket".to_owned(),
            },
            errno => ConnectError::Attempt(format!("{step}: {}", errno.desc())),
        }),
        Err(error) => Err(ConnectError::Attempt(error.to_string())),
    }
}

/// A handle on the socket, resolved as the container would: links that are absolute there stay inside its root.
pub(super) fn open_socket_file(
    pid: u32,
    directory: BorrowedFd<'_>,
    socket: &str,
) -> Result<OwnedFd, ConnectError> {
    let handle = OFlag::O_PATH | OFlag::O_CLOEXEC;
    let attempt = |errno: Errno| ConnectError::Attempt(format!("/proc/{pid}/root: {}", errno.desc()));
    let root = openat(directory, "root", handle | OFlag::O_DIRECTORY, Mode::empty()).map_err(attempt)?;
    let inside = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    let how = OpenHow::new().flags(handle | OFlag::O_NOFOLLOW).resolve(inside);
    let place = openat2(&root, socket, how).map_err(|errno| match errno {
        Errno::ENOENT | Errno::ENOTDIR => ConnectError::NotListening {
            pid,
            detail: format!("/{socket} is not there"),
        },
        Errno::ELOOP | Errno::EXDEV => ConnectError::Refused(format!("/{socket} leads elsewhere")),
        errno => ConnectError::Attempt(format!("/{socket}: {}", errno.desc())),
    })?;
    let mode = fstat(&place).map_err(attempt)?.st_mode;
    if SFlag::from_bits_truncate(mode) & SFlag::S_IFMT == SFlag::S_IFSOCK {
        Ok(place)
    } else {
        Err(ConnectError::Refused(format!("/{socket} is no socket")))
    }
}

/// Whoever listens must be the server's user; the database could have put another program's socket there.
fn check_listener(server: &Postmaster, connection: &OwnedFd) -> Result<(), ConnectError> {
    let peer = getsockopt(connection, sockopt::PeerCredentials)
        .map_err(|errno| ConnectError::Attempt(format!("who listens: {}", errno.desc())))?;
    if peer.uid() == server.uid {
        Ok(())
    } else {
        Err(ConnectError::Refused(format!(
            "uid {} listens on /{SOCKET}, the server is uid {}",
            peer.uid(),
            server.uid
        )))
    }
}

/// In the child: become the server's user, connect, hand the connection over.
fn child(server: &Postmaster, place: BorrowedFd<'_>, parent: &PacketSocket) {
    // The kernel ends this process even where its parent cannot.
    nix::unistd::alarm::set(5);
    let outcome = (|| {
        become_user(server.uid, server.gid).map_err(|errno| ("becoming the server's user", errno))?;
        // After the change of user, which clears it.
        prctl::set_pdeathsig(Signal::SIGKILL).map_err(|errno| ("death signal", errno))?;
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let connection = socket(AddressFamily::Unix, SockType::Stream, flags, None)
            .map_err(|errno| ("making a socket", errno))?;
        // Short whatever the path is (sun_path holds 107 bytes), and the very file that was looked at.
        let address = UnixAddr::new(format!("/proc/self/fd/{}", place.as_raw_fd()).as_str())
            .map_err(|errno| ("naming the socket", errno))?;
        let deadline = Instant::now() + BACKLOG_TIME;
        loop {
            match connect(connection.as_raw_fd(), &address) {
                Ok(()) => return Ok(connection),
                Err(Errno::EINTR) => {}
                // A Unix socket is connected at once or not at all; EAGAIN: the backlog is full.
                Err(Errno::EAGAIN) if Instant::now() < deadline => {
                    let _ = poll(&mut [], PollTimeout::from(10u8));
                }
                Err(errno) => return Err(("connecting", errno)),
            }
        }
    })();
    let _ = match outcome {
        Ok(connection) => parent.send(&Report::Connected, Some(connection.as_fd())),
        Err((step, errno)) => parent.send(
            &Report::Failed {
                step: step.to_owned(),
                errno: errno as i32,
            },
            None,
        ),
    };
}
