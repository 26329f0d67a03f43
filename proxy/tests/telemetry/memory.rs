//! Memory is bounded by what is in use: label sets that came and went leave nothing behind, scraped or not, and a
//! pinned one stays whatever happens.

use std::time::{Duration, Instant};

use weir_proxy::telemetry::{self, Config, Recorder, Selection, Telemetry};

use crate::scrape::{Groups, scrape, sum, text};

const SETS: usize = 100_000;
const SECOND: Duration = Duration::from_secs(1);

struct Proxy {
    telemetry: Telemetry,
    recorders: Vec<Recorder>,
    now: Instant,
}

impl Proxy {
    fn new(workers: usize) -> Self {
        let (telemetry, seats) = telemetry::new(Config::default(), workers);
        Self {
            telemetry,
            recorders: seats.into_iter().map(|seat| seat.take()).collect(),
            now: Instant::now(),
        }
    }

    /// So many seconds, each with its ticks and its sweep; a scrape every 15 if there is a scraper.
    fn run(&mut self, seconds: u32, scraped: bool) {
        for second in 0..seconds {
            self.now += SECOND;
            for recorder in &self.recorders {
                recorder.tick(self.now);
            }
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
    let groups = Groups::new();
    let count = |proxy: &Proxy| {
        let all = scrape(&proxy.telemetry, &Selection::default());
        sum(&all, "request_total", "authority=\"web\"")
    };
    let request = |proxy: &Proxy| proxy.recorders[0].http(&groups.inbound("web")).request();
    for _ in 0..5 {
        request(&proxy);
    }
    proxy.run(601, true);
    let sets = proxy.telemetry.label_sets();
    proxy.run(15, true);
    assert_eq!(count(&proxy), 0.0, "hidden");
    assert_eq!(proxy.telemetry.label_sets(), sets, "but not forgotten");
    request(&proxy);
    assert_eq!(count(&proxy), 6.0);
    proxy.run(700, true);
    assert_eq!(proxy.telemetry.label_sets(), sets - 1);
    request(&proxy);
    assert_eq!(
        count(&proxy),
        1.0,
        "forgotten, after expositions without it"
    );
}

#[test]
fn a_set_is_not_hidden_before_its_last_values_were_shown() {
    let mut proxy = Proxy::new(1);
    let groups = Groups::new();
    proxy.recorders[0].http(&groups.inbound("web")).request();
    proxy.run(590, true);
    proxy.recorders[0].http(&groups.inbound("web")).request();
    // A scraper that goes away for less than 10 minutes, and one that never gets a body whole.
    struct Broken;
    impl std::io::Write for Broken {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    proxy.run(595, false);
    proxy
        .telemetry
        .expose(&Selection::default(), &mut Broken)
        .unwrap_err();
    let filtered = crate::scrape::traffic("tcp");
    proxy
        .telemetry
        .expose(&filtered, &mut std::io::sink())
        .unwrap();
    proxy.run(1, false);
    let shown = scrape(&proxy.telemetry, &Selection::default());
    assert_eq!(sum(&shown, "request_total", "authority=\"web\""), 2.0);
}
