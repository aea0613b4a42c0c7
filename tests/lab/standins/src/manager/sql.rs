//! SQL over the server's socket, as the OS user that runs the manager.

use super::Place;
use anyhow::Context;
use std::time::Duration;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage, SimpleQueryRow};

/// One session. A session a use: idle sessions would hold up a smart shutdown.
pub(super) struct Session {
    client: Client,
    database: String,
}

impl Session {
    /// Connects to a database as `postgres`.
    pub(super) async fn open(place: &Place, database: &str) -> anyhow::Result<Self> {
        let mut config = tokio_postgres::Config::new();
        config
            .host_path(place.sockets())
            .port(place.port)
            .user("postgres")
            .dbname(database)
            .application_name("cnpg-instance-manager")
            .connect_timeout(Duration::from_secs(5));
        let (client, connection) = config.connect(NoTls).await.context("connecting to the server")?;
        tokio::spawn(async move {
            // It ends with an error whenever the server stops; the session's user learns it from its query.
            let _ = connection.await;
        });
        Ok(Self {
            client,
            database: database.to_owned(),
        })
    }

    /// Runs statements.
    pub(super) async fn execute(&self, statements: &str) -> anyhow::Result<()> {
        self.client
            .batch_execute(statements)
            .await
            .with_context(|| format!("in database {}: {}", self.database, first_line(statements)))
    }

    /// All rows of a query.
    pub(super) async fn rows(&self, query: &str) -> anyhow::Result<Vec<SimpleQueryRow>> {
        let messages = self
            .client
            .simple_query(query)
            .await
            .with_context(|| first_line(query).to_owned())?;
        Ok(messages
            .into_iter()
            .filter_map(|message| match message {
                SimpleQueryMessage::Row(row) => Some(row),
                _ => None,
            })
            .collect())
    }

    /// The first column of the first row, none when there is no row or a null.
    pub(super) async fn value(&self, query: &str) -> anyhow::Result<Option<String>> {
        Ok(self
            .rows(query)
            .await?
            .first()
            .and_then(|row| row.get(0))
            .map(str::to_owned))
    }
}

/// A column of a row, empty for null.
pub(super) fn text(row: &SimpleQueryRow, column: &str) -> String {
    row.try_get(column).ok().flatten().unwrap_or_default().to_owned()
}

/// Quotes an identifier.
pub(super) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Quotes a string.
pub(super) fn literal(value: &str) -> String {
    let quoted = value.replace('\'', "''");
    if quoted.contains('\\') {
        format!("E'{}'", quoted.replace('\\', "\\\\"))
    } else {
        format!("'{quoted}'")
    }
}

fn first_line(statements: &str) -> &str {
    statements.trim().lines().next().unwrap_or_default()
}
