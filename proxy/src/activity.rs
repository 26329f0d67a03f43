//! What must end before the proxy may: requests under way and opaque connections whose
//! application is still there.
//!
//! The relay marks its connection; `drain` reads the sum from another thread. One worker
//! writes its own counter, so no locked instruction is needed.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The count of one worker, readable from other threads.
#[derive(Clone, Debug, Default)]
pub struct Gauge(Arc<AtomicUsize>);

impl Gauge {
    /// Connections that are busy now.
    pub fn get(&self) -> usize {
        self.0.load(Ordering::Acquire)
    }
}

/// The writing end of a worker's count.
#[derive(Clone, Debug)]
pub struct Activity(Rc<Gauge>);

impl Activity {
    pub fn new(gauge: Gauge) -> Self {
        Self(Rc::new(gauge))
    }

    /// A mark for one connection, idle until it is set.
    pub fn begin(&self) -> Busy {
        Busy {
            activity: self.clone(),
            is_busy: false,
        }
    }

    fn add(&self, up: bool) {
        let cell = &self.0.0;
        let count = cell.load(Ordering::Relaxed);
        let next = if up {
            count + 1
        } else {
            count.saturating_sub(1)
        };
        cell.store(next, Ordering::Release);
    }
}

/// The mark of one connection; dropped with it.
#[derive(Debug)]
pub struct Busy {
    activity: Activity,
    is_busy: bool,
}

impl Busy {
    pub fn set(&mut self, busy: bool) {
        if busy != self.is_busy {
            self.is_busy = busy;
            self.activity.add(busy);
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.set(false);
    }
}

#[cfg(test)]
mod tests {
    use super::{Activity, Gauge};

    #[test]
    fn only_busy_connections_count() {
        let gauge = Gauge::default();
        let activity = Activity::new(gauge.clone());
        let mut one = activity.begin();
        let mut two = activity.begin();
        assert_eq!(gauge.get(), 0);
        one.set(true);
        two.set(true);
        assert_eq!(gauge.get(), 2);
        one.set(false);
        one.set(false);
        assert_eq!(gauge.get(), 1);
        drop((one, two));
        assert_eq!(gauge.get(), 0);
    }
}
