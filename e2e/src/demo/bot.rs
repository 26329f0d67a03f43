//! The bot of the demo: visits `web` at a steady rate, and says on a page of its own how many requests
//! it has sent. Run by `demo`; knows one address, which happens to be its proxy's.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper::{Method, StatusCode};
use tokio::sync::Semaphore;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::client::{Client, LIMIT};
use super::crew::Crew;
use super::services::{CHOICES, Reply, Service};

/// Requests under way at once; a visit that finds as many is put off to the next turn.
const AT_ONCE: usize = 64;

/// The bot, before, while and after it visits.
#[derive(Debug)]
pub(super) struct Bot {
    sent: AtomicU64,
    /// One for each request that may be under way.
    permits: Arc<Semaphore>,
    resting: CancellationToken,
}

impl Default for Bot {
    fn default() -> Self {
        Self {
            sent: AtomicU64::default(),
            permits: Arc::new(Semaphore::new(AT_ONCE)),
            resting: CancellationToken::default(),
        }
    }
}

impl Bot {
    /// Requests sent so far.
    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Sends so many requests a second, whatever becomes of each, until it rests.
    pub(super) async fn visit(self: Arc<Self>, web: Arc<Client>, rate: u32, crew: Crew) {
        let mut turns = interval(Duration::from_secs(1) / rate);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = turns.tick() => {}
                () = self.resting.cancelled() => return,
            }
            let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
                continue;
            };
            let (method, path) = errand(self.sent.fetch_add(1, Ordering::Relaxed));
            let web = Arc::clone(&web);
            crew.spawn(async move {
                // Failures are what the proxies count.
                drop(web.send(method, &path).await);
                drop(permit);
            });
        }
    }

    /// Sends no more, and waits for the answers that are still to come, as long as the client does.
    pub(super) async fn rest(&self) {
        self.resting.cancel();
        let all = u32::try_from(AT_ONCE).expect("a small number");
        // Without them all it has waited long enough.
        drop(timeout(LIMIT, self.permits.acquire_many(all)).await);
    }
}

/// Two votes, then a look at the result.
fn errand(turn: u64) -> (Method, String) {
    if turn % 3 == 2 {
        return (Method::GET, "/".to_owned());
    }
    let choice = usize::try_from(turn / 3).unwrap_or_default() % CHOICES.len();
    (Method::POST, format!("/vote/{}", CHOICES[choice]))
}

impl Service for Bot {
    async fn answer(&self, _: &Method, _: &str) -> Reply {
        (StatusCode::OK, format!("{} requests sent\n", self.sent()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_choice_is_voted_for_and_the_page_is_read() {
        let errands: Vec<String> = (0..9).map(|turn| errand(turn).1).collect();
        assert_eq!(errands.iter().filter(|path| *path == "/").count(), 3);
        for choice in CHOICES {
            assert!(errands.contains(&format!("/vote/{choice}")), "{errands:?}");
        }
    }
}
