//! Real threads: workers that record, let go and register anew while one thread scrapes and sweeps and another
//! scrapes beside it. The first must never see a counter go back, and in the end nothing may be missing.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use weir_proxy::telemetry::{
    self, Classification, Config, Recorder, ResponseEnd, Seat, Selection, Telemetry,
};

use crate::scrape::{Groups, Scrape, scrape, sum};

const WORKERS: usize = 3;
const SCRAPES: u64 = 400;
/// Milliseconds that go by from one scrape to the next; a label set is idle after three of them.
const STEP: u64 = 400;
const RETAIN_IDLE: u64 = 3 * STEP;

/// The time, told by the scraping thread.
struct Clock {
    start: Instant,
    millis: AtomicU64,
    done: AtomicBool,
}

impl Clock {
    fn now(&self) -> Instant {
        self.start + Duration::from_millis(self.millis.load(Ordering::Relaxed))
    }

    /// Which label set is in use: each for a while, and then again after all the others.
    fn phase(&self) -> u64 {
        self.millis.load(Ordering::Relaxed) / (2 * RETAIN_IDLE) % 4
    }
}

/// Records until the scraper is done; returns how many connections.
fn work(seat: Seat, worker: usize, clock: &Clock) -> u64 {
    let recorder = seat.take();
    let mut rounds = 0;
    while !clock.done.load(Ordering::Acquire) {
        rounds += 1;
        let phase = clock.phase();
        let name = if rounds % 3 == 0 { 9 } else { worker };
        record(&recorder, &format!("{name}.{phase}"), phase as u16);
        if rounds % 64 == 0 {
            recorder.tick(clock.now());
        }
    }
    rounds
}

fn record(recorder: &Recorder, authority: &str, port: u16) {
    let groups = Groups::new();
    let http = recorder.http(&groups.inbound(authority));
    let tcp = recorder.transport(&groups.accepted(port));
    tcp.opened();
    http.request();
    tcp.read(10);
    http.latency(Some(200), Duration::from_micros(700));
    http.response(&ResponseEnd {
        status: Some(200),
        classification: Classification::Success,
        grpc_status: "",
        error: "",
    });
    tcp.closed(Classification::Success, "", Duration::from_micros(1));
}

/// What holds of every exposition by itself.
fn check_consistent(scrape: &Scrape) {
    for (series, value) in scrape {
        if let Some(labels) = series.strip_prefix("response_latency_ms_count") {
            let labels = labels.trim_end_matches('}');
            let inf = format!("response_latency_ms_bucket{labels},le=\"+Inf\"}}");
            assert_eq!(scrape[&inf], *value);
        }
        if series.starts_with("tcp_open_connections") {
            assert!(
                (0.0..=WORKERS as f64).contains(value),
                "{series} is {value}"
            );
        }
    }
}

fn check_forward(before: &Scrape, after: &Scrape) {
    let gauge = |s: &str| s.starts_with("tcp_open_connections") || s.starts_with("weir_series{");
    for (series, value) in after.iter().filter(|(s, _)| s.contains('{') && !gauge(s)) {
        if let Some(was) = before.get(series) {
            assert!(value >= was, "{series} went from {was} to {value}");
        }
    }
}

/// Ends the workers however the scraper ends: a failed assertion must not leave them running.
struct Done<'a>(&'a Clock);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.done.store(true, Ordering::Release);
    }
}

fn scrape_and_sweep(telemetry: &Telemetry, clock: &Clock) {
    let _done = Done(clock);
    let mut before = Scrape::new();
    for _ in 0..SCRAPES {
        let after = scrape(telemetry, &Selection::default());
        check_consistent(&after);
        check_forward(&before, &after);
        before = after;
        clock.millis.fetch_add(STEP, Ordering::Relaxed);
        telemetry.sweep(clock.now());
    }
}

#[test]
fn scrapers_read_while_workers_write() {
    let config = Config {
        retain_idle: Duration::from_millis(RETAIN_IDLE),
        hidden_for: Duration::ZERO,
        ..Config::default()
    };
    let (telemetry, seats) = telemetry::new(config, WORKERS);
    let clock = &Clock {
        start: Instant::now(),
        millis: AtomicU64::new(0),
        done: AtomicBool::new(false),
    };
    let connections: u64 = thread::scope(|scope| {
        let workers: Vec<_> = seats
            .into_iter()
            .enumerate()
            .map(|(worker, seat)| scope.spawn(move || work(seat, worker, clock)))
            .collect();
        let beside = scope.spawn(|| {
            while !clock.done.load(Ordering::Acquire) {
                check_consistent(&scrape(&telemetry, &Selection::default()));
            }
        });
        scrape_and_sweep(&telemetry, clock);
        beside.join().unwrap();
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap())
            .sum()
    });
    let last = scrape(&telemetry, &Selection::default());
    check_consistent(&last);
    assert!(
        sum(&last, "weir_series_evicted_total", "\"request_total\"") > 0.0,
        "some retired"
    );
    assert_eq!(sum(&last, "tcp_open_connections", ""), 0.0);
    assert_eq!(
        sum(&last, "tcp_open_total", ""),
        sum(&last, "tcp_close_total", "")
    );
    assert_eq!(
        sum(&last, "request_total", ""),
        sum(&last, "response_total", "")
    );
    let durations = sum(&last, "tcp_connection_duration_ms_count", "");
    assert_eq!(
        durations, connections as f64,
        "a family that never retires has them all"
    );
}
