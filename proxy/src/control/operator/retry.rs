//! Pauses that grow: from attempt to attempt twice as long, each with a random part, so that the proxies of a cluster do
//! not come back all at once. Used for connections and for streams.

use std::time::Duration;

/// How long to pause between attempts.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// The first pause is at most this.
    pub min: Duration,
    /// No pause is longer.
    pub max: Duration,
}

/// The pauses of one thing that is tried again and again.
#[derive(Debug)]
pub struct Pause {
    retry: Retry,
    next: Duration,
}

impl Pause {
    pub fn new(retry: Retry) -> Self {
        Self {
            retry,
            next: retry.min,
        }
    }

    /// The next pause: at least half of what it may be, and a random part of the rest.
    pub fn take(&mut self) -> Duration {
        let longest = self.next.min(self.retry.max);
        self.next = longest.saturating_mul(2);
        longest.mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    /// It has worked: the next pause is the first again.
    pub fn reset(&mut self) {
        self.next = self.retry.min;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_anew() {
        let retry = Retry {
            min: Duration::from_millis(100),
            max: Duration::from_secs(1),
        };
        let mut pause = Pause::new(retry);
        for longest in [100, 200, 400, 800, 1000, 1000] {
            let longest = Duration::from_millis(longest);
            let next = pause.take();
            assert!(next >= longest / 2 && next <= longest, "{next:?}");
        }
        pause.reset();
        assert!(pause.take() <= retry.min);
    }
}
