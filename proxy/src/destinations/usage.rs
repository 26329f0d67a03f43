//! How a worker uses a destination: written by that worker alone, read by the service thread when it has to forget one.
//! So a write is a plain store.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// The use of one destination by one worker.
#[derive(Debug)]
pub struct Usage {
    /// Connections that are open.
    live: AtomicU64,
    /// When one was last opened or closed, in microseconds since the epoch.
    last: AtomicU64,
}

impl Usage {
    /// From now on.
    pub fn new(epoch: Instant) -> Self {
        Self {
            live: AtomicU64::new(0),
            last: AtomicU64::new(since(epoch)),
        }
    }

    /// Whether connections are open.
    pub fn is_live(&self) -> bool {
        self.live.load(Ordering::Relaxed) > 0
    }

    /// When a connection was last opened or closed, as time since the epoch.
    pub fn last(&self) -> Duration {
        Duration::from_micros(self.last.load(Ordering::Relaxed))
    }

    fn change(&self, by: i64, epoch: Instant) {
        let live = self.live.load(Ordering::Relaxed);
        let live = live.checked_add_signed(by).expect("what ends has begun");
        self.live.store(live, Ordering::Relaxed);
        self.last.store(since(epoch), Ordering::Relaxed);
    }
}

fn since(epoch: Instant) -> u64 {
    u64::try_from(epoch.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// An open connection, which keeps its destination from being forgotten.
#[derive(Debug)]
pub struct InUse {
    usage: Arc<Usage>,
    epoch: Instant,
}

impl InUse {
    /// Begins now.
    pub fn begin(usage: &Arc<Usage>, epoch: Instant) -> Self {
        usage.change(1, epoch);
        Self {
            usage: Arc::clone(usage),
            epoch,
        }
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.usage.change(-1, self.epoch);
    }
}
