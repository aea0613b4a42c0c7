//! Agents without nodes: in-memory connections that speak the real protocol, for benchmarks and simulations.

use hasteward_proto::channel::{AgentInstance, serve_reverse};
use hasteward_proto::primitive::NodeName;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::service::Routes;
use tracing::debug;

use super::registry::Fleet;

/// Bytes that an in-memory connection buffers in each direction at most; grows only when used.
const BUFFER: usize = 256 << 10;

/// An agent that is plugged in; dropping it pulls the plug.
#[derive(Debug)]
pub struct SimulatedAgent {
    cut: CancellationToken,
    _pull: DropGuard,
}

impl SimulatedAgent {
    /// Connects `routes` as the agent of `node`: HTTP/2 and gRPC over memory, no TLS and no socket.
    #[must_use]
    pub fn plug(fleet: &Fleet, node: NodeName, instance: AgentInstance, routes: Routes) -> Self {
        let cut = CancellationToken::new();
        let (near, far) = tokio::io::duplex(BUFFER);
        let settings = fleet.settings().clone();
        let pulled = cut.clone();
        tokio::spawn(async move {
            let serving = serve_reverse(far, routes, &instance, &settings, CancellationToken::new());
            pulled.run_until_cancelled(serving).await
        });
        let fleet = fleet.clone();
        tokio::spawn(async move {
            if let Err(error) = fleet.serve(near, node.clone(), None).await {
                debug!(%node, %error, "simulated agent refused");
            }
        });
        Self {
            _pull: cut.clone().drop_guard(),
            cut,
        }
    }

    /// Pulls the plug: the connection is gone without a good-bye.
    pub fn pull(&self) {
        self.cut.cancel();
    }
}
