//! [`Bounded`]: a stream of which no more than so many bytes are ever read.
//!
//! The client library buffers a message whole, as long as its sender says it is; a pod may run anything as its server.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream that fails once more than a number of bytes came.
#[derive(Debug)]
pub(super) struct Bounded<S> {
    inner: S,
    left: usize,
    exceeded: Exceeded,
}

/// Whether the bound was reached: the library does not hand on why its connection ended.
#[derive(Debug, Clone, Default)]
pub(super) struct Exceeded(Arc<AtomicBool>);

impl Exceeded {
    pub(super) fn get(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl<S> Bounded<S> {
    /// `inner`, of which at most `most` bytes are read.
    pub(super) fn new(inner: S, most: usize) -> (Self, Exceeded) {
        let exceeded = Exceeded::default();
        let bounded = Self {
            inner,
            left: most,
            exceeded: exceeded.clone(),
        };
        (bounded, exceeded)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // One more than is left, to tell an answer of exactly the bound from a longer one.
        let most = self.left.saturating_add(1).min(buffer.remaining());
        let mut part = ReadBuf::new(buffer.initialize_unfilled_to(most));
        let outcome = Pin::new(&mut self.inner).poll_read(context, &mut part);
        let read = part.filled().len();
        if !matches!(outcome, Poll::Ready(Ok(()))) {
            return outcome;
        }
        let Some(left) = self.left.checked_sub(read) else {
            self.exceeded.0.store(true, Ordering::Release);
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                "the answer is too long",
            )));
        };
        self.left = left;
        buffer.advance(read);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn an_answer_of_the_bound_is_read_and_a_longer_one_is_not() {
        for (length, fits) in [(0, true), (99, true), (100, true), (101, false), (5000, false)] {
            let bytes = vec![b'x'; length];
            let (mut stream, exceeded) = Bounded::new(bytes.as_slice(), 100);
            let mut read = Vec::new();
            let outcome = stream.read_to_end(&mut read).await;
            assert_eq!((outcome.is_ok(), exceeded.get()), (fits, !fits), "{length}");
            assert!(read.len() <= 100);
        }
    }
}
