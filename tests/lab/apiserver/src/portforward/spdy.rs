//! A SPDY/3.1 session of a port-forward.
//!
//! For each connection to a port the client opens two streams with one `requestid`: `error`, on which the server may
//! say what went wrong, and `data`. Windows: Kubernetes' own SPDY library neither sends WINDOW_UPDATE nor takes it, so
//! here it is read and not sent, and what may be sent is bounded by the connection alone.

use std::collections::HashMap;
use std::io;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::codec::Framed;

use super::Target;
use super::frames::{Codec, Frame};

/// Status of a reset: the stream cannot be taken.
const REFUSED: u32 = 3;
/// Frames waiting for one stream before the whole session waits.
const BACKLOG: usize = 64;
const CHUNK: usize = 32 * 1024;

struct Session {
    target: Target,
    /// Frames to the client.
    out: mpsc::Sender<Frame>,
    /// Error streams by request, until their data stream comes.
    errors: HashMap<String, u32>,
    /// Bytes to pods by stream; `None` ends them.
    streams: HashMap<u32, mpsc::Sender<Option<Bytes>>>,
    tasks: JoinSet<u32>,
    last: u32,
}

/// Serves a client until it goes.
pub(super) async fn serve<S>(client: S, target: Target) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let (mut sink, mut frames) = Framed::new(client, Codec::new()?).split::<Frame>();
    let (out, mut outgoing) = mpsc::channel(BACKLOG);
    let mut session = Session {
        target,
        out,
        errors: HashMap::new(),
        streams: HashMap::new(),
        tasks: JoinSet::new(),
        last: 0,
    };
    let write = async {
        while let Some(frame) = outgoing.recv().await {
            sink.send(frame).await?;
        }
        io::Result::Ok(())
    };
    let read = async {
        loop {
            tokio::select! {
                frame = frames.next() => match frame {
                    None | Some(Ok(Frame::GoAway { .. })) => return Ok(()),
                    Some(frame) => session.take(frame?).await,
                },
                Some(ended) = session.tasks.join_next() => {
                    if let Ok(stream) = ended {
                        session.streams.remove(&stream);
                    }
                }
            }
        }
    };
    tokio::select! {
        ended = write => ended,
        ended = read => ended,
    }
}

impl Session {
    async fn send(&self, frame: Frame) {
        // The writer being gone ends the session on its own.
        let _ = self.out.send(frame).await;
    }

    async fn take(&mut self, frame: Frame) {
        match frame {
            Frame::SynStream { stream, headers, .. } => self.open(stream, &headers).await,
            Frame::Data { stream, fin, bytes } => {
                if let Some(to_pod) = self.streams.get(&stream) {
                    if !bytes.is_empty() {
                        let _ = to_pod.send(Some(bytes)).await;
                    }
                    if fin {
                        let _ = to_pod.send(None).await;
                    }
                }
            }
            Frame::Reset { stream, .. } => {
                self.streams.remove(&stream);
            }
            // Odd numbers are the client's.
            Frame::Ping(number) if number % 2 == 1 => self.send(Frame::Ping(number)).await,
            Frame::Ping(_)
            | Frame::SynReply { .. }
            | Frame::GoAway { .. }
            | Frame::WindowUpdate { .. }
            | Frame::Other(_) => {}
        }
    }

    async fn open(&mut self, stream: u32, headers: &[(String, String)]) {
        let get = |name: &str| headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
        let port = get("port")
            .and_then(|p| p.parse::<u16>().ok())
            .filter(|p| *p != 0);
        let request = get("requestid").unwrap_or_default().to_owned();
        let fresh = stream % 2 == 1 && stream > self.last;
        self.last = self.last.max(stream);
        match (get("streamtype"), port) {
            (Some("error"), Some(_)) if fresh => {
                self.errors.insert(request, stream);
                self.send(Frame::SynReply { stream }).await;
            }
            (Some("data"), Some(port)) if fresh => {
                let Some(error) = self.errors.remove(&request) else {
                    return self
                        .send(Frame::Reset {
                            stream,
                            status: REFUSED,
                        })
                        .await;
                };
                self.send(Frame::SynReply { stream }).await;
                let (to_pod, from_client) = mpsc::channel(BACKLOG);
                self.streams.insert(stream, to_pod);
                let forward = forward(
                    self.target.clone(),
                    port,
                    stream,
                    error,
                    from_client,
                    self.out.clone(),
                );
                self.tasks.spawn(async move {
                    forward.await;
                    stream
                });
            }
            _ => {
                self.send(Frame::Reset {
                    stream,
                    status: REFUSED,
                })
                .await;
            }
        }
    }
}

/// Carries one connection; ends both of its streams.
async fn forward(
    target: Target,
    port: u16,
    data: u32,
    error: u32,
    mut from_client: mpsc::Receiver<Option<Bytes>>,
    out: mpsc::Sender<Frame>,
) {
    let told = match target.dial(port).await {
        Err(refused) => format!("an error occurred forwarding {port}: {}", refused.message),
        Ok(pod) => {
            let (mut reader, mut writer) = tokio::io::split(pod);
            let to_pod = async {
                while let Some(message) = from_client.recv().await {
                    if let Some(bytes) = message {
                        writer.write_all(&bytes).await?;
                    } else {
                        writer.shutdown().await?;
                        // Half closed: the pod may go on for as long as the client does not reset the stream.
                        while from_client.recv().await.is_some() {}
                    }
                }
                io::Result::Ok(())
            };
            let from_pod = async {
                loop {
                    let mut bytes = bytes::BytesMut::with_capacity(CHUNK);
                    if reader.read_buf(&mut bytes).await? == 0 {
                        return io::Result::Ok(());
                    }
                    let frame = Frame::Data {
                        stream: data,
                        fin: false,
                        bytes: bytes.freeze(),
                    };
                    out.send(frame).await.map_err(|_| io::ErrorKind::BrokenPipe)?;
                }
            };
            let ended = tokio::select! {
                ended = to_pod => ended,
                ended = from_pod => ended,
            };
            ended
                .err()
                .map(|e| format!("error forwarding port {port}: {e}"))
                .unwrap_or_default()
        }
    };
    let end = |stream, text: String| Frame::Data {
        stream,
        fin: true,
        bytes: text.into(),
    };
    let _ = out.send(end(error, told)).await;
    let _ = out.send(end(data, String::new())).await;
}
