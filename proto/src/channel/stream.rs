//! [`Watched`]: a byte stream that tells when it is gone, when it last brought something, and that can be cut.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, DropGuard, WaitForCancellationFutureOwned};

/// Follows a [`Watched`] stream from outside.
#[derive(Debug, Clone)]
pub struct StreamWatch {
    closed: CancellationToken,
    cut: CancellationToken,
    born: Instant,
    heard_ms: Arc<AtomicU64>,
}

impl StreamWatch {
    /// Cancelled as soon as the stream is gone, for whatever reason.
    #[must_use]
    pub fn closed(&self) -> &CancellationToken {
        &self.closed
    }

    /// Ends the stream now; calls on it fail.
    pub fn cut(&self) {
        self.cut.cancel();
    }

    /// How long ago the peer sent its last byte.
    #[must_use]
    pub fn silent_for(&self) -> Duration {
        let heard = Duration::from_millis(self.heard_ms.load(Ordering::Relaxed));
        self.born.elapsed().saturating_sub(heard)
    }
}

/// The stream itself. Dropping it is what [`StreamWatch::closed`] reports: whoever owns the connection (hyper) drops it when the
/// peer is gone, a keep-alive ping was not answered, or nobody can call on it any more.
#[derive(Debug)]
pub struct Watched<S> {
    inner: S,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    born: Instant,
    heard_ms: Arc<AtomicU64>,
    _closed: DropGuard,
}

impl<S> Watched<S> {
    /// Wraps a stream.
    pub fn new(inner: S) -> (Self, StreamWatch) {
        let watch = StreamWatch {
            closed: CancellationToken::new(),
            cut: CancellationToken::new(),
            born: Instant::now(),
            heard_ms: Arc::default(),
        };
        let stream = Self {
            inner,
            cut: Box::pin(watch.cut.clone().cancelled_owned()),
            born: watch.born,
            heard_ms: watch.heard_ms.clone(),
            _closed: watch.closed.clone().drop_guard(),
        };
        (stream, watch)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.cut.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "the connection was cut",
            )));
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        if buf.filled().len() > before {
            let now = u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.heard_ms.store(now, Ordering::Relaxed);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn a_cut_wakes_a_pending_read() {
        let (near, _far) = tokio::io::duplex(64);
        let (mut stream, watch) = Watched::new(near);
        let reading = tokio::spawn(async move { stream.read_u8().await });
        tokio::task::yield_now().await;
        watch.cut();
        assert_eq!(
            reading.await.unwrap().unwrap_err().kind(),
            io::ErrorKind::ConnectionAborted
        );
        watch.closed().cancelled().await;
    }
}
