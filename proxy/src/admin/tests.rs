//! The admin server in process, over real loopback sockets: what its tests share. A `Running` server is ended
//! when it is dropped.

mod controls;
mod endpoint;
mod patience;
mod probes;
mod routes;
mod secured;

use super::*;
use crate::redirection::State;
use crate::telemetry::Selection;
use std::collections::BTreeMap;
use std::io::{self, Write};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use weir_crds::settings::{MetricsSettings, MetricsTls, MtlsMode, Settings};

/// How long a test waits for a condition before it fails.
const DEADLINE: Duration = Duration::from_secs(20);

/// An exposition made by a function.
struct Fake<F>(F);

impl<F> Exposition for Fake<F>
where
    F: Fn(&Selection, &mut dyn Write) -> io::Result<()> + Send + Sync + 'static,
{
    fn expose(&self, selection: &Selection, out: &mut dyn Write) -> io::Result<()> {
        (self.0)(selection, out)
    }
}

/// An exposition that says how it was asked.
fn echo() -> Arc<dyn Exposition> {
    Arc::new(Fake(|selection: &Selection, out: &mut dyn Write| {
        let filters: Vec<_> = selection.filters.iter().map(|f| f.as_str()).collect();
        writeln!(out, "filters={filters:?} used_only={}", selection.used_only)
    }))
}

/// Settings with a plain metrics endpoint.
fn settings(port: u16, path: &str) -> Settings {
    Settings {
        metrics: Some(MetricsSettings {
            port,
            path: path.into(),
            tags: BTreeMap::new(),
            permission: None,
            tls: MetricsTls::ActiveMtlsBackend,
            filter: None,
            used_only: false,
            aggregate: Vec::new(),
        }),
        ..Settings::without_metrics("default")
    }
}

fn settings_without_metrics() -> Settings {
    Settings {
        metrics: None,
        ..settings(1, "/")
    }
}

/// A loopback configuration with ports of the kernel's choice.
fn config() -> Config {
    Config {
        addr: (Ipv4Addr::LOCALHOST, 0).into(),
        metrics_ip: Ipv4Addr::LOCALHOST.into(),
        ..Config::default()
    }
}

struct Running {
    addr: SocketAddr,
    endpoint: watch::Receiver<EndpointStatus>,
    settings: watch::Sender<Arc<Settings>>,
    handoffs: mpsc::Sender<Handoff>,
    identity: watch::Sender<Option<Arc<Identity>>>,
    service: watch::Sender<Service>,
    redirection: watch::Sender<State>,
    draining: watch::Sender<bool>,
    drain: CancellationToken,
    shutdown: CancellationToken,
    served: tokio::task::JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

fn start_logging(
    config: Config,
    exposition: Arc<dyn Exposition>,
    first: Settings,
    levels: Option<Levels>,
) -> Running {
    start_with(config, exposition, first, (levels, true))
}

/// Where nobody keeps an identity, and there is no pod.
fn start_alone(config: Config, exposition: Arc<dyn Exposition>, first: Settings) -> Running {
    start_with(config, exposition, first, (None, false))
}

fn start_with(
    config: Config,
    exposition: Arc<dyn Exposition>,
    first: Settings,
    (levels, in_pod): (Option<Levels>, bool),
) -> Running {
    let server = bind(config).unwrap();
    let (settings, settings_of) = watch::channel(Arc::new(first));
    let (handoffs, handoffs_of) = mpsc::channel(8);
    let (service, service_of) = watch::channel(Service::Running);
    let (redirection, redirection_of) = watch::channel(State::Unknown);
    let (draining, draining_of) = watch::channel(false);
    let drain = CancellationToken::new();
    let (identity, identity_of) = watch::channel(None);
    let deps = Deps {
        exposition,
        identity: in_pod.then_some(identity_of),
        settings: settings_of,
        handoffs: handoffs_of,
        service: service_of,
        redirection: in_pod.then_some(redirection_of),
        draining: draining_of,
        drain: drain.clone(),
        levels,
    };
    let shutdown = CancellationToken::new();
    let (addr, endpoint) = (server.addr, server.endpoint.clone());
    let served = tokio::spawn(serve(server, deps, shutdown.clone()));
    Running {
        addr,
        endpoint,
        settings,
        handoffs,
        identity,
        service,
        redirection,
        draining,
        drain,
        shutdown,
        served,
    }
}

fn start(config: Config, exposition: Arc<dyn Exposition>, first: Settings) -> Running {
    start_logging(config, exposition, first, None)
}

fn start_plain() -> Running {
    start(config(), echo(), settings_without_metrics())
}

impl Running {
    /// The status of the metrics endpoint once it satisfies `wanted`.
    async fn endpoint_when(
        &mut self,
        wanted: impl FnMut(&EndpointStatus) -> bool,
    ) -> EndpointStatus {
        tokio::time::timeout(DEADLINE, self.endpoint.wait_for(wanted))
            .await
            .expect("the endpoint reaches the wanted state")
            .unwrap()
            .clone()
    }

    async fn serving(&mut self) -> SocketAddr {
        let serving = |status: &EndpointStatus| matches!(status, EndpointStatus::Serving(_));
        match self.endpoint_when(serving).await {
            EndpointStatus::Serving(addr) => addr,
            other => panic!("{other:?}"),
        }
    }

    fn set(&self, settings: Settings) {
        self.settings.send_replace(Arc::new(settings));
    }
}

/// A parsed answer.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
    /// The body ended where its framing says, not with the connection.
    complete: bool,
}

/// Reads one answer to a request of `method`; more answers may follow on the same connection.
async fn read_answer(stream: &mut (impl AsyncRead + Unpin), method: &str) -> Answer {
    let mut raw = Vec::new();
    let mut chunk = vec![0; 64 * 1024];
    loop {
        if let Some(answer) = parse(&raw, method, false) {
            return answer;
        }
        let n = stream.read(&mut chunk).await.unwrap_or(0);
        if n == 0 {
            return parse(&raw, method, true)
                .unwrap_or_else(|| panic!("no answer: {:?}", String::from_utf8_lossy(&raw)));
        }
        raw.extend_from_slice(&chunk[..n]);
    }
}

fn parse(raw: &[u8], method: &str, closed: bool) -> Option<Answer> {
    let text = String::from_utf8_lossy(raw);
    let (head, rest) = text.split_once("\r\n\r\n")?;
    let head = head.to_ascii_lowercase();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let (body, complete) = if method == "HEAD" || matches!(status, 204 | 304) {
        (String::new(), true)
    } else if head.contains("transfer-encoding: chunked") {
        dechunk(rest)
    } else {
        let length = head.split("content-length: ").nth(1)?;
        let length: usize = length.lines().next()?.parse().ok()?;
        (rest.to_owned(), rest.len() == length)
    };
    (complete || closed).then_some(Answer {
        status,
        head,
        body,
        complete,
    })
}

fn dechunk(mut rest: &str) -> (String, bool) {
    let mut body = String::new();
    while let Some((size, data)) = rest.split_once("\r\n") {
        let Ok(size) = usize::from_str_radix(size, 16) else {
            break;
        };
        if size == 0 {
            return (body, true);
        }
        let Some(data) = data.get(..size + 2).map(|_| data.split_at(size)) else {
            break;
        };
        body.push_str(data.0);
        rest = &data.1[2..];
    }
    (body, false)
}

async fn send(stream: &mut (impl AsyncWrite + Unpin), method: &str, path: &str, headers: &str) {
    let head = format!("{method} {path} HTTP/1.1\r\nHost: test\r\n{headers}\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
}

/// One request on a connection of its own.
async fn ask(addr: SocketAddr, method: &str, path: &str) -> Answer {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    send(&mut stream, method, path, "").await;
    tokio::time::timeout(DEADLINE, read_answer(&mut stream, method))
        .await
        .expect("an answer comes")
}

async fn get(addr: SocketAddr, path: &str) -> Answer {
    ask(addr, "GET", path).await
}
