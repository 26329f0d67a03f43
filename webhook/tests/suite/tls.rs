//! The TLS server: real handshakes on loopback, the certificate exchanged under way, an orderly end.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use weir_webhook::{serve::router, server};

use crate::fixture::{Authority, Fixture, NAME, filled};

const DEADLINE: Duration = Duration::from_secs(20);

async fn start(fixture: &Fixture) -> (SocketAddr, TaskTracker, CancellationToken) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = server::tls(provider, fixture.service.cluster.serving.clone());
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let router = router(fixture.service.clone());
    tasks.spawn(server::serve(
        listener,
        tls,
        router,
        (tasks.clone(), stop.clone()),
    ));
    (address, tasks, stop)
}

async fn connect(
    address: SocketAddr,
    authority: &Authority,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(&authority.pem).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from(NAME).unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, TcpStream::connect(address).await?)
        .await
}

async fn get(stream: &mut TlsStream<TcpStream>, path: &str, connection: &str) -> String {
    let request =
        format!("GET {path} HTTP/1.1\r\nhost: {NAME}\r\nconnection: {connection}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    if connection == "close" {
        stream.read_to_string(&mut answer).await.unwrap();
    } else {
        let mut buffer = [0; 4096];
        while !answer.ends_with("live\n") {
            let n = timeout(DEADLINE, stream.read(&mut buffer))
                .await
                .unwrap()
                .unwrap();
            assert_ne!(n, 0, "closed after {answer:?}");
            answer.push_str(std::str::from_utf8(&buffer[..n]).unwrap());
        }
    }
    answer
}

#[tokio::test]
async fn the_certificate_of_the_moment_is_served_and_makes_it_ready() {
    let fixture = filled(json!({}));
    let (address, tasks, stop) = start(&fixture).await;
    let (first, second) = (Authority::new(), Authority::new());
    connect(address, &first)
        .await
        .expect_err("the placeholder is trusted by nobody");

    for authority in [&first, &second] {
        fixture.serving.send_replace(authority.serving());
        let answer = get(
            &mut connect(address, authority).await.unwrap(),
            "/ready",
            "close",
        )
        .await;
        assert!(
            answer.starts_with("HTTP/1.1 503 ")
                && answer.contains("caBundle") | answer.contains("to exist"),
            "{answer}"
        );
        fixture.hooks.send_replace(authority.hooks());
        let answer = get(
            &mut connect(address, authority).await.unwrap(),
            "/ready",
            "close",
        )
        .await;
        assert!(
            answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("ready\n"),
            "{answer}"
        );
    }
    connect(address, &first)
        .await
        .expect_err("the first certificate is no longer served");
    stop.cancel();
    tasks.close();
    timeout(DEADLINE, tasks.wait()).await.unwrap();
}

#[tokio::test]
async fn an_idle_connection_does_not_hold_up_the_end() {
    let fixture = filled(json!({}));
    let authority = Authority::new();
    fixture.serving.send_replace(authority.serving());
    let (address, tasks, stop) = start(&fixture).await;
    let mut idle = connect(address, &authority).await.unwrap();
    get(&mut idle, "/live", "keep-alive").await;
    stop.cancel();
    tasks.close();
    timeout(server::DRAIN_TIMEOUT / 2, tasks.wait())
        .await
        .expect("idle connections end at once");
    let mut rest = Vec::new();
    assert_eq!(
        timeout(DEADLINE, idle.read_to_end(&mut rest))
            .await
            .unwrap()
            .unwrap_or_default(),
        0
    );
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_shakes_hands_is_dropped() {
    let fixture = filled(json!({}));
    let (address, tasks, stop) = start(&fixture).await;
    let mut silent = TcpStream::connect(address).await.unwrap();
    let mut byte = [0];
    let read = timeout(server::HANDSHAKE_TIMEOUT * 2, silent.read(&mut byte)).await;
    assert!(matches!(read, Ok(Ok(0) | Err(_))), "{read:?}");
    stop.cancel();
    tasks.close();
    timeout(DEADLINE, tasks.wait()).await.unwrap();
}
