//! The tasks of the demo, ended together. Handed to everything that spawns.

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A handle on all tasks; clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Crew {
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Crew {
    /// Runs a task until it ends or the crew does.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            stop.run_until_cancelled(task).await;
        });
    }

    /// Ends every task and waits until none is left.
    pub(super) async fn end(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}
