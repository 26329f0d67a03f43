//! The proxy under test beside the truth: each event goes into a recorder and into a plain map of totals by series.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use proptest::sample::Index;
use weir_proxy::telemetry::{
    self, Classification, Config, Direction, HttpRef, HttpSeries, Peer, Recorder, ResponseEnd,
    Selection, TcpErrorLabels, Telemetry, TransportSeries,
};

use super::calls::{Calls, ENDS, Event};
use super::observer::Observer;
use crate::scrape::{Groups, Scrape, scrape, sum, traffic};

const AUTHORITIES: [&str; 3] = ["a", "b", "c"];
/// Short, so that an interleaving of some dozen steps sees label sets come and go.
pub(crate) const RETAIN_IDLE: Duration = Duration::from_secs(10);
const FILTER: &str = "^(tcp_|inbound_tcp)";

/// One event family within one label set, without its further labels: what the truth is kept by.
pub(crate) type Truth = BTreeMap<String, f64>;

pub(crate) struct Proxy {
    telemetry: Telemetry,
    recorders: Vec<Recorder>,
    groups: Groups,
    now: Instant,
    connections: Vec<(usize, TransportSeries)>,
    requests: Vec<(usize, HttpSeries)>,
    calls: Calls,
    /// Worker, label and the reference that was kept.
    cached: Vec<(usize, usize, HttpRef)>,
    truth: Truth,
    observer: Observer,
}

fn http(name: &str, label: usize) -> String {
    format!("{name}|authority=\"{}\"", AUTHORITIES[label])
}

fn grpc(label: usize, kind: &str) -> String {
    format!(
        "grpc_messages_total|authority=\"{}\",kind=\"{kind}\"",
        AUTHORITIES[label]
    )
}

fn tcp(name: &str, label: usize) -> String {
    format!("{name}|target_port=\"{}\"", label + 1)
}

impl Proxy {
    pub(crate) fn new(workers: usize) -> Self {
        let config = Config {
            retain_idle: RETAIN_IDLE,
            hidden_for: Duration::from_secs(2),
            ..Config::default()
        };
        let (telemetry, seats) = telemetry::new(config, workers);
        Self {
            telemetry,
            recorders: seats.into_iter().map(|seat| seat.take()).collect(),
            groups: Groups::new(),
            now: Instant::now(),
            connections: Vec::new(),
            requests: Vec::new(),
            calls: Calls::default(),
            cached: Vec::new(),
            truth: Truth::new(),
            observer: Observer::default(),
        }
    }

    fn count(&mut self, key: String, n: f64) {
        *self.truth.entry(key).or_default() += n;
    }

    pub(crate) fn open(&mut self, worker: usize, label: usize) {
        let labels = self.groups.accepted(label as u16 + 1);
        let series = self.recorders[worker].transport(&labels);
        series.opened();
        self.count(tcp("tcp_open_total", label), 1.0);
        self.connections.push((label, series));
    }

    pub(crate) fn read(&mut self, at: Index, bytes: u64) {
        if !self.connections.is_empty() {
            let (label, series) = &self.connections[at.index(self.connections.len())];
            series.read(bytes);
            self.count(tcp("tcp_read_bytes_total", *label), bytes as f64);
        }
    }

    pub(crate) fn close(&mut self, at: Index, success: bool) {
        if !self.connections.is_empty() {
            self.close_at(at.index(self.connections.len()), success);
        }
    }

    fn close_at(&mut self, at: usize, success: bool) {
        let (label, series) = self.connections.swap_remove(at);
        let (classification, errno) = if success {
            (Classification::Success, "")
        } else {
            (Classification::Failure, "ECONNRESET")
        };
        series.closed(classification, errno, Duration::from_millis(3));
        self.count(tcp("tcp_close_total", label), 1.0);
    }

    pub(crate) fn request(&mut self, worker: usize, label: usize) {
        let labels = self.groups.inbound(AUTHORITIES[label]);
        let series = self.recorders[worker].http(&labels);
        self.cached.push((worker, label, series.downgrade()));
        self.begin(label, series);
    }

    pub(crate) fn request_again(&mut self, at: Index) {
        if self.cached.is_empty() {
            return;
        }
        let at = at.index(self.cached.len());
        let (worker, label, cached) = &self.cached[at];
        match cached.pin() {
            Some(series) => self.begin(*label, series),
            None => {
                let (worker, label) = (*worker, *label);
                self.cached.swap_remove(at);
                self.request(worker, label);
            }
        }
    }

    fn begin(&mut self, label: usize, series: HttpSeries) {
        series.request();
        self.count(http("request_total", label), 1.0);
        self.requests.push((label, series));
    }

    pub(crate) fn respond(&mut self, at: Index, end: (Option<u16>, &str)) {
        if !self.requests.is_empty() {
            self.respond_at(at.index(self.requests.len()), end);
        }
    }

    fn respond_at(&mut self, at: usize, (status, error): (Option<u16>, &str)) {
        let (label, series) = self.requests.swap_remove(at);
        if status.is_some() {
            series.latency(status, Duration::from_micros(1_500));
            self.count(http("response_latency_ms_count", label), 1.0);
        }
        series.response(&ResponseEnd {
            status,
            classification: Classification::Success,
            grpc_status: "",
            error,
        });
        self.count(http("response_total", label), 1.0);
    }

    pub(crate) fn http2(&mut self, worker: usize, event: Event) {
        let recorder = (worker, &self.recorders[worker]);
        let passed = self.calls.apply(recorder, &AUTHORITIES, event);
        if let Some((label, kind, messages)) = passed {
            self.count(grpc(label, kind), messages.into());
        }
    }

    pub(crate) fn error(&mut self, worker: usize, target_port: u16) {
        self.recorders[worker].tcp_error(&TcpErrorLabels {
            direction: Direction::Inbound,
            peer: Peer::Src,
            error: "connect",
            target_port,
        });
        self.count(
            tcp("inbound_tcp_errors_total", usize::from(target_port) - 1),
            1.0,
        );
    }

    pub(crate) fn tick(&mut self, worker: usize) {
        self.recorders[worker].tick(self.now);
    }

    pub(crate) fn wait(&mut self, millis: u64) {
        self.now += Duration::from_millis(millis);
        self.sweep();
    }

    pub(crate) fn second(&mut self) {
        self.now += Duration::from_secs(1);
        for recorder in &self.recorders {
            recorder.tick(self.now);
        }
        self.sweep();
    }

    pub(crate) fn sweep(&mut self) {
        self.telemetry.sweep(self.now);
    }

    pub(crate) fn scrape(&mut self) {
        let got = scrape(&self.telemetry, &Selection::default());
        self.observe(&got, |_| true);
    }

    pub(crate) fn scrape_used(&mut self) {
        let used = Selection {
            used_only: true,
            ..Selection::default()
        };
        let got = scrape(&self.telemetry, &used);
        self.observe(&got, |_| true);
    }

    pub(crate) fn scrape_filtered(&mut self) {
        let selection = traffic(FILTER);
        let got = scrape(&self.telemetry, &selection);
        let filter = &selection.filters[0];
        self.observe(&got, |key| filter.is_match(key));
    }

    /// A scraper that hangs up; nobody has seen anything.
    pub(crate) fn scrape_broken(&mut self) {
        let mut room = [0; 100];
        let result = self
            .telemetry
            .expose(&Selection::default(), &mut &mut room[..]);
        result.unwrap_err();
    }

    pub(crate) fn pass(&mut self, seconds: u16, scraped: bool) {
        for second in 0..seconds {
            self.second();
            if scraped && second % 2 == 0 {
                self.scrape();
            }
        }
    }

    fn observe(&mut self, got: &Scrape, selected: impl Fn(&str) -> bool) {
        let mut in_use: Vec<String> = Vec::new();
        in_use.extend(
            self.connections
                .iter()
                .map(|(l, _)| tcp("tcp_open_total", *l)),
        );
        in_use.extend(self.requests.iter().map(|(l, _)| http("request_total", *l)));
        in_use.extend(self.calls.in_use().map(|l| grpc(l, "sent")));
        let in_use = in_use.into_iter().filter(|key| selected(key));
        for key in in_use {
            let (name, labels) = key.split_once('|').unwrap();
            let shown = got
                .keys()
                .any(|s| s.starts_with(name) && s.contains(labels));
            assert!(shown, "{key} is in use and not shown");
        }
        let truth = self.truth.iter().filter(|(key, _)| selected(key));
        self.observer.observe(got, truth, self.now);
        if selected("tcp_open_connections") {
            let open = sum(got, "tcp_open_connections", "");
            assert_eq!(open, self.connections.len() as f64);
        }
    }

    pub(crate) fn come_to_rest(&mut self) {
        while !self.connections.is_empty() {
            self.close_at(0, true);
        }
        while !self.requests.is_empty() {
            self.respond_at(0, ENDS[0]);
        }
        self.calls.come_to_rest();
    }

    pub(crate) fn check_rest(&mut self) {
        let got = scrape(&self.telemetry, &Selection::default());
        let total = |family: &str| sum(&got, family, "");
        assert_eq!(total("tcp_open_total") - total("tcp_close_total"), 0.0);
        assert_eq!(total("tcp_open_connections"), 0.0);
        assert_eq!(total("request_total"), total("response_total"));
        let inf = sum(&got, "response_latency_ms_bucket", "le=\"+Inf\"");
        assert_eq!(inf, total("response_latency_ms_count"));
        let closes = self
            .truth
            .iter()
            .filter(|(key, _)| key.starts_with("tcp_close_total"));
        let closes: f64 = closes.map(|(_, n)| n).sum();
        assert_eq!(
            total("tcp_connection_duration_ms_count"),
            closes,
            "these never retire"
        );
        self.calls.check(&got);
        self.observe(&got, |_| true);
    }

    /// Label sets held, but those of the families that never retire.
    pub(crate) fn unbounded_sets(&self) -> usize {
        let got = scrape(&self.telemetry, &Selection::default());
        let permanent = [
            "tcp_connection_duration_ms",
            "weir_http_detect_timeout_total",
            "outbound_http_errors_total",
            // Of the label sets of HTTP/2; its streams are in the same ones.
            "http2_active_connections",
        ];
        let permanent = permanent.map(|family| sum(&got, "weir_series", &format!("\"{family}\"")));
        self.telemetry.label_sets() - permanent.iter().sum::<f64>() as usize
    }
}
