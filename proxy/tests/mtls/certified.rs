//! A whole proxy that an operator certifies: it asks, it tells of its certificate, and its peers believe it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use linkerd2_proxy_api::identity::identity_server::{Identity, IdentityServer};
use linkerd2_proxy_api::identity::{CertifyRequest, CertifyResponse};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tonic::{Response, Status};
use tower_service::Service;
use weir_crds::settings::{IdentitySettings, MtlsMode};
use weir_proxy::accept::Aim;
use weir_proxy::app;
use weir_proxy::control::operator::{self, Target};
use weir_proxy::control::{Operator, discovery};
use weir_proxy::telemetry::Server;

use crate::authority::Authority;
use crate::mesh::{CLIENT, LIFE, Party, SERVER, identity, settings};
use crate::proxy::{DEADLINE, answer_heads, application, read_until, soon};

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: web\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const TOKEN: &[u8] = b"of a service account";

/// The operator's part: it signs for whoever brings the token.
struct Signs(Arc<Authority>);

#[tonic::async_trait]
impl Identity for Signs {
    async fn certify(
        &self,
        request: tonic::Request<CertifyRequest>,
    ) -> Result<Response<CertifyResponse>, Status> {
        let asked = request.into_inner();
        if asked.token != TOKEN || asked.identity != SERVER {
            return Err(Status::permission_denied("somebody else"));
        }
        let certified = self.0.sign(&asked.certificate_signing_request, &[], LIFE);
        let ends = certified.valid_until.duration_since(SystemTime::UNIX_EPOCH);
        Ok(Response::new(CertifyResponse {
            leaf_certificate: certified.chain[0].to_vec(),
            intermediate_certificates: Vec::new(),
            valid_until: Some(prost_types::Timestamp {
                seconds: ends.expect("after 1970").as_secs() as i64,
                nanos: 0,
            }),
        }))
    }
}

async fn operator(authority: &Arc<Authority>) -> SocketAddr {
    let listener = TcpListener::bind(LOOPBACK).await.expect("a free port");
    let addr = listener.local_addr().expect("an address");
    let server = IdentityServer::new(Signs(Arc::clone(authority)));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let server = server.clone();
            let answer = service_fn(move |request| server.clone().call(request));
            let builder = Builder::new(TokioExecutor::new());
            tokio::spawn(builder.serve_connection(TokioIo::new(stream), answer));
        }
    });
    addr
}

/// A proxy in front of an application, with that operator.
async fn start(
    application: SocketAddr,
    (operator, bundle): (SocketAddr, String),
    token: PathBuf,
) -> (app::Bound, mpsc::Sender<()>) {
    let target = Target::parse(&format!("http://{operator}"), None).expect("a target");
    let mut connection = operator::Config::new(target);
    connection.token = Some(token);
    let server = Server::new("kuma.io", "dataplane", "web", 80);
    let aim = Aim::Application {
        addr: application,
        server,
    };
    let mut config = app::Config {
        workers: 1,
        listeners: vec![(LOOPBACK, aim)],
        operator: Some(Operator {
            settings: None,
            services: None,
            connection,
            discovery: discovery::Config::default(),
        }),
        ..app::Config::default()
    };
    config.admin.addr = LOOPBACK;
    config.admin.metrics_ip = LOOPBACK.ip();
    let mut said = settings(MtlsMode::Strict);
    said.identity = Some(IdentitySettings {
        name: SERVER.into(),
        uris: Vec::new(),
        trust_bundle: bundle,
    });
    // What is said once stays said, whoever said it.
    let app = app::bind(config, watch::channel(Arc::new(said)).1).expect("free ports");
    let (terminate, terminated) = mpsc::channel(2);
    let bound = app.bound().clone();
    tokio::spawn(app.serve(terminated));
    (bound, terminate)
}

/// The value of a series without labels, or with all of these.
async fn value(admin: SocketAddr, series: &str) -> Option<f64> {
    let mut stream = TcpStream::connect(admin).await.expect("it listens");
    let get = b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(get).await.expect("written");
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer))
        .await
        .expect("read");
    let mut lines = answer.lines().filter_map(|line| line.rsplit_once(' '));
    let (_, value) = lines.find(|(name, _)| *name == series)?;
    value.parse().ok()
}

#[tokio::test]
async fn a_proxy_is_certified_and_tells_of_it() {
    let authority = Arc::new(Authority::new("mesh"));
    let token = std::env::temp_dir().join(format!("weir-token-{}", std::process::id()));
    std::fs::write(&token, TOKEN).expect("written");
    let app = application(|s| answer_heads(s, OK)).await;
    let operator = (operator(&authority).await, authority.bundle());
    let (bound, terminate) = start(app, operator, token.clone()).await;
    let start = std::time::Instant::now();
    while value(bound.admin, "identity_cert_refresh_count").await != Some(1.0) {
        assert!(start.elapsed() < DEADLINE, "there is no certificate");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let ok = "control_identity_cert_refreshes_total{result=\"ok\"}";
    assert_eq!(value(bound.admin, ok).await, Some(1.0));
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.expect("after 1970").as_secs_f64();
    for name in [
        "identity_cert_expiration_timestamp_seconds",
        "control_identity_cert_expiration_timestamp_seconds",
    ] {
        let ends = value(bound.admin, name).await.expect("printed");
        assert!((now + 500.0..now + 601.0).contains(&ends), "{name} {ends}");
    }
    let api = (
        settings(MtlsMode::Strict),
        Some(identity(&authority, CLIENT, LIFE)),
    );
    let client = Party::client(api, bound.listeners[0], Some(SERVER));
    let mut asks = client.proxy.connect().await;
    asks.write_all(GET).await.expect("written");
    assert_eq!(read_until(&mut asks, b"ok").await, OK);
    terminate.send(()).await.expect("it runs");
    std::fs::remove_file(token).expect("removed");
}
