//! What the running server says of itself, over a connection that is already made (peer authentication as `postgres`).
//!
//! One query in one read-only transaction, whose answer is one JSON object: [`answer`] takes it apart. A server that is hung
//! must not hang us, so everything ends at the deadline, and the server's side ends itself by `statement_timeout`.

pub mod answer;
mod bounded;

use std::time::Duration;

pub use answer::{AnswerError, Archiver, Receiver, Server, ServerSlot, Standby};
use bounded::Bounded;
use hasteward_proto::primitive::UnixMillis;
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout_at};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Config, NoTls, SimpleQueryMessage};

use super::reading::{Reading, Unread, UnreadKind};

/// Works on 13 to 18, on primaries and standbys.
const QUERY: &str = include_str!("server.sql");

/// Least time that a statement gets.
const LEAST: Duration = Duration::from_millis(100);

/// Bytes that a server may send in all; a real answer has some ten thousand.
const ANSWER_MAX: usize = 4 * 1024 * 1024;

/// Why the server could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// It did not answer in time.
    #[error("no answer within {} ms", .0.as_millis())]
    Hung(Duration),
    /// It refuses for now: it is starting up, shutting down, or in recovery without hot standby (SQLSTATE 57P03).
    #[error("not ready: {0}")]
    NotReady(String),
    /// It ended the statement or the connection for taking too long.
    #[error("canceled: {0}")]
    Canceled(String),
    /// It answered with another error.
    #[error("{code}: {message}")]
    Sql {
        /// SQLSTATE.
        code: String,
        /// The server's message.
        message: String,
    },
    /// The connection broke.
    #[error("connection: {0}")]
    Connection(String),
    /// It sent more than any server has to say.
    #[error("answered more than {ANSWER_MAX} bytes")]
    TooLong,
    /// The answer is not what the query asks for.
    #[error(transparent)]
    Answer(#[from] AnswerError),
}

impl From<tokio_postgres::Error> for LiveError {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(answer) = error.as_db_error() else {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
            return Self::Connection(format!("{error}{}", cause.unwrap_or_default()));
        };
        let message = answer.message().to_owned();
        match answer.code() {
            &SqlState::CANNOT_CONNECT_NOW => Self::NotReady(message),
            &SqlState::QUERY_CANCELED => Self::Canceled(message),
            code => Self::Sql {
                code: code.code().to_owned(),
                message,
            },
        }
    }
}

impl From<LiveError> for Unread {
    fn from(error: LiveError) -> Self {
        let kind = match error {
            LiveError::Hung(_) | LiveError::Canceled(_) => UnreadKind::ServerHung,
            LiveError::Connection(_) => UnreadKind::ServerDown,
            LiveError::NotReady(_) | LiveError::Sql { .. } | LiveError::TooLong | LiveError::Answer(_) => {
                UnreadKind::ServerError
            }
        };
        Self::new(kind, format!("server: {error}"))
    }
}

/// Asks the server at the other end of `stream` until `deadline`.
pub async fn read(
    stream: UnixStream,
    deadline: Instant,
    now: &(dyn Fn() -> UnixMillis + Sync),
) -> Reading<Server> {
    let budget = deadline.saturating_duration_since(Instant::now()).max(LEAST);
    let answer = match timeout_at(deadline, ask(stream, budget)).await {
        Ok(answer) => answer,
        Err(_) => Err(LiveError::Hung(budget)),
    };
    match answer {
        Ok(server) => Reading::known(server, "SQL over the server's socket", now()),
        Err(error) => Reading::Unread(error.into()),
    }
}

/// Aborts the task that drives the connection, which closes it.
struct Driver(tokio::task::JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn ask(stream: UnixStream, budget: Duration) -> Result<Server, LiveError> {
    let (stream, exceeded) = Bounded::new(stream, ANSWER_MAX);
    match converse(stream, budget).await {
        Err(_) if exceeded.get() => Err(LiveError::TooLong),
        other => other,
    }
}

async fn converse(stream: Bounded<UnixStream>, budget: Duration) -> Result<Server, LiveError> {
    let mut config = Config::new();
    let timeout = budget.as_millis();
    config
        .user("postgres")
        .dbname("postgres")
        .application_name("hasteward")
        .options(format!(
            "-c default_transaction_read_only=on -c statement_timeout={timeout} -c lock_timeout={timeout} \
         -c search_path=pg_catalog -c log_min_error_statement=panic"
        ));
    let (client, connection) = config.connect_raw(stream, NoTls).await?;
    let _driver = Driver(tokio::spawn(async move {
        // Its error reaches the client too.
        let _ = connection.await;
    }));
    let answer = match client.simple_query(QUERY).await {
        // The role changed between two functions of the query: ask the new one.
        Err(error) if error.code() == Some(&SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE) => {
            client.simple_query(QUERY).await?
        }
        other => other?,
    };
    let row = answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    Ok(answer::parse(row.ok_or(AnswerError::Empty)?)?)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// A "server" that goes on with `bytes` for as long as anybody reads.
    async fn endless(prelude: &[u8], bytes: &[u8]) -> Unread {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let (prelude, chunk) = (prelude.to_vec(), bytes.repeat(4096));
        let server = tokio::spawn(async move {
            let mut sent = 0_usize;
            let _ = theirs.read(&mut [0; 4096]).await;
            let _ = theirs.write_all(&prelude).await;
            while theirs.write_all(&chunk).await.is_ok() {
                sent += chunk.len();
            }
            sent
        });
        let deadline = Instant::now() + Duration::from_secs(30);
        let reading = read(ours, deadline, &|| UnixMillis(0)).await;
        assert!(server.await.unwrap() < 2 * ANSWER_MAX);
        match reading {
            Reading::Unread(unread) => unread,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_server_that_never_stops_is_left() {
        // One message of two gigabytes: the first, or the answer to the query.
        let long = [b"R".as_slice(), &i32::MAX.to_be_bytes()].concat();
        let ready = [
            b"R".as_slice(),
            &[0, 0, 0, 8, 0, 0, 0, 0],
            b"Z",
            &[0, 0, 0, 5],
            b"I",
        ]
        .concat();
        let row = [b"D".as_slice(), &i32::MAX.to_be_bytes()].concat();
        for prelude in [long, [ready, row].concat()] {
            let unread = endless(&prelude, b"x").await;
            assert_eq!(unread.kind, UnreadKind::ServerError, "{}", unread.detail);
            assert!(unread.detail.contains("answered more than"), "{}", unread.detail);
        }
    }
}
