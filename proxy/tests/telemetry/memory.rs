//! Memory is bounded by what is in use: label sets that came and went leave nothing behind, scraped or not, and a
//! pinned one stays whatever happens.

use std::cell::RefCell;
use std::io;
use std::time::{Duration, Instant};

use weir_proxy::telemetry::{self, Config, Recorder, Selection, Telemetry};

use crate::scrape::{Groups, scrape, sum, text, traffic};

const SETS: usize = 100_000;
const SECOND: Duration = Duration::from_secs(1);

struct Proxy {
    telemetry: Telemetry,
    recorders: Vec<Recorder>,
    now: Instant,
}

impl Proxy {
    fn new(workers: usize) -> Self {
        // Retirement alone is what these tests are about.
        let config = Config {
            most_series: u64::MAX,
            most_bytes: usize::MAX,
            ..Config::default()
        };
        let (telemetry, seats) = telemetry::new(config, workers);
        Self {
            telemetry,
            recorders: seats.into_iter().map(|seat| seat.take()).collect(),
            now: Instant::now(),
        }
    }

    /// So many seconds, each with its ticks.
    fn tick(&mut self, seconds: u32) {
        for _ in 0..seconds {
            self.now += SECOND;
            for recorder in &self.recorders {
                recorder.tick(self.now);
            }
        }
    }

    /// So many seconds, each with its ticks and its sweep; a scrape every 15 if there is a scraper.
    fn run(&mut self, seconds: u32, scraped: bool) {
        for second in 0..seconds {
            self.tick(1);
            self.telemetry.sweep(self.now);
            if scraped && second % 15 == 0 {
                self.telemetry
                    .expose(&Selection::default(), &mut std::io::sink())
                    .unwrap();
            }
        }
    }
}

#[test]
fn a_hundred_thousand_label_sets_come_and_go() {
    let mut proxy = Proxy::new(2);
    let groups = Groups::new();
    let baseline = proxy.telemetry.label_sets();
    for n in 0..SETS {
        let authority = format!("{n}.example");
        proxy.recorders[n % 2]
            .http(&groups.inbound(&authority))
            .request();
    }
    assert_eq!(proxy.telemetry.label_sets(), baseline + SETS);
    let held = scrape(&proxy.telemetry, &Selection::default());
    assert_eq!(sum(&held, "weir_series", "\"request_total\""), SETS as f64);
    proxy.run(540, false);
    assert_eq!(
        proxy.telemetry.label_sets(),
        baseline + SETS,
        "none was idle for 10 minutes"
    );
    proxy.run(260, true);
    assert_eq!(proxy.telemetry.label_sets(), baseline);
    let after = scrape(&proxy.telemetry, &Selection::default());
    assert_eq!(sum(&after, "weir_series", "\"request_total\""), 0.0);
    assert_eq!(
        sum(&after, "weir_series_evicted_total", "\"request_total\""),
        SETS as f64
    );
}

#[test]
fn without_a_scraper_they_go_all_the_same() {
    let mut proxy = Proxy::new(1);
    let groups = Groups::new();
    let baseline = proxy.telemetry.label_sets();
    for n in 0..1_000 {
        proxy.recorders[0]
            .http(&groups.inbound(&format!("{n}.example")))
            .request();
    }
    proxy.run(599, false);
    assert_eq!(proxy.telemetry.label_sets(), baseline + 1_000);
    proxy.run(70, false);
    assert_eq!(proxy.telemetry.label_sets(), baseline);
}

#[test]
fn pins_and_open_connections_keep_their_sets() {
    let mut proxy = Proxy::new(2);
    let groups = Groups::new();
    let pinned = proxy.recorders[0].http(&groups.inbound("pinned"));
    let cached = proxy.recorders[0]
        .http(&groups.inbound("cached"))
        .downgrade();
    proxy.recorders[1].http(&groups.inbound("pinned")).request();
    let open = proxy.recorders[0].transport(&groups.accepted(1));
    open.opened();
    drop(open);
    assert!(cached.pin().is_some());
    proxy.run(3_600, true);
    assert!(cached.pin().is_none(), "a cache does not keep a label set");
    let kept = text(&proxy.telemetry, &Selection::default());
    assert!(
        kept.contains("authority=\"pinned\""),
        "the other worker's share is kept with it"
    );
    assert!(!kept.contains("authority=\"cached\""));
    assert_eq!(
        sum(
            &scrape(&proxy.telemetry, &Selection::default()),
            "tcp_open_connections",
            ""
        ),
        1.0
    );
    drop(pinned);
    proxy.run(120, true);
    assert!(!text(&proxy.telemetry, &Selection::default()).contains("authority=\"pinned\""));
}

#[test]
fn one_that_returns_in_time_goes_on_from_its_totals() {
    let mut proxy = Proxy::new(1);
    for _ in 0..5 {
        request(&proxy);
    }
    proxy.run(601, true);
    let sets = proxy.telemetry.label_sets();
    proxy.run(120, false);
    assert_eq!(
        proxy.telemetry.label_sets(),
        sets,
        "no exposition has passed without it"
    );
    assert_eq!(requests_shown(&proxy), 0.0, "it is hidden");
    request(&proxy);
    assert_eq!(requests_shown(&proxy), 6.0);
    proxy.run(700, true);
    assert_eq!(proxy.telemetry.label_sets(), sets - 1);
    request(&proxy);
    assert_eq!(
        requests_shown(&proxy),
        1.0,
        "forgotten, after expositions without it"
    );
}

/// A client that takes its time over the first bytes it gets, or hangs up.
struct Client<F>(Option<F>, io::Result<()>);

impl<F: FnOnce()> io::Write for Client<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(meanwhile) = self.0.take() {
            meanwhile();
        }
        let kind = self.1.as_ref().map_err(io::Error::kind);
        kind.map(|()| bytes.len()).map_err(Into::into)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn slow<F: FnOnce()>(meanwhile: F) -> Client<F> {
    Client(Some(meanwhile), Ok(()))
}

/// A proxy of one worker with one request, which was shown; and one more request, made while a client dawdles over an
/// exposition that it began before and ends 300 seconds later.
fn with_a_request_that_was_not_shown() -> RefCell<Proxy> {
    let proxy = RefCell::new(Proxy::new(1));
    let telemetry = proxy.borrow().telemetry.clone();
    request(&proxy.borrow());
    proxy.borrow_mut().run(30, true);
    let mut client = slow(|| {
        request(&proxy.borrow());
        proxy.borrow_mut().run(300, false);
    });
    telemetry
        .expose(&Selection::default(), &mut client)
        .unwrap();
    drop(client);
    proxy
}

fn request(proxy: &Proxy) {
    proxy.recorders[0]
        .http(&Groups::new().inbound("web"))
        .request();
}

fn requests_shown(proxy: &Proxy) -> f64 {
    let shown = scrape(&proxy.telemetry, &Selection::default());
    sum(&shown, "request_total", "authority=\"web\"")
}

#[test]
fn an_exposition_shows_what_there_was_when_it_was_written() {
    let proxy = RefCell::new(Proxy::new(1));
    let telemetry = proxy.borrow().telemetry.clone();
    request(&proxy.borrow());
    let mut client = slow(|| {
        request(&proxy.borrow());
        // It keeps the service thread from sweeping for so long that the worker lets go meanwhile.
        proxy.borrow_mut().tick(610);
    });
    telemetry
        .expose(&Selection::default(), &mut client)
        .unwrap();
    drop(client);
    proxy.borrow_mut().run(1, false);
    assert_eq!(
        requests_shown(&proxy.borrow()),
        2.0,
        "it has not shown the second"
    );
}

#[test]
fn an_exposition_that_broke_off_has_shown_nothing() {
    let proxy = with_a_request_that_was_not_shown();
    let mut proxy = proxy.into_inner();
    proxy.run(310, false);
    let mut broken = Client(None::<fn()>, Err(io::ErrorKind::BrokenPipe.into()));
    proxy
        .telemetry
        .expose(&Selection::default(), &mut broken)
        .unwrap_err();
    proxy.run(1, false);
    assert_eq!(requests_shown(&proxy), 2.0);
}

#[test]
fn a_filtered_exposition_has_not_shown_everything() {
    let proxy = with_a_request_that_was_not_shown();
    let mut proxy = proxy.into_inner();
    proxy.run(310, false);
    text(&proxy.telemetry, &traffic("request_total"));
    proxy.run(1, false);
    assert_eq!(requests_shown(&proxy), 2.0);
}

#[test]
fn a_worker_that_stood_still_was_not_idle() {
    let mut proxy = Proxy::new(1);
    proxy.run(30, true);
    proxy.now += 700 * SECOND;
    request(&proxy);
    proxy.run(30, false);
    assert_eq!(
        requests_shown(&proxy),
        1.0,
        "written to 30 seconds ago, whenever the tick before that was"
    );
}
