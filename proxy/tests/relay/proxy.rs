//! A proxy of one worker between a client and an application, and scripted peers.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use weir_crds::settings::Settings;
use weir_proxy::accept::{Aim, Plan};
use weir_proxy::activity::Gauge;
use weir_proxy::control::compile_closed;
use weir_proxy::endpoints::{Listed, Roster, Service};
use weir_proxy::heartbeat;
use weir_proxy::identity::Identity;
use weir_proxy::telemetry::{self, Dst, Selection, Server, Telemetry};
use weir_proxy::worker::{self, Start, Told};

/// Longest time any condition may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// An identity that is kept, where one is.
pub(crate) type Kept = Option<watch::Receiver<Option<Arc<Identity>>>>;

/// The settings of a mesh without mutual TLS.
fn plain() -> watch::Receiver<Arc<Settings>> {
    let settings = Settings::parse(r#"{"version":1,"mesh":"default"}"#).expect("settings");
    watch::channel(Arc::new(settings)).1
}

/// A socket for a proxy to listen on, with room for a burst: who finds the queue full, and waits to be spoken to, waits for
/// seconds until it is asked again.
pub(crate) fn bound() -> TcpListener {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let addr = SocketAddr::from(([127, 0, 0, 1], 0));
    socket.bind(&addr.into()).expect("a free port");
    socket.listen(1024).expect("a listener");
    socket.set_nonblocking(true).expect("a socket option");
    socket.into()
}

pub(crate) struct Proxy {
    pub(crate) addr: SocketAddr,
    pub(crate) telemetry: Telemetry,
    pub(crate) gauge: Gauge,
    pub(crate) roster: watch::Sender<Arc<Roster>>,
    /// Cancelled when the proxy is to end, and serves on what is under way.
    #[allow(dead_code, reason = "only what is terminated is told")]
    pub(crate) draining: CancellationToken,
    stop: CancellationToken,
    thread: Option<JoinHandle<std::io::Result<()>>>,
}

impl Proxy {
    /// In front of an application.
    pub(crate) fn inbound(application: SocketAddr) -> Self {
        let server = Server::new("kuma.io", "dataplane", "web", application.port());
        Self::start(Aim::Application {
            addr: application,
            server,
        })
    }

    /// In front of an application, waiting this long for a first head.
    pub(crate) fn impatient(application: SocketAddr, wait: Duration) -> Self {
        let server = Server::new("kuma.io", "dataplane", "web", application.port());
        let mut config = worker::Config::default();
        config.detect.timeout = wait;
        let aim = Aim::Application {
            addr: application,
            server,
        };
        Self::start_with(aim, config)
    }

    /// In front of a service with these endpoints.
    pub(crate) fn outbound(endpoints: &[SocketAddr]) -> Self {
        let endpoints = endpoints
            .iter()
            .map(|addr| Listed::plain(*addr, Dst::new([("service", "web")])));
        Self::start(Aim::Service {
            name: "web".to_owned(),
            endpoints: endpoints.collect(),
        })
    }

    fn start(aim: Aim) -> Self {
        Self::start_with(aim, worker::Config::default())
    }

    /// In front of a service, with what is to be known of it from the start.
    #[allow(dead_code, reason = "not every test is about routes")]
    pub(crate) fn start_service(service: Service, served: worker::Config) -> Self {
        let aim = Aim::Service {
            name: service.name.clone(),
            endpoints: service.endpoints.clone(),
        };
        Self::start_known(bound(), (plain(), None), aim, served, Some(service))
    }

    pub(crate) fn start_with(aim: Aim, served: worker::Config) -> Self {
        Self::start_known(bound(), (plain(), None), aim, served, None)
    }

    /// In a mesh that says so, and with an identity that somebody keeps, on this socket: its port may be in the settings.
    #[allow(dead_code, reason = "not every test is about ports")]
    pub(crate) fn start_on(
        listener: TcpListener,
        mesh: (watch::Receiver<Arc<Settings>>, Kept),
        aim: Aim,
        served: worker::Config,
    ) -> Self {
        Self::start_known(listener, mesh, aim, served, None)
    }

    fn start_known(
        listener: TcpListener,
        (settings, identity): (watch::Receiver<Arc<Settings>>, Kept),
        aim: Aim,
        mut served: worker::Config,
        service: Option<Service>,
    ) -> Self {
        let grace = &mut served.detect.refused_grace;
        if *grace == worker::Config::default().detect.refused_grace {
            *grace = DEADLINE; // Clients of tests may be late with what they ask.
        }
        let addr = listener.local_addr().expect("an address");
        let (telemetry, mut seats) = telemetry::new(telemetry::Config::default(), 1);
        let config = heartbeat::Config {
            workers: 1,
            ipv4: false,
            ipv6: false,
            port: 9,
        };
        let (_heart, mut pulses, _state) = heartbeat::new(config);
        let known: Roster = service.map(|service| (addr, service)).into_iter().collect();
        let (roster, changes) = watch::channel(Arc::new(known));
        let (stop, gauge) = (CancellationToken::new(), Gauge::default());
        let draining = CancellationToken::new();
        let (compiling, closed) = compile_closed(settings.clone());
        tokio::spawn(compiling.run());
        let start = Start {
            config: served,
            seat: seats.remove(0),
            plans: vec![Plan { listener, aim }],
            told: Told {
                settings,
                closed,
                identity,
            },
            roster: changes,
            link: None,
            calls: None,
            handoff: mpsc::channel(1).0,
            gauge: gauge.clone(),
            pulse: pulses.remove(0),
            draining: draining.clone(),
            stop: stop.clone(),
        };
        let thread = Some(std::thread::spawn(move || worker::run(start)));
        Self {
            addr,
            telemetry,
            gauge,
            roster,
            draining,
            stop,
            thread,
        }
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.addr)
            .await
            .expect("the proxy listens")
    }

    /// Every sample as printed: `name{labels}` and its value.
    pub(crate) fn samples(&self) -> Vec<(String, f64)> {
        let mut body = Vec::new();
        self.telemetry
            .expose(&Selection::default(), &mut body)
            .expect("a vector takes all");
        let body = String::from_utf8(body).expect("text");
        let lines = body.lines().filter(|line| !line.starts_with('#'));
        lines
            .filter_map(|line| line.rsplit_once(' '))
            .map(|(series, value)| (series.to_owned(), value.parse().expect("a number")))
            .collect()
    }

    /// The sum of the series of `name` that have every one of these labels.
    pub(crate) fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        let matches = |series: &str| {
            series
                .strip_prefix(name)
                .is_some_and(|l| l.is_empty() || l.starts_with('{'))
                && labels.iter().all(|label| series.contains(label))
        };
        self.samples()
            .iter()
            .filter(|(s, _)| matches(s))
            .map(|(_, v)| v)
            .sum()
    }

    /// Waits until so many requests are counted as refused by every endpoint of the service.
    pub(crate) async fn refused(&self, requests: f64) {
        let row = [
            "status_code=\"502\"",
            "classification=\"failure\"",
            "error=\"connect\"",
            "dst_pod",
        ];
        self.counts("response_total", &row, requests).await;
        self.counts("request_total", &["dst_pod"], requests).await;
        self.counts("response_latency_ms_count", &["dst_pod"], requests)
            .await;
        let errors = ["error=\"connect\"", "peer=\"dst\""];
        self.counts("outbound_tcp_errors_total", &errors, requests)
            .await;
        self.counts("outbound_http_errors_total", &errors[..1], requests)
            .await;
    }

    /// Waits until the sum is `expected`.
    pub(crate) async fn counts(&self, name: &str, labels: &[&str], expected: f64) {
        let start = Instant::now();
        while self.sum(name, labels) != expected {
            assert!(
                start.elapsed() < DEADLINE,
                "{name} {labels:?} is {}, not {expected}: {:#?}",
                self.sum(name, labels),
                self.samples()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// What is awaited, which has to be there in time.
pub(crate) async fn soon<T>(awaited: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, awaited)
        .await
        .expect("in time")
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            thread
                .join()
                .expect("the worker does not panic")
                .expect("the worker runs");
        }
    }
}

/// An application that serves each connection with `serve`.
pub(crate) async fn application<F, S>(serve: S) -> SocketAddr
where
    S: Fn(TcpStream) -> F + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a free port");
    let addr = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    addr
}

/// An address where nothing listens.
pub(crate) fn nobody() -> SocketAddr {
    // One that the system gives to nobody by itself.
    crate::ports::free()
}

/// Reads until `end` is the last thing read; answers everything.
pub(crate) async fn read_until(stream: &mut TcpStream, end: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let read = async {
        while !bytes.ends_with(end) {
            match stream.read_buf(&mut bytes).await {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
        }
    };
    tokio::time::timeout(DEADLINE, read).await.expect("in time");
    bytes
}

pub(crate) async fn read_all(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let read = stream.read_to_end(&mut bytes);
    let _eof_or_reset = tokio::time::timeout(DEADLINE, read).await.expect("in time");
    bytes
}

/// Answers each request head with `answer`, reading no body.
pub(crate) async fn answer_heads(mut stream: TcpStream, answer: &'static [u8]) {
    loop {
        let head = read_until(&mut stream, b"\r\n\r\n").await;
        if head.is_empty() || stream.write_all(answer).await.is_err() {
            return;
        }
    }
}
