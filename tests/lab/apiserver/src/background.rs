//! What runs beside requests, and ends with the server.

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Tasks that the server's stop ends.
#[derive(Default)]
pub struct Background {
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Background {
    /// Runs something until it ends or the server stops.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let until_stop = self.stop.clone().run_until_cancelled_owned(task);
        self.tasks.spawn(async move {
            until_stop.await;
        });
    }

    /// Ends everything, without waiting.
    pub fn cancel(&self) {
        self.stop.cancel();
    }

    /// Ends everything and waits for it.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}
