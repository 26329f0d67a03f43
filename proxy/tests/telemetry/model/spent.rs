//! The proxy under test with a budget that is soon spent and policies that change, beside the truth: totals of each
//! family by what no budget takes away. A scraper that keeps coming must be able to account for every event.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use proptest::sample::Index;
use weir_proxy::telemetry::{
    self, Classification, Config, Direction, Dst, HttpLabels, HttpRef, HttpSeries, HttpSide, Peer,
    Recorder, ResponseEnd, Selection, TcpErrorLabels, Telemetry, TransportEnd, TransportLabels,
    TransportSeries,
};

use super::calls::{Calls, ENDS, Event};
use super::ledger::Ledger;
use crate::scrape::{Groups, Scrape, scrape, sum};

/// The one authority that is known.
pub(crate) const KNOWN: &str = "known";
const RETAIN_IDLE: Duration = Duration::from_secs(10);
const AUTHORITIES: [&str; 6] = [KNOWN, "a", "b", "c", "d", "e"];

/// Policies that take no total away by what is in the truth; the first is none.
pub(crate) type Policies = [&'static str; 5];
/// Those that take labels of label sets away.
pub(crate) const LEADING: Policies = [
    "",
    "dropLabels: [authority]",
    "families: {response_latency_ms: {dropLabels: [authority], buckets: [1, 2, 7]}}",
    "families: {response_latency_ms: {buckets: [2, 5]}, tcp_connection_duration_ms: {buckets: [3]}}",
    "dropLabels: [dst_pod, peer, target_port]\nfamilies: {response_total: {dropLabels: [srv_port, authority]}}",
];

/// Those that take away labels which follow those of the label set.
pub(crate) const TRAILING: Policies = [
    "",
    "dropLabels: [status_code]",
    "dropLabels: [kind, errno, classification, authority]",
    "families: {response_total: {dropLabels: [status_code, error]}}",
    "families: {response_latency_ms: {dropLabels: [status_code], buckets: [3]}, grpc_messages_total: {dropLabels: [kind]}}",
];

pub(crate) struct Proxy {
    policies: Policies,
    telemetry: Telemetry,
    recorders: Vec<Recorder>,
    groups: Groups,
    destinations: Vec<Dst>,
    most_series: u64,
    now: Instant,
    connections: Vec<TransportSeries>,
    requests: Vec<HttpSeries>,
    calls: Calls,
    cached: Vec<HttpRef>,
    truth: BTreeMap<String, f64>,
    ledger: Ledger,
    /// Whether a family that never retires has got cells for other buckets, which it keeps.
    rebucketed: bool,
    /// Bytes in use by what never retires.
    empty: usize,
}

impl Proxy {
    pub(crate) fn new(
        workers: usize,
        (most_series, most_bytes): (u64, usize),
        policies: Policies,
    ) -> Self {
        let config = Config {
            retain_idle: RETAIN_IDLE,
            hidden_for: Duration::from_secs(2),
            most_series,
            most_bytes,
            ..Config::default()
        };
        let (telemetry, seats) = telemetry::new(config, workers);
        telemetry.known().set([KNOWN.to_owned()]);
        let recorders: Vec<_> = seats.into_iter().map(|seat| seat.take()).collect();
        let pod = |n| Dst::new([("pod", ["a", "b", "c"][n]), ("service", "web")]);
        let mut proxy = Self {
            policies,
            telemetry,
            recorders,
            groups: Groups::new(),
            destinations: (0..3).map(pod).collect(),
            most_series,
            now: Instant::now(),
            connections: Vec::new(),
            requests: Vec::new(),
            calls: Calls::default(),
            cached: Vec::new(),
            truth: BTreeMap::new(),
            ledger: Ledger::default(),
            rebucketed: false,
            empty: 0,
        };
        for worker in 0..workers {
            for dst in [None, Some(0)] {
                proxy.open(worker, 1, dst);
                proxy.close_at(0);
            }
        }
        proxy.forget_everything();
        proxy.empty = proxy.telemetry.bytes();
        proxy
    }

    fn forget_everything(&mut self) {
        for second in 0..100 {
            self.now += Duration::from_secs(1);
            self.tick_and_sweep();
            if second % 3 == 0 {
                self.scrape();
            }
        }
    }

    fn tick_and_sweep(&mut self) {
        for recorder in &self.recorders {
            recorder.tick(self.now);
        }
        self.telemetry.sweep(self.now);
    }

    fn count(&mut self, key: &str) {
        *self.truth.entry(key.to_owned()).or_default() += 1.0;
    }

    /// Counts by labels that follow those of the label set, where no policy takes them away.
    fn count_by(&mut self, family: &str, labels: &str, n: f64) {
        let labels = if self.policies == LEADING {
            labels
        } else {
            "direction="
        };
        *self.truth.entry(format!("{family}|{labels}")).or_default() += n;
    }

    pub(crate) fn request(&mut self, worker: usize, authority: usize, dst: Option<usize>) {
        let mut labels = self.groups.inbound(AUTHORITIES[authority]);
        if let Some(dst) = dst {
            labels = HttpLabels {
                side: HttpSide::Outbound {
                    dst: &self.destinations[dst],
                },
                ..labels
            };
        }
        let series = self.recorders[worker].http(&labels);
        self.cached.push(series.downgrade());
        self.begin(series);
    }

    pub(crate) fn request_again(&mut self, at: Index) {
        if !self.cached.is_empty() {
            let at = at.index(self.cached.len());
            match self.cached[at].pin() {
                Some(series) => self.begin(series),
                None => drop(self.cached.swap_remove(at)),
            }
        }
    }

    fn begin(&mut self, series: HttpSeries) {
        series.request();
        self.count("request_total|direction=");
        self.requests.push(series);
    }

    pub(crate) fn respond(&mut self, at: Index, end: (Option<u16>, &str)) {
        if !self.requests.is_empty() {
            let series = self.requests.swap_remove(at.index(self.requests.len()));
            self.end(&series, end);
        }
    }

    fn end(&mut self, series: &HttpSeries, (status, error): (Option<u16>, &str)) {
        series.response(&ResponseEnd {
            status,
            classification: Classification::Success,
            grpc_status: "",
            error,
        });
        self.count_by("response_total", &format!("error=\"{error}\""), 1.0);
        if let Some(status) = status {
            series.latency(Some(status), Duration::from_micros(u64::from(status) * 20));
            let status = format!("status_code=\"{status}\"");
            self.count_by("response_latency_ms_count", &status, 1.0);
        }
    }

    pub(crate) fn http2(&mut self, worker: usize, event: Event) {
        let recorder = (worker, &self.recorders[worker]);
        let passed = self.calls.apply(recorder, &AUTHORITIES, event);
        if let Some((_, kind, messages)) = passed {
            let kind = format!("kind=\"{kind}\"");
            self.count_by("grpc_messages_total", &kind, messages.into());
        }
    }

    pub(crate) fn open(&mut self, worker: usize, port: u16, dst: Option<usize>) {
        let end = match dst {
            None => TransportEnd::InboundSrc {
                server: &self.groups.server,
            },
            Some(dst) => TransportEnd::OutboundDst {
                authority: ["", KNOWN][usize::from(port % 2)],
                dst: &self.destinations[dst],
            },
        };
        let labels = TransportLabels {
            target_port: port,
            tls: &self.groups.mutual,
            end,
        };
        let series = self.recorders[worker].transport(&labels);
        series.opened();
        self.count("tcp_open_total|direction=");
        self.connections.push(series);
    }

    pub(crate) fn close(&mut self, at: Index) {
        if !self.connections.is_empty() {
            let at = at.index(self.connections.len());
            self.close_at(at);
        }
    }

    fn close_at(&mut self, at: usize) {
        let series = self.connections.swap_remove(at);
        series.closed(Classification::Success, "", Duration::from_millis(4));
        self.count_by("tcp_close_total", "classification=\"success\"", 1.0);
        let family = "tcp_connection_duration_ms_count";
        self.count_by(family, "classification=\"success\"", 1.0);
    }

    pub(crate) fn error(&mut self, worker: usize, target_port: u16) {
        self.recorders[worker].tcp_error(&TcpErrorLabels {
            direction: Direction::Inbound,
            peer: Peer::Src,
            error: "connect",
            target_port,
        });
        self.count("inbound_tcp_errors_total|error=\"connect\"");
    }

    pub(crate) fn end_destination(&mut self, dst: usize) {
        self.telemetry.end(&self.destinations[dst..=dst]);
    }

    pub(crate) fn set_policy(&mut self, at: usize) {
        let policy = telemetry::policy(self.policies[at]).unwrap();
        self.telemetry.set_policy(&policy);
        self.rebucketed |= self.policies[at].contains("tcp_connection_duration_ms");
        self.scrape();
    }

    pub(crate) fn tick(&mut self, worker: usize) {
        self.recorders[worker].tick(self.now);
    }

    /// All workers tick, the service thread sweeps, the scraper comes.
    pub(crate) fn second(&mut self) {
        self.now += Duration::from_secs(1);
        self.tick_and_sweep();
        self.scrape();
    }

    pub(crate) fn scrape(&mut self) {
        let got = scrape(&self.telemetry, &Selection::default());
        self.ledger.observe(&got, &self.truth);
        let open = sum(&got, "tcp_open_connections", "");
        assert_eq!(open, self.connections.len() as f64);
        let strangers = got.keys().filter(|s| {
            s.starts_with("request_total{")
                && s.contains("authority=")
                && !s.contains("__overflow__")
                && !s.contains(&format!("authority=\"{KNOWN}\""))
        });
        assert!(strangers.count() as u64 <= self.most_series);
        self.calls.check(&got);
        self.check_calls(&got);
    }

    /// A label set of calls is refused as a whole, or not at all.
    fn check_calls(&self, got: &Scrape) {
        let calls = got.keys().filter(|s| s.starts_with("grpc_messages_total{"));
        let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
        for (labels, _) in calls.filter_map(|s| s.split_once(",kind=")) {
            *kinds.entry(labels).or_default() += 1;
        }
        assert!(kinds.values().all(|kinds| *kinds == 2), "{kinds:?}");
    }

    /// Ends everything, waits until it is forgotten, and sees that nothing of it is left.
    pub(crate) fn come_to_rest(&mut self) {
        while !self.connections.is_empty() {
            self.close_at(0);
        }
        while let Some(series) = self.requests.pop() {
            self.end(&series, ENDS[0]);
        }
        self.calls.come_to_rest();
        self.scrape();
        self.set_policy(0);
        self.forget_everything();
        let got = scrape(&self.telemetry, &Selection::default());
        for family in [
            "request_total",
            "response_total",
            "tcp_open_total",
            "tcp_close_total",
            "grpc_messages_total",
        ] {
            assert_eq!(sum(&got, family, ""), 0.0, "{family} is not forgotten");
        }
        if !self.rebucketed {
            let bytes = self.telemetry.bytes();
            assert_eq!(bytes, self.empty, "all bytes are given back");
        }
    }
}
