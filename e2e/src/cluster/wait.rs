//! Waiting for a condition with a deadline, in place of sleeps. Used by the stories.

use std::time::Duration;

use anyhow::Context as _;
use tokio::time::{Instant, sleep};

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(100);

/// Repeats the attempt until it succeeds; after the limit its last error is the answer, under `what`.
pub async fn eventually<T>(
    what: &str,
    limit: Duration,
    mut attempt: impl AsyncFnMut() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        match attempt().await {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() >= deadline => {
                return Err(error).with_context(|| format!("{what}: not within {limit:?}"));
            }
            Err(_) => sleep(PAUSE).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_last_error_is_told_at_the_deadline() {
        let started = Instant::now();
        let mut attempts = 0;
        let error = eventually("three", Duration::from_secs(1), async || {
            attempts += 1;
            anyhow::ensure!(attempts > 100, "attempt {attempts}");
            Ok(())
        })
        .await
        .unwrap_err();
        assert_eq!(started.elapsed().as_millis() / 100, 10);
        assert_eq!(format!("{error:#}"), "three: not within 1s: attempt 11");
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_success_ends_it() {
        let mut attempts = 0;
        let value = eventually("three", Duration::from_secs(1), async || {
            attempts += 1;
            anyhow::ensure!(attempts == 3, "attempt {attempts}");
            Ok(attempts)
        });
        assert_eq!(value.await.unwrap(), 3);
    }
}
