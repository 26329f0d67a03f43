//! A whole proxy in one direction, and what it publishes beyond what it published before there was traffic.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use weir_crds::settings::Settings;
use weir_proxy::accept::Aim;
use weir_proxy::app::{self, Bound, Config};
use weir_proxy::endpoints::Listed;
use weir_proxy::telemetry::{Dst, Server};

use super::exposition::{Scrape, Series};
use super::labels;
use super::told::{Described, Told};

/// Longest time any condition may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);
const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// The families that traffic is counted in; of histograms the counts, for times differ.
const TRAFFIC: [&str; 28] = [
    "request_total",
    "response_total",
    "response_latency_ms_count",
    "inbound_http_authz_allow_total",
    "inbound_http_authz_deny_total",
    "inbound_http_route_not_found_total",
    "inbound_http_errors_total",
    "outbound_http_errors_total",
    "http2_active_connections",
    "http2_active_streams",
    "grpc_messages_total",
    "tcp_open_total",
    "tcp_open_connections",
    "tcp_read_bytes_total",
    "tcp_write_bytes_total",
    "tcp_close_total",
    "tcp_connection_duration_ms_count",
    "inbound_tcp_errors_total",
    "outbound_tcp_errors_total",
    "inbound_tcp_authz_allow_total",
    "inbound_tcp_authz_deny_total",
    "route_request_total",
    "route_response_total",
    "route_response_latency_ms_count",
    "route_actual_request_total",
    "route_actual_response_total",
    "weir_http_detect_timeout_total",
    "weir_http_unparsed_total",
];

/// Those of connections that are the same whatever passes on them, and whether the client has read all of it.
pub(crate) const CLIENTS: [&str; 2] = ["tcp_open_total", "tcp_open_connections"];

/// Which side of a pod the proxy serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// In front of the application.
    Inbound,
    /// Between the application and a service with one endpoint.
    Outbound,
    /// Between the application and a service with another endpoint, where nobody listens.
    Balanced,
}

impl Way {
    pub(crate) const BOTH: [Self; 2] = [Self::Inbound, Self::Outbound];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound | Self::Balanced => "outbound",
        }
    }

    fn aim(self, application: SocketAddr) -> Aim {
        match self {
            Self::Inbound => Aim::Application {
                addr: application,
                server: Server::new("kuma.io", "dataplane", "web", application.port()),
            },
            Self::Outbound => service(vec![endpoint(application, "web")]),
            Self::Balanced => {
                let down = (Ipv4Addr::new(127, 0, 0, 2), application.port()).into();
                service(vec![endpoint(down, "down"), endpoint(application, "web")])
            }
        }
    }
}

fn service(endpoints: Vec<Listed>) -> Aim {
    Aim::Service {
        name: "web.emojivoto.svc.cluster.local".to_owned(),
        endpoints,
    }
}

fn endpoint(addr: SocketAddr, deployment: &str) -> Listed {
    let dst = Dst::new([
        ("service", "web"),
        ("namespace", "emojivoto"),
        ("deployment", deployment),
    ]);
    Listed::plain(addr, dst)
}

pub(crate) struct Bench {
    pub(crate) way: Way,
    pub(crate) bound: Bound,
    application: SocketAddr,
    before: Vec<Series>,
    /// Whether all of the connections is looked at. Those to endpoints are shared, and stay, and what passes on either side is
    /// made by the proxy: then it is only whether the client's are counted.
    pub(crate) counts_connections: bool,
    terminate: mpsc::Sender<()>,
    _settings: watch::Sender<Arc<Settings>>,
}

impl Bench {
    pub(crate) async fn start(way: Way, application: SocketAddr) -> Self {
        Self::start_with(way, application, |_| {}).await
    }

    /// With a configuration that differs from the defaults.
    pub(crate) async fn start_with(
        way: Way,
        application: SocketAddr,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        Self::start_told(way, application, &Told::Nothing, change).await
    }

    /// With a configuration that differs from the defaults, of which this is told.
    pub(crate) async fn start_told(
        way: Way,
        application: SocketAddr,
        told: &Told,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let (roster, changes) = watch::channel(Arc::default());
        let mut config = Config {
            workers: 1,
            listeners: vec![(LOOPBACK, way.aim(application))],
            roster: Some(changes),
            ..Config::default()
        };
        config.admin.addr = LOOPBACK;
        config.admin.metrics_ip = LOOPBACK.ip();
        // Clients of tests may be late with what they ask.
        config.worker.detect.refused_grace = DEADLINE;
        change(&mut config);
        let described = Described::of(&config, told);
        let settings = Settings::parse(r#"{"version":1,"mesh":"default"}"#).expect("settings");
        let (keep, settings) = watch::channel(Arc::new(settings));
        let app = app::bind(config, settings).expect("free ports");
        let bound = app.bound().clone();
        // Its workers have not begun: the first that they hear is this.
        roster.send_replace(Arc::new(
            told.roster(bound.listeners[0], way.aim(application)),
        ));
        keep.send_modify(|settings| {
            told.change(Arc::make_mut(settings), bound.listeners[0].port())
        });
        let (terminate, terminated) = mpsc::channel(2);
        tokio::spawn(app.serve(terminated));
        let mut bench = Self {
            way,
            bound,
            application,
            before: Vec::new(),
            counts_connections: way != Way::Balanced,
            terminate,
            _settings: keep,
        };
        bench.before = bench.at_rest(described).await;
        bench
    }

    /// What a worker publishes from its start on, once all of it is there.
    async fn at_rest(&self, described: Described) -> Vec<Series> {
        let start = Instant::now();
        loop {
            let all = self.scrape().await;
            let known = |name| all.select(name, &[]).count();
            if known("http2_active_streams") >= 4
                && known("outbound_http_errors_total") >= 5
                && known("inbound_http_errors_total") >= 5 * described.servers
                && known("tcp_open_total") >= described.connections
            {
                return self.looked_at(all);
            }
            assert!(start.elapsed() < DEADLINE, "{all:?}");
        }
    }

    /// The series of the families that are looked at.
    fn looked_at(&self, Scrape(mut all): Scrape) -> Vec<Series> {
        let is_of_connections = ["tcp_", "http2_", "outbound_tcp_"];
        let is_of_clients =
            |series: &Series| CLIENTS.contains(&&*series.name) && series.labels["peer"] == "src";
        all.retain(|series| {
            TRAFFIC.contains(&&*series.name)
                && (self.counts_connections
                    || is_of_clients(series)
                    || !is_of_connections.iter().any(|f| series.name.starts_with(f)))
        });
        all
    }

    /// The port that clients mean.
    pub(crate) fn port(&self) -> u16 {
        self.bound.listeners[0].port()
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.bound.listeners[0])
            .await
            .expect("the proxy listens")
    }

    /// Everything that is published now.
    pub(crate) async fn scrape(&self) -> Scrape {
        let mut stream = TcpStream::connect(self.bound.admin)
            .await
            .expect("it listens");
        let request = b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await.expect("written");
        let mut answer = String::new();
        let read = stream.read_to_string(&mut answer);
        let read = tokio::time::timeout(DEADLINE, read).await;
        read.expect("in time").expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        let is_chunked = head.to_ascii_lowercase().contains("chunked");
        let body = if is_chunked {
            unchunk(body)
        } else {
            body.to_owned()
        };
        Scrape::parse(&body).expect("an exposition")
    }

    async fn traffic(&self) -> Vec<Series> {
        self.looked_at(self.scrape().await)
    }

    /// What traffic has changed so far, in the order of printing.
    pub(crate) async fn changed(&self) -> Vec<Series> {
        let mut changed = self.traffic().await;
        changed.retain(|series| !self.before.contains(series));
        changed
    }

    /// Waits until exactly these series have changed, each written as it is printed but for what
    /// `labels` abbreviates. Families of the other direction, which have it in their names, are passed over.
    pub(crate) async fn shows(&self, row: &str, expected: &[String]) {
        let (application, listener) = (self.application.port(), self.port());
        let fill = |line: &String| labels::fill(line, self.way, (application, listener)) + "\n";
        let of_others = match self.way {
            Way::Inbound => "outbound_",
            Way::Outbound | Way::Balanced => "inbound_",
        };
        let expected = expected.iter().filter(|line| !line.starts_with(of_others));
        let text: String = expected.map(fill).collect();
        let mut expected = Scrape::parse(&text)
            .expect("the row is written as it is printed")
            .0;
        sort(&mut expected);
        // What is known from the start and is 0 again has not changed: it is only still there.
        let (known, expected): (Vec<_>, Vec<_>) = expected
            .into_iter()
            .partition(|series| self.before.contains(series));
        let start = Instant::now();
        loop {
            let mut changed = self.changed().await;
            sort(&mut changed);
            if changed == expected {
                let now = self.traffic().await;
                assert!(known.iter().all(|series| now.contains(series)), "{row}");
                return;
            }
            assert!(
                start.elapsed() < DEADLINE,
                "{row}, {}: {}",
                self.way.name(),
                difference(&changed, &expected)
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until the sum of the series with these labels is `expected`.
    pub(crate) async fn counts(&self, name: &str, labels: &[(&str, &str)], expected: f64) {
        let start = Instant::now();
        loop {
            let scrape = self.scrape().await;
            if scrape.sum(name, labels) == expected {
                return;
            }
            assert!(
                start.elapsed() < DEADLINE,
                "{name} {labels:?} is not {expected}: {}",
                show(&scrape.0)
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // The first begins to drain, the second ends it.
        let _has_ended = self.terminate.try_send(());
        let _has_ended = self.terminate.try_send(());
    }
}

fn unchunk(mut body: &str) -> String {
    let mut text = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).expect("a chunk's size");
        text.push_str(&rest[..size]);
        body = &rest[(size + 2).min(rest.len())..];
    }
    text
}

fn sort(series: &mut [Series]) {
    series.sort_by(|a, b| (&a.name, &a.labels).cmp(&(&b.name, &b.labels)));
}

fn show(series: &[Series]) -> String {
    let mut text = String::new();
    for one in series {
        let labels: Vec<String> = one
            .order
            .iter()
            .map(|name| format!("{name}={:?}", one.labels[name]))
            .collect();
        let _infallible = writeln!(text, "{}{{{}}} {}", one.name, labels.join(","), one.value);
    }
    text
}

fn difference(changed: &[Series], expected: &[Series]) -> String {
    let without = |of: &[Series], other: &[Series]| {
        let only: Vec<Series> = of.iter().filter(|s| !other.contains(s)).cloned().collect();
        show(&only)
    };
    format!(
        "too much or wrong:\n{}missing:\n{}",
        without(changed, expected),
        without(expected, changed)
    )
}

/// A listener where the bench's application may be.
pub(crate) async fn listener() -> TcpListener {
    TcpListener::bind(LOOPBACK).await.expect("a free port")
}
