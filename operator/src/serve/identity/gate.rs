//! Keeps the crowd that comes at once, when a whole cluster starts, from doing its work at once: so
//! many work, so many wait, and the rest is told to come again. Used by `identity`. It knows no
//! certificate.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Requests that are worked on at once.
pub const WORKING: usize = 64;
/// Requests that wait or are worked on; one holds about 8 KiB.
pub const PRESENT: usize = 4_096;
/// Longest wait for a turn.
pub const WAIT: Duration = Duration::from_secs(8);

/// Why a request is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Crowded {
    /// Too many are there.
    #[error("{PRESENT} requests for certificates are waiting: ask again")]
    Full,
    /// Its turn did not come.
    #[error("no turn within {} s: ask again", WAIT.as_secs())]
    Slow,
}

/// The way in.
#[derive(Clone, Debug)]
pub(super) struct Gate {
    present: Arc<Semaphore>,
    working: Arc<Semaphore>,
}

/// A place among those that are present.
#[derive(Debug)]
pub(super) struct Place {
    _present: OwnedSemaphorePermit,
    working: Arc<Semaphore>,
}

impl Default for Gate {
    fn default() -> Self {
        Self::new(PRESENT, WORKING)
    }
}

impl Gate {
    fn new(present: usize, working: usize) -> Self {
        Self {
            present: Arc::new(Semaphore::new(present)),
            working: Arc::new(Semaphore::new(working)),
        }
    }

    /// A place, at once or not at all.
    pub(super) fn enter(&self) -> Result<Place, Crowded> {
        let place = self.present.clone().try_acquire_owned();
        Ok(Place {
            _present: place.map_err(|_| Crowded::Full)?,
            working: self.working.clone(),
        })
    }
}

impl Place {
    /// Waits for a turn; it lasts until what is returned is dropped.
    pub(super) async fn turn(&self) -> Result<OwnedSemaphorePermit, Crowded> {
        let turn = tokio::time::timeout(WAIT, self.working.clone().acquire_owned());
        Ok(turn
            .await
            .map_err(|_| Crowded::Slow)?
            .expect("it is never closed"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn some_work_some_wait_and_the_rest_comes_again() {
        let gate = Gate::new(3, 1);
        let places = [
            gate.enter().unwrap(),
            gate.enter().unwrap(),
            gate.enter().unwrap(),
        ];
        assert_eq!(gate.enter().unwrap_err(), Crowded::Full);
        let first = places[0].turn().await.unwrap();
        assert_eq!(places[1].turn().await.unwrap_err(), Crowded::Slow);
        let (second, ()) = tokio::join!(places[1].turn(), async {
            tokio::time::sleep(WAIT / 2).await;
            drop(first);
        });
        let _second = second.unwrap();
        drop(places);
        gate.enter().unwrap();
    }
}
