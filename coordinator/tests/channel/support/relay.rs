//! A TCP relay that can go deaf: both sockets stay open and nothing gets through, as behind a dropped route.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    deaf: Arc<watch::Sender<bool>>,
    accepted: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Relay {
    pub(crate) async fn start(to: SocketAddr) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let deaf = Arc::new(watch::Sender::new(false));
        let hearing = deaf.clone();
        let accepted = Arc::new(AtomicUsize::new(0));
        let counting = accepted.clone();
        let task = tokio::spawn(async move {
            while let Ok((near, _)) = socket.accept().await {
                counting.fetch_add(1, Ordering::Relaxed);
                let Ok(far) = TcpStream::connect(to).await else {
                    continue;
                };
                let (near_read, near_write) = near.into_split();
                let (far_read, far_write) = far.into_split();
                tokio::spawn(pass(near_read, far_write, hearing.subscribe()));
                tokio::spawn(pass(far_read, near_write, hearing.subscribe()));
            }
        });
        Self {
            address,
            deaf,
            accepted,
            task,
        }
    }

    /// How many connections were made so far.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }

    pub(crate) fn set_deaf(&self, deaf: bool) {
        self.deaf.send_replace(deaf);
    }
}

async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut deaf: watch::Receiver<bool>,
) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        if deaf.wait_for(|deaf| !*deaf).await.is_err() {
            return;
        }
        tokio::select! {
            changed = deaf.changed() => if changed.is_err() { return },
            read = from.read(&mut buffer) => match read {
                Ok(0) | Err(_) => return,
                Ok(length) => if to.write_all(&buffer[..length]).await.is_err() { return },
            },
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}
