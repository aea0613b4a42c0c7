//! The unprivileged half: dials the coordinator, serves it, asks the hands. Listens on nothing.

pub mod log;
pub mod state;

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use anyhow::Context;
use tokio::io::AsyncReadExt;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::args::Args;
use crate::hands::Hands;
use crate::service::AgentService;
use crate::service::dial;

/// Reads block in threads of their own; more than may be under way at once, so that a call never waits for a thread.
const BLOCKING_THREADS: usize = crate::service::READINGS_MAX * 2;

/// Bytes; readers keep their buffers on the heap.
const STACK: usize = 512 * 1024;

/// Serves until SIGTERM or SIGINT, or until the hands are gone, which is an error.
pub fn run(args: &Args, hands: Hands) -> anyhow::Result<()> {
    let runtime = runtime().context("starting the runtime")?;
    let outcome = runtime.block_on(serve(args, Arc::new(hands)));
    // A reader on a volume that hangs must not keep the agent from ending.
    runtime.shutdown_background();
    outcome
}

fn runtime() -> io::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_stack_size(STACK)
        .thread_name("head")
        .enable_all()
        .build()
}

async fn serve(args: &Args, hands: Arc<Hands>) -> anyhow::Result<()> {
    let lifeline = hands.lifeline().context("lifeline to the hands")?;
    let mut terminated = signal(SignalKind::terminate()).context("SIGTERM")?;
    let mut interrupted = signal(SignalKind::interrupt()).context("SIGINT")?;
    let shutdown = CancellationToken::new();
    tracing::info!(node = %args.node, hands = %hands.pid(), version = env!("CARGO_PKG_VERSION"), "agent started");
    let routes = AgentService::new(args.node.clone(), hands).routes();
    let serving = dial::run(args.dial(), routes, shutdown.clone());
    tokio::pin!(serving);
    tokio::select! {
        outcome = &mut serving => return outcome.context("the way to the coordinator"),
        gone = closed(lifeline) => {
            gone.context("lifeline to the hands")?;
            anyhow::bail!("the hands are gone");
        }
        _ = terminated.recv() => tracing::info!("SIGTERM: ending"),
        _ = interrupted.recv() => tracing::info!("SIGINT: ending"),
    }
    shutdown.cancel();
    // Calls under way get their answers; a second signal does not wait.
    tokio::select! {
        outcome = &mut serving => outcome.context("the way to the coordinator"),
        _ = terminated.recv() => Ok(()),
        _ = interrupted.recv() => Ok(()),
    }
}

/// Until the other end of `lifeline` is closed: nothing is ever sent on it.
async fn closed(lifeline: UnixStream) -> io::Result<()> {
    lifeline.set_nonblocking(true)?;
    let mut lifeline = tokio::net::UnixStream::from_std(lifeline)?;
    lifeline
        .read_u8()
        .await
        .map(drop)
        .or_else(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => Ok(()),
            _ => Err(error),
        })
}
