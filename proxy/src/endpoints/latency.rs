//! A peak-sensitive, exponentially weighted moving average of latencies.
//!
//! `claim` keeps one for each endpoint. A latency above the average replaces it at once, so
//! that trouble shows with the first slow answer; lower ones only pull it down with time, and
//! so does silence: an endpoint that nobody uses is worth another try. A pure value: it is
//! told the time.

use std::cell::Cell;
use std::time::{Duration, Instant};

#[derive(Debug)]
pub(super) struct Latency {
    nanos: Cell<f64>,
    at: Cell<Instant>,
    is_measured: Cell<bool>,
}

impl Latency {
    pub(super) fn new(assumed: Duration, now: Instant) -> Self {
        Self {
            nanos: Cell::new(nanos(assumed)),
            at: Cell::new(now),
            is_measured: Cell::new(false),
        }
    }

    /// Takes a measured latency into the average; the first replaces what was assumed.
    pub(super) fn observe(&self, latency: Duration, now: Instant, decay: Duration) {
        let latency = nanos(latency);
        let weight = self.weight(now, decay);
        let faded = self.nanos.get() * weight;
        let average = if !self.is_measured.replace(true) || latency >= faded {
            latency
        } else {
            faded + latency * (1.0 - weight)
        };
        self.nanos.set(average);
        self.at.set(now.max(self.at.get()));
    }

    /// The average by now, in nanoseconds.
    pub(super) fn get(&self, now: Instant, decay: Duration) -> f64 {
        self.nanos.get() * self.weight(now, decay)
    }

    /// What is left of the old: `e^(-elapsed/decay)`.
    fn weight(&self, now: Instant, decay: Duration) -> f64 {
        let elapsed = now.saturating_duration_since(self.at.get());
        (-elapsed.as_secs_f64() / decay.as_secs_f64().max(f64::MIN_POSITIVE)).exp()
    }
}

pub(super) fn nanos(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e9
}

#[cfg(test)]
mod tests {
    use super::{Latency, nanos};
    use std::time::{Duration, Instant};

    const DECAY: Duration = Duration::from_secs(10);

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn the_first_measurement_replaces_the_assumption() {
        let now = Instant::now();
        let latency = Latency::new(ms(30), now);
        assert_eq!(latency.get(now, DECAY), nanos(ms(30)));
        latency.observe(ms(2), now, DECAY);
        assert_eq!(latency.get(now, DECAY), nanos(ms(2)));
    }

    #[test]
    fn a_peak_counts_at_once_and_fades() {
        let now = Instant::now();
        let latency = Latency::new(ms(30), now);
        latency.observe(ms(2), now, DECAY);
        latency.observe(ms(500), now, DECAY);
        assert_eq!(latency.get(now, DECAY), nanos(ms(500)));
        let faded = latency.get(now + DECAY, DECAY) / nanos(ms(500));
        assert!((faded - (-1f64).exp()).abs() < 1e-9, "{faded}");
    }

    #[test]
    fn lower_latencies_pull_it_down_with_time() {
        let mut now = Instant::now();
        let latency = Latency::new(ms(30), now);
        latency.observe(ms(100), now, DECAY);
        latency.observe(ms(10), now, DECAY);
        assert_eq!(
            latency.get(now, DECAY),
            nanos(ms(100)),
            "no time has gone by"
        );
        for _ in 0..100 {
            now += DECAY / 10;
            latency.observe(ms(10), now, DECAY);
        }
        let settled = latency.get(now, DECAY) / nanos(ms(10));
        assert!((settled - 1.0).abs() < 0.01, "{settled}");
    }

    #[test]
    fn a_clock_that_lags_changes_nothing() {
        let now = Instant::now() + DECAY;
        let latency = Latency::new(ms(30), now);
        latency.observe(ms(5), now, DECAY);
        latency.observe(ms(7), now - DECAY, DECAY);
        assert_eq!(latency.get(now, DECAY), nanos(ms(7)));
    }
}
