//! The operator's client of the agents' API: plain HTTP to the pod's address, `basicAuth`.

use super::objects;
use crate::cnpg::Scope;
use crate::mariadb::names;
use crate::mariadb::resource::{MariaDB, Position, SavedState};
use anyhow::{Context, bail};
use base64::Engine as _;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use kube::ResourceExt;
use std::time::Duration;
use tokio::net::TcpStream;

/// How long one call may take.
const CALL: Duration = Duration::from_secs(5);
/// Bytes of an answer that are read at most.
const MAX_BODY: usize = 1 << 20;

/// The agents of one resource.
pub(super) struct Agents {
    authorization: String,
}

impl Agents {
    pub(super) async fn of(scope: &Scope, mariadb: &MariaDB) -> anyhow::Result<Self> {
        let secret = objects::agent_auth(&mariadb.name_any());
        let password = objects::read_password(scope, &secret, "password")
            .await?
            .context("no password for the agents")?;
        let encoded =
            base64::engine::general_purpose::STANDARD.encode(format!("{}:{password}", names::AGENT_USER));
        Ok(Self {
            authorization: format!("Basic {encoded}"),
        })
    }

    pub(super) async fn healthy(&self, ip: &str) -> bool {
        matches!(
            self.call(ip, Method::GET, "/health", Bytes::new()).await,
            Ok((StatusCode::OK, _))
        )
    }

    /// `grastate.dat`; `None` when there is no such file.
    pub(super) async fn state(&self, ip: &str) -> anyhow::Result<Option<SavedState>> {
        match self
            .call(ip, Method::GET, "/api/galera/state", Bytes::new())
            .await?
        {
            (StatusCode::OK, body) => Ok(Some(serde_json::from_slice(&body)?)),
            (StatusCode::NOT_FOUND, _) => Ok(None),
            (code, body) => bail!("state: {code}: {}", String::from_utf8_lossy(&body)),
        }
    }

    /// Asks for a bootstrap at the next start; a forced one has no position.
    pub(super) async fn enable_bootstrap(&self, ip: &str, position: Option<&Position>) -> anyhow::Result<()> {
        let body = position.map(serde_json::to_vec).transpose()?.unwrap_or_default();
        match self
            .call(ip, Method::PUT, "/api/galera/bootstrap", body.into())
            .await?
        {
            (StatusCode::OK, _) => Ok(()),
            (code, body) => bail!("enabling bootstrap: {code}: {}", String::from_utf8_lossy(&body)),
        }
    }

    pub(super) async fn disable_bootstrap(&self, ip: &str) -> anyhow::Result<()> {
        match self
            .call(ip, Method::DELETE, "/api/galera/bootstrap", Bytes::new())
            .await?
        {
            (StatusCode::OK | StatusCode::NOT_FOUND, _) => Ok(()),
            (code, body) => bail!("disabling bootstrap: {code}: {}", String::from_utf8_lossy(&body)),
        }
    }

    async fn call(
        &self,
        ip: &str,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> anyhow::Result<(StatusCode, Bytes)> {
        tokio::time::timeout(CALL, self.exchange(ip, method, path, body))
            .await
            .context("no answer in time")?
    }

    async fn exchange(
        &self,
        ip: &str,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> anyhow::Result<(StatusCode, Bytes)> {
        let stream = TcpStream::connect((ip, names::AGENT_PORT))
            .await
            .context("connecting")?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", ip)
            .header("authorization", &self.authorization)
            .header("content-type", "application/json")
            .body(Full::new(body))?;
        let answer = sender.send_request(request).await?;
        let code = answer.status();
        let body = Limited::new(answer.into_body(), MAX_BODY)
            .collect()
            .await
            .map_err(|error| anyhow::anyhow!("reading the answer: {error}"))?
            .to_bytes();
        connection.abort();
        Ok((code, body))
    }
}
