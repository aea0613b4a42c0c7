//! Both ends of the reverse channel: the dialling side serves, the accepting side calls.

use std::error::Error as _;
use std::io;
use std::time::Duration;

use http::HeaderValue;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::{Channel, Endpoint};
use tower::Service;

use super::instance::{AgentInstance, INSTANCE_HEADER};
use super::settings::ChannelSettings;
use super::stream::{StreamWatch, Watched};
use super::tls::certificate_alert;

/// How long an end that shuts down lets calls finish.
const DRAIN: Duration = Duration::from_secs(10);

/// The reverse channel ended, or did not come about.
#[derive(Debug, thiserror::Error)]
pub enum ReverseError {
    /// The coordinator's end could not be made.
    #[error("reverse channel: cannot open: {0}")]
    Open(String),
    /// No first exchange in time.
    #[error("reverse channel: not open within {0:?}")]
    OpenTimeout(Duration),
    /// The coordinator refused our certificate.
    #[error("reverse channel: the coordinator refuses this certificate: {0}")]
    CertificateRefused(String),
    /// The connection was lost: reset, or a keep-alive ping was not answered.
    #[error("reverse channel: lost: {0}")]
    Lost(String),
}

/// Small writes leave at once: a unary call waits 44 ms for a delayed ACK otherwise.
///
/// # Errors
/// The socket is gone.
pub fn prepare_socket(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)
}

/// An HTTP/2 server for either direction, with the bounds of `settings`.
#[must_use]
pub fn http2_server(settings: &ChannelSettings) -> http2::Builder<TokioExecutor> {
    let mut server = http2::Builder::new(TokioExecutor::new());
    server
        .timer(TokioTimer::new())
        .keep_alive_interval(settings.keep_alive_interval)
        .keep_alive_timeout(settings.keep_alive_timeout)
        .initial_stream_window_size(settings.stream_window)
        .initial_connection_window_size(settings.connection_window)
        .max_concurrent_streams(settings.max_streams)
        .max_header_list_size(settings.max_headers)
        .max_frame_size(64 << 10);
    server
}

/// The agent's end: serves `routes` on the connection that it dialled, until the coordinator closes it, it dies, or `shutdown`
/// (calls in flight get ten seconds then).
///
/// # Errors
/// The connection died, or the coordinator refused the certificate. A close by the coordinator is no error.
pub async fn serve_reverse<S>(
    stream: S,
    routes: Routes,
    instance: &AgentInstance,
    settings: &ChannelSettings,
    shutdown: CancellationToken,
) -> Result<(), ReverseError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let stamp = HeaderValue::from_str(instance.as_str()).map_err(|e| ReverseError::Open(e.to_string()))?;
    let service = service_fn(move |request: http::Request<Incoming>| {
        let (mut routes, stamp) = (routes.clone(), stamp.clone());
        async move {
            let mut response = routes.call(request).await?;
            response.headers_mut().insert(INSTANCE_HEADER, stamp);
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    let connection = http2_server(settings).serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::time::timeout(DRAIN, connection).await.unwrap_or(Ok(()))
        }
    };
    served.map_err(|error| ended(&error))
}

/// Why a served connection ended.
fn ended(error: &hyper::Error) -> ReverseError {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(refusal) = error.downcast_ref::<io::Error>().filter(|e| certificate_alert(e)) {
            return ReverseError::CertificateRefused(refusal.to_string());
        }
        text = format!("{text}: {error}");
        cause = error.source();
    }
    ReverseError::Lost(text)
}

/// The coordinator's end of one accepted connection.
#[derive(Debug, Clone)]
pub struct ReverseConnection {
    channel: Channel,
    watch: StreamWatch,
}

impl ReverseConnection {
    /// Speaks HTTP/2 as the client on an accepted stream. The stream is handed out once: nothing reconnects behind our back.
    ///
    /// # Errors
    /// The stream is dead already.
    pub async fn open<S>(stream: S, settings: &ChannelSettings) -> Result<Self, ReverseError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (stream, watch) = Watched::new(stream);
        let mut once = Some(TokioIo::new(stream));
        let connector = tower::service_fn(move |_: http::Uri| {
            let stream = once
                .take()
                .ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected));
            std::future::ready(stream)
        });
        let endpoint = Endpoint::from_static("http://agent.hasteward.invalid")
            .http2_keep_alive_interval(settings.keep_alive_interval)
            .keep_alive_timeout(settings.keep_alive_timeout)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(settings.stream_window)
            .initial_connection_window_size(settings.connection_window)
            .http2_max_header_list_size(settings.max_headers);
        let channel = tokio::time::timeout(
            settings.handshake_timeout,
            endpoint.connect_with_connector(connector),
        )
        .await
        .map_err(|_| ReverseError::OpenTimeout(settings.handshake_timeout))?
        .map_err(|e| ReverseError::Open(e.source().map_or_else(|| e.to_string(), ToString::to_string)))?;
        Ok(Self { channel, watch })
    }

    /// For calls. The connection closes by itself when every clone is dropped and the last call has finished.
    #[must_use]
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Watches the connection without keeping it open.
    #[must_use]
    pub fn watch(&self) -> StreamWatch {
        self.watch.clone()
    }
}
