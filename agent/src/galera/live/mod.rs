//! What the running server says of itself, over its own socket. Two `SHOW` statements, which a node without quorum answers
//! too and which need no privilege. A server that is hung accepts the connection and never answers, so everything ends at the
//! deadline.

pub mod answer;

use std::fmt;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

pub use answer::{AnswerError, ComponentStatus, Rows, Server};
use hasteward_proto::primitive::UnixMillis;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, DriverError, Error, IoError, OptsBuilder, ServerError};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::{Instant, timeout_at};

use crate::postgres::reading::{Reading, Unread, UnreadKind};

/// Everything of wsrep, and how long it has been up.
const STATUS: &str = "SHOW GLOBAL STATUS WHERE Variable_name LIKE 'wsrep\\_%' OR Variable_name = 'Uptime'";

/// Settings that decide something.
const VARIABLES: &str = "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('version', 'wsrep_on', 'read_only', \
     'wsrep_cluster_name', 'wsrep_node_name', 'wsrep_sst_method', 'innodb_flush_log_at_trx_commit')";

/// Rows of one answer: far above what there is.
const ROWS_MAX: usize = 4096;

/// Bytes of the longest packet that is accepted.
const PACKET_MAX: usize = 1024 * 1024;

/// Bytes of all rows; a real answer has some ten thousand.
const ANSWER_MAX: usize = 4 * 1024 * 1024;

/// Password refused.
const ER_ACCESS_DENIED: u16 = 1045;

/// What may be tried as root's password, in this order.
#[derive(Clone, Default)]
pub struct Passwords(Vec<SecretString>);

impl Passwords {
    fn add(&mut self, password: SecretString) {
        let known = |other: &SecretString| other.expose_secret() == password.expose_secret();
        if !password.expose_secret().is_empty() && !self.0.iter().any(known) {
            self.0.push(password);
        }
    }
}

impl Extend<SecretString> for Passwords {
    /// Adds those that are neither empty nor known.
    fn extend<T: IntoIterator<Item = SecretString>>(&mut self, passwords: T) {
        for password in passwords {
            self.add(password);
        }
    }
}

impl fmt::Debug for Passwords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passwords", self.0.len())
    }
}

/// Why the server could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// It did not answer in time.
    #[error("no answer within {} ms", .0.as_millis())]
    Hung(Duration),
    /// It answered with an error.
    #[error("{code}: {message}")]
    Sql {
        /// MariaDB's number.
        code: u16,
        /// The server's message.
        message: String,
    },
    /// Root's password is not known.
    #[error("root's password is refused ({tried} tried): {message}")]
    Password {
        /// How many.
        tried: usize,
        /// The server's message.
        message: String,
    },
    /// The connection broke.
    #[error("connection: {0}")]
    Connection(String),
    /// What was said is not MariaDB's protocol.
    #[error("protocol: {0}")]
    Protocol(String),
    /// It sent more than any server has to say.
    #[error("answered more than {ANSWER_MAX} bytes")]
    TooLong,
    /// The answer is not what the query asks for.
    #[error(transparent)]
    Answer(#[from] AnswerError),
}

impl From<Error> for LiveError {
    fn from(error: Error) -> Self {
        match error {
            Error::Server(ServerError { code, message, .. }) => Self::Sql { code, message },
            Error::Io(IoError::Io(error)) => Self::Connection(error.to_string()),
            Error::Driver(DriverError::ConnectionClosed) => {
                Self::Connection("closed by the server".to_owned())
            }
            other => Self::Protocol(other.to_string()),
        }
    }
}

impl From<LiveError> for Unread {
    fn from(error: LiveError) -> Self {
        let kind = match error {
            LiveError::Hung(_) => UnreadKind::ServerHung,
            LiveError::Connection(_) => UnreadKind::ServerDown,
            LiveError::Sql { .. }
            | LiveError::Password { .. }
            | LiveError::Protocol(_)
            | LiveError::TooLong
            | LiveError::Answer(_) => UnreadKind::ServerError,
        };
        Self::new(kind, format!("server: {error}"))
    }
}

/// Asks the server whose socket file is `socket` (an `O_PATH` descriptor), as root with one of `passwords`, until `deadline`.
pub async fn read(
    socket: OwnedFd,
    passwords: &Passwords,
    deadline: Instant,
    now: &(dyn Fn() -> UnixMillis + Sync),
) -> Reading<Server> {
    let budget = deadline.saturating_duration_since(Instant::now());
    let answer = match timeout_at(deadline, ask(&socket, passwords)).await {
        Ok(answer) => answer,
        Err(_) => Err(LiveError::Hung(budget)),
    };
    match answer {
        Ok(server) => Reading::known(server, "SQL over the server's socket", now()),
        Err(error) => Reading::Unread(error.into()),
    }
}

async fn ask(socket: &OwnedFd, passwords: &Passwords) -> Result<Server, LiveError> {
    let mut connection = connect(socket, passwords).await?;
    let mut rows = Rows::default();
    let mut left = ANSWER_MAX;
    for query in [VARIABLES, STATUS] {
        let mut answer = connection.query_iter(query).await?;
        let mut count = 0;
        while let Some(row) = answer.next().await? {
            count += 1;
            if count > ROWS_MAX {
                return Err(LiveError::Protocol(format!("more than {ROWS_MAX} rows")));
            }
            let (name, value) = mysql_async::from_row_opt::<(String, String)>(row)
                .map_err(|error| LiveError::Protocol(error.to_string()))?;
            let length = name.len().saturating_add(value.len());
            left = left.checked_sub(length).ok_or(LiveError::TooLong)?;
            rows.add(&name, value);
        }
    }
    // The answer is complete; how the farewell goes does not matter.
    let _ = connection.disconnect().await;
    Ok(rows.server()?)
}

async fn connect(socket: &OwnedFd, passwords: &Passwords) -> Result<Conn, LiveError> {
    let none = SecretString::default();
    let candidates: Vec<&SecretString> = match passwords.0.as_slice() {
        // `rootEmptyPassword`, or root by its socket.
        [] => vec![&none],
        some => some.iter().collect(),
    };
    let tried = candidates.len();
    let mut refused = String::new();
    for password in candidates {
        let options = OptsBuilder::default()
            // The very socket that the hands looked at, whatever its path is in the container.
            .socket(Some(format!("/proc/self/fd/{}", socket.as_raw_fd())))
            .user(Some("root"))
            .pass(Some(password.expose_secret()))
            .prefer_socket(false)
            // Both given: it asks for neither, which a node without quorum would refuse.
            .max_allowed_packet(Some(PACKET_MAX))
            .wait_timeout(Some(30))
            .stmt_cache_size(0);
        match Conn::new(options).await {
            Ok(connection) => return Ok(connection),
            Err(Error::Server(ServerError { code, message, .. })) if code == ER_ACCESS_DENIED => {
                refused = message;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(LiveError::Password {
        tried,
        message: refused,
    })
}
