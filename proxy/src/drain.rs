//! The end of a proxy: when may it go after it was told to?
//!
//! `app` waits here between SIGTERM and the stop of the workers. Both directions keep
//! serving meanwhile; idle and admin connections do not count. It must not know sockets.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::activity::Gauge;

/// How long the end may take.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Longest time that busy connections are waited for. Default: 30 s, Kuma's.
    pub longest: Duration,
    /// Shortest time between a signal and the end, as far as `longest` allows. Default: none.
    /// A sidecar that is told to end together with its application, not after it, needs a
    /// few seconds: the redirection to it lasts 2 s longer than its heartbeat.
    pub shortest: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            longest: Duration::from_secs(30),
            shortest: Duration::ZERO,
        }
    }
}

/// How often the workers are looked at.
pub const POLL: Duration = Duration::from_millis(20);

/// Waits until nothing is under way, within the limits. Answers how many connections were
/// still busy when time ran out.
pub async fn drain(gauges: &[Gauge], config: Config) -> usize {
    let start = Instant::now();
    let mut polls = interval(POLL);
    polls.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        polls.tick().await;
        let busy = gauges.iter().map(Gauge::get).sum();
        let waited = start.elapsed();
        if waited >= config.longest || (busy == 0 && waited >= config.shortest) {
            return busy;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::{Instant, sleep};

    use super::{Config, drain};
    use crate::activity::{Activity, Gauge};

    #[tokio::test(start_paused = true)]
    async fn an_idle_proxy_ends_at_once() {
        let start = Instant::now();
        assert_eq!(drain(&[Gauge::default()], Config::default()).await, 0);
        assert!(start.elapsed() < Duration::from_millis(100));
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_one_ends_with_its_last_connection() {
        let gauge = Gauge::default();
        let mut busy = Activity::new(gauge.clone()).begin();
        busy.set(true);
        let start = Instant::now();
        let gauges = [gauge];
        let end = async {
            sleep(Duration::from_secs(5)).await;
            drop(busy);
        };
        let (left, ()) = tokio::join!(drain(&gauges, Config::default()), end);
        assert_eq!(left, 0);
        assert!(start.elapsed() < Duration::from_millis(5100));
    }

    #[tokio::test(start_paused = true)]
    async fn the_limits_hold() {
        let gauge = Gauge::default();
        let mut busy = Activity::new(gauge.clone()).begin();
        busy.set(true);
        let start = Instant::now();
        assert_eq!(drain(&[gauge], Config::default()).await, 1);
        assert_eq!(start.elapsed().as_secs(), 30);
        let idle = Config {
            shortest: Duration::from_secs(3),
            ..Config::default()
        };
        let start = Instant::now();
        assert_eq!(drain(&[Gauge::default()], idle).await, 0);
        assert_eq!(start.elapsed().as_secs(), 3);
    }
}
