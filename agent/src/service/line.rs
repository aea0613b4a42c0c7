//! [`Line`]: the connection to one replica of the coordinator, kept up and renewed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use backon::ExponentialBackoff;
use hasteward_proto::channel::tls::Protocol;
use hasteward_proto::channel::{ReverseError, serve_reverse};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::dial::{DialError, Shared, dial};
use super::enrol::Held;

/// A served connection that has ended.
struct Ended {
    generation: u64,
    lived: Duration,
    how: Result<(), ReverseError>,
}

/// The connection to one replica.
pub(super) struct Line {
    shared: Arc<Shared>,
    address: SocketAddr,
    gone: watch::Receiver<bool>,
    identity: watch::Receiver<Option<Arc<Held>>>,
    backoff: ExponentialBackoff,
    served: JoinSet<Ended>,
    /// Generation of the identity that the newest living connection was made with.
    connected: Option<u64>,
    next_attempt: Instant,
}

impl Line {
    pub(super) fn new(shared: Arc<Shared>, address: SocketAddr, gone: watch::Receiver<bool>) -> Self {
        Self {
            identity: shared.identity.clone(),
            backoff: shared.config.pauses.backoff(shared.instance.seed()),
            served: JoinSet::new(),
            connected: None,
            next_attempt: Instant::now(),
            shared,
            address,
            gone,
        }
    }

    /// Keeps the line up until shutdown, or until the address is gone and so is the connection.
    pub(super) async fn run(mut self) {
        let shutdown = self.shared.shutdown.clone();
        loop {
            let held = self.identity.borrow_and_update().clone();
            let wanted = held.filter(|held| self.connected != Some(held.generation));
            if *self.gone.borrow_and_update() && self.connected.is_none() {
                info!(address = %self.address, "coordinator replica is gone");
                return;
            }
            let at = self.next_attempt;
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = tokio::time::sleep_until(at), if wanted.is_some() => {
                    if let Some(held) = wanted {
                        self.attempt(&held).await;
                    }
                }
                changed = self.identity.changed() => match changed {
                    // A new certificate is used at once, however often the old one failed.
                    Ok(()) => self.next_attempt = Instant::now(),
                    Err(_) => break,
                },
                // The sender is dropped only with the whole agent.
                changed = self.gone.changed() => if changed.is_err() { break },
                Some(ended) = self.served.join_next() => if let Ok(ended) = ended { self.ended(&ended) },
            }
        }
        // Each connection drains by itself on shutdown, within its own limit.
        while self.served.join_next().await.is_some() {}
    }

    /// One attempt. An older connection goes on beside it until the coordinator has switched over and closes it.
    async fn attempt(&mut self, held: &Held) {
        let shared = &self.shared;
        let dialled = dial(
            &shared.config,
            &shared.name,
            self.address,
            Some(&held.identity),
            Protocol::Reverse,
        );
        let Some(dialled) = shared.shutdown.run_until_cancelled(dialled).await else {
            return;
        };
        match dialled {
            Ok(stream) => {
                debug!(address = %self.address, generation = held.generation, "connected to the coordinator");
                let (shared, generation) = (self.shared.clone(), held.generation);
                self.served.spawn(async move {
                    let begun = Instant::now();
                    let routes = shared.routes.clone();
                    let settings = &shared.config.settings;
                    let how = serve_reverse(
                        stream,
                        routes,
                        &shared.instance,
                        settings,
                        shared.shutdown.clone(),
                    )
                    .await;
                    Ended {
                        generation,
                        lived: begun.elapsed(),
                        how,
                    }
                });
                self.connected = Some(held.generation);
            }
            Err(error) => {
                if matches!(&error, DialError::Tls { source, .. } if source.is_certificate_refused()) {
                    self.shared.rejected.send_replace(held.generation);
                }
                self.pause();
                warn!(address = %self.address, %error, "cannot reach the coordinator");
            }
        }
    }

    /// A connection has ended.
    fn ended(&mut self, ended: &Ended) {
        match &ended.how {
            Ok(()) => debug!(address = %self.address, "the coordinator closed the connection"),
            Err(error) => warn!(address = %self.address, %error, "connection to the coordinator"),
        }
        if let Err(ReverseError::CertificateRefused(_)) = ended.how {
            self.shared.rejected.send_replace(ended.generation);
        }
        if ended.lived >= self.shared.config.pauses.healthy_after {
            self.backoff = self.shared.config.pauses.backoff(self.shared.instance.seed());
        }
        if self.connected == Some(ended.generation) {
            self.connected = None;
            self.pause();
            self.shared.unsettled.notify_one();
        }
    }

    /// Puts the next attempt off.
    fn pause(&mut self) {
        let pause = self.backoff.next().unwrap_or(self.shared.config.pauses.max);
        self.next_attempt = Instant::now() + pause;
    }
}
