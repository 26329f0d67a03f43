//! The proxy as a process, in front of an application in this one, and its resident memory.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use weir_proxy::wait;

use crate::ports::free;

/// Longest time any condition may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
pub(crate) const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: web\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

pub(crate) struct Proxy {
    process: Child,
    /// Connections that the application has accepted.
    accepted: Arc<AtomicUsize>,
    inbound: SocketAddr,
    admin: SocketAddr,
}

/// As many descriptors as this process may have.
pub(crate) fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, raised).expect("the soft limit may be raised to the hard one");
}

/// The Dataplane of a service, which listens here and dials there.
fn dataplane(service: &str, listens: SocketAddr, dials: SocketAddr) -> String {
    let (port, to) = (listens.port(), dials.port());
    format!(
        "type: Dataplane\nmesh: default\nname: {service}-{port}\nnetworking:\n  address: 127.0.0.1\n  inbound:\n  \
         - port: {port}\n    servicePort: {to}\n    tags:\n      kuma.io/service: {service}\n"
    )
}

/// An application that answers each head, and counts its connections.
async fn application(accepted: Arc<AtomicUsize>) -> SocketAddr {
    let listener = tokio::net::TcpSocket::new_v4().expect("a socket");
    listener
        .bind((Ipv4Addr::LOCALHOST, 0).into())
        .expect("a free port");
    let listener = listener.listen(4096).expect("a listener");
    let addr = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            accepted.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(async move {
                let mut bytes = Vec::new();
                while stream.read_buf(&mut bytes).await.is_ok_and(|n| n > 0) {
                    if bytes.ends_with(b"\r\n\r\n") {
                        bytes.clear();
                        let _gone = stream.write_all(OK).await;
                    }
                }
            });
        }
    });
    addr
}

impl Proxy {
    pub(crate) async fn start() -> Self {
        let accepted = Arc::<AtomicUsize>::default();
        let application = application(Arc::clone(&accepted)).await;
        let inbound = free();
        let listens = dataplane("web", inbound, application);
        Self::launch(listens, inbound, accepted).await
    }

    /// In front of this application.
    pub(crate) async fn relaying(application: SocketAddr) -> Self {
        let inbound = free();
        let listens = dataplane("web", inbound, application);
        Self::launch(listens, inbound, Arc::default()).await
    }

    /// In front of a service with these endpoints.
    pub(crate) async fn balancing(endpoints: &[SocketAddr]) -> Self {
        let outbound = free();
        let nobody = dataplane("shop", free(), free());
        let mut documents = format!(
            "{nobody}  outbound:\n  - port: {}\n    tags:\n      kuma.io/service: web\n",
            outbound.port()
        );
        for endpoint in endpoints {
            documents += "---\n";
            documents += &dataplane("web", *endpoint, *endpoint);
        }
        Self::launch(documents, outbound, Arc::default()).await
    }

    /// Of these Dataplanes, the first of which is its own; it listens at `inbound`.
    async fn launch(dataplanes: String, inbound: SocketAddr, accepted: Arc<AtomicUsize>) -> Self {
        raise_limit();
        let (admin, metrics) = (free(), free());
        let documents = format!(
            "{dataplanes}---\ntype: Mesh\nname: default\nmetrics:\n  enabledBackend: a\n  backends:\n  \
             - name: a\n    type: prometheus\n    conf:\n      port: {}\n      path: /metrics\n",
            metrics.port(),
        );
        let mut process = Command::new(env!("CARGO_BIN_EXE_weir-proxy"))
            .args([
                "run",
                "--dataplane-file",
                "-",
                "--admin-addr",
                &admin.to_string(),
            ])
            .stdin(Stdio::piped())
            .spawn()
            .expect("the proxy starts");
        let mut input = process.stdin.take().expect("a pipe");
        input.write_all(documents.as_bytes()).expect("it reads");
        drop(input);
        let proxy = Self {
            process,
            accepted,
            inbound,
            admin,
        };
        // That somebody listens on a port of the proxy says nothing: another process may have it.
        let until_live = wait::Args {
            admin_addr: admin,
            timeout: DEADLINE,
            best_effort: false,
        };
        let waited = tokio::task::spawn_blocking(move || wait::run(&until_live)).await;
        waited.expect("it ends").expect("the proxy is live");
        proxy.counts("tcp_open_connections{", 0.0).await;
        proxy
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.inbound).await.expect("it listens")
    }

    /// Waits until the application has accepted so many more connections than before.
    pub(crate) async fn dials(&self, before: usize, more: usize) {
        let start = Instant::now();
        while self.dialed() < before + more {
            assert!(
                start.elapsed() < DEADLINE,
                "{} connections are dialed",
                self.dialed()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) fn dialed(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Resident memory, in KiB.
    pub(crate) fn resident(&self) -> f64 {
        let path = format!("/proc/{}/status", self.process.id());
        let status = std::fs::read_to_string(path).expect("it runs");
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
        let line = line.expect("a process has memory").trim();
        let number = line.strip_suffix(" kB").expect("in KiB");
        number.parse().expect("a number")
    }

    /// Waits until the samples that begin like this add up to `expected`.
    pub(crate) async fn counts(&self, prefix: &str, expected: f64) {
        self.until(prefix, |sum| sum == expected).await;
    }

    /// Waits until the samples that begin like this add up to what is asked for.
    pub(crate) async fn until(&self, prefix: &str, is_it: impl Fn(f64) -> bool) {
        let start = Instant::now();
        loop {
            let sum = self.sum(prefix).await;
            if is_it(sum) {
                return;
            }
            assert!(start.elapsed() < DEADLINE, "{prefix} is {sum}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What the samples that begin like this add up to.
    pub(crate) async fn sum(&self, prefix: &str) -> f64 {
        let body = self.metrics().await;
        let lines = body.lines().filter(|line| line.starts_with(prefix));
        let values = lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
        values.sum()
    }

    async fn metrics(&self) -> String {
        let mut stream = TcpStream::connect(self.admin).await.expect("it listens");
        let request = b"GET /metrics HTTP/1.0\r\nHost: a\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await.expect("written");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        answer
    }

    /// Serves others: requests on connections of their own, one after the other; answers the slowest.
    pub(crate) async fn serves_others(&self) -> Duration {
        let mut slowest = Duration::ZERO;
        for _ in 0..50 {
            let start = Instant::now();
            ask(&mut self.connect().await).await;
            slowest = slowest.max(start.elapsed());
        }
        slowest
    }
}

/// One request and its answer.
pub(crate) async fn ask(client: &mut TcpStream) {
    client.write_all(GET).await.expect("written");
    let mut answer = vec![0; OK.len()];
    let read = tokio::time::timeout(DEADLINE, client.read_exact(&mut answer)).await;
    read.expect("in time").expect("an answer");
    assert_eq!(answer, OK);
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _it_has_ended_already = self.process.kill();
        let _status = self.process.wait();
    }
}
