//! The two ways over a WebSocket.

use std::io;

use bytes::{BufMut, Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Message, Role};

use super::Target;

const CHUNK: usize = 32 * 1024;
const BACKLOG: usize = 64;

async fn open<S>(client: S) -> WebSocketStream<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    WebSocketStream::from_raw_socket(client, Role::Server, None).await
}

/// SPDY inside: binary messages are pieces of its byte stream.
pub(super) async fn tunnel<S>(client: S, target: Target) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let (mut sink, mut messages) = open(client).await.split();
    let (inside, outside) = tokio::io::duplex(2 * CHUNK);
    let (mut reader, mut writer) = tokio::io::split(outside);
    let from_client = async {
        while let Some(message) = messages.next().await {
            match message.map_err(io::Error::other)? {
                Message::Binary(bytes) => writer.write_all(&bytes).await?,
                Message::Close(_) => break,
                _ => {}
            }
        }
        writer.shutdown().await
    };
    let to_client = async {
        loop {
            let mut bytes = BytesMut::with_capacity(CHUNK);
            if reader.read_buf(&mut bytes).await? == 0 {
                return io::Result::Ok(());
            }
            sink.send(Message::Binary(bytes.freeze()))
                .await
                .map_err(io::Error::other)?;
        }
    };
    // The session's end closes `inside`: what it still had to say is read and sent before the WebSocket closes.
    let session = async {
        tokio::select! {
            ended = from_client => ended,
            ended = super::spdy::serve(inside, target) => ended,
        }
    };
    let (ended, sent) = tokio::join!(session, to_client);
    let _ = sink.close().await;
    ended.and(sent)
}

/// Channels: for the i-th port, 2i carries bytes and 2i+1 an error; each begins with the port.
pub(super) async fn channels<S>(client: S, target: Target, ports: &[u16]) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let (mut sink, mut messages) = open(client).await.split();
    let (out, mut outgoing) = mpsc::channel::<Message>(BACKLOG);
    let mut tasks = JoinSet::new();
    let mut pods = Vec::new();
    for (number, port) in (0_u8..).step_by(2).zip(ports) {
        for channel in [number, number + 1] {
            let mut first = BytesMut::with_capacity(3);
            first.put_u8(channel);
            first.put_u16_le(*port);
            sink.send(Message::Binary(first.freeze()))
                .await
                .map_err(io::Error::other)?;
        }
        let (to_pod, from_client) = mpsc::channel(BACKLOG);
        pods.push(to_pod);
        tasks.spawn(forward(target.clone(), *port, number, from_client, out.clone()));
    }
    drop(out);
    let read = async {
        while let Some(message) = messages.next().await {
            match message.map_err(io::Error::other)? {
                Message::Binary(mut bytes) if bytes.len() > 1 => {
                    let channel = bytes.split_to(1)[0];
                    // Odd channels are the server's.
                    if let Some(pod) = pods.get(usize::from(channel / 2)).filter(|_| channel % 2 == 0) {
                        let _ = pod.send(bytes).await;
                    }
                }
                Message::Close(_) => break,
                _ => {}
            }
        }
        io::Result::Ok(())
    };
    let write = async {
        while let Some(message) = outgoing.recv().await {
            sink.send(message).await.map_err(io::Error::other)?;
        }
        io::Result::Ok(())
    };
    // Either the client ends, or every port does: then the writer runs out of senders.
    let ended = tokio::select! {
        ended = read => ended,
        ended = write => ended,
    };
    let _ = sink.close().await;
    ended
}

fn message(channel: u8, bytes: &[u8]) -> Message {
    let mut out = BytesMut::with_capacity(bytes.len() + 1);
    out.put_u8(channel);
    out.put_slice(bytes);
    Message::Binary(out.freeze())
}

async fn forward(
    target: Target,
    port: u16,
    channel: u8,
    mut from_client: mpsc::Receiver<Bytes>,
    out: mpsc::Sender<Message>,
) {
    let told = match target.dial(port).await {
        Err(refused) => Some(format!(
            "an error occurred forwarding {port}: {}",
            refused.message
        )),
        Ok(pod) => {
            let (mut reader, mut writer) = tokio::io::split(pod);
            let to_pod = async {
                while let Some(bytes) = from_client.recv().await {
                    writer.write_all(&bytes).await?;
                }
                io::Result::Ok(())
            };
            let from_pod = async {
                let mut buffer = vec![0; CHUNK];
                loop {
                    let count = reader.read(&mut buffer).await?;
                    if count == 0 {
                        return io::Result::Ok(());
                    }
                    let sent = out.send(message(channel, &buffer[..count])).await;
                    sent.map_err(|_| io::ErrorKind::BrokenPipe)?;
                }
            };
            tokio::select! {
                ended = to_pod => ended.err(),
                ended = from_pod => ended.err(),
            }
            .map(|e| format!("error forwarding port {port}: {e}"))
        }
    };
    if let Some(told) = told {
        let _ = out.send(message(channel + 1, told.as_bytes())).await;
    }
}
