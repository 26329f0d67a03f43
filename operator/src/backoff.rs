//! The pauses between tries after a failure. Used by every loop that talks to the API server; it
//! knows nothing of what is tried.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

/// First pause after a failure.
const FIRST: Duration = Duration::from_millis(200);
/// Longest pause between two tries.
const LONGEST: Duration = Duration::from_secs(10);

/// Pauses that double from 0.2 s to 10 s, with jitter.
#[derive(Debug)]
pub(crate) struct Backoff(ExponentialBackoff);

impl Default for Backoff {
    fn default() -> Self {
        Self(
            ExponentialBuilder::new()
                .with_min_delay(FIRST)
                .with_max_delay(LONGEST)
                .with_jitter()
                .without_max_times()
                .build(),
        )
    }
}

impl Backoff {
    /// The pause before the next try.
    pub(crate) fn next_pause(&mut self) -> Duration {
        // The jitter may add as much again.
        self.0.next().unwrap_or(LONGEST).min(LONGEST)
    }

    /// Starts over after a success.
    pub(crate) fn reset(&mut self) {
        *self = Self::default();
    }
}

/// Waits for the next try, for ever where there is none.
pub(crate) async fn pause(retry: Option<Duration>) {
    match retry {
        Some(pause) => tokio::time::sleep(pause).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_the_longest_and_start_over() {
        let mut backoff = Backoff::default();
        let first = backoff.next_pause();
        assert!(first >= FIRST && first <= FIRST * 2, "{first:?}");
        for _ in 0..20 {
            assert!(backoff.next_pause() <= LONGEST);
        }
        assert_eq!(backoff.next_pause(), LONGEST);
        backoff.reset();
        assert!(backoff.next_pause() <= FIRST * 2);
    }
}
