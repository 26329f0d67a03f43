//! Connections of the server: who gets one, what is answered to a call of nothing, a certificate that
//! changes, and how connections end.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::pin::Pin;
use std::time::Duration;

use futures::{Stream, StreamExt};
use linkerd2_proxy_api::identity::CertifyRequest;
use linkerd2_proxy_api::identity::identity_client::IdentityClient;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::service::Routes;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status, Streaming};
use weir_crds::grpc::v1::settings_client::SettingsClient;
use weir_crds::grpc::v1::settings_server::{Settings, SettingsServer};
use weir_crds::grpc::v1::{Document, WatchRequest};
use weir_operator::ca::Pair;
use weir_operator::metrics::Metrics;
use weir_operator::serve::{Bound, Limits, Security, ServeError};

use crate::scene::{DAY, Server, connect, eventually, serving, shake_hands, soon};

/// One document, and then nothing for ever.
struct Silent;

#[tonic::async_trait]
impl Settings for Silent {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<Document, Status>> + Send>>;

    async fn watch(&self, _: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let first = futures::stream::iter([Ok(Document::default())]);
        Ok(Response::new(Box::pin(
            first.chain(futures::stream::pending()),
        )))
    }
}

fn services() -> Routes {
    Routes::new(SettingsServer::new(Silent))
}

/// A stream of settings that is open: its document has come. A connection that ends before is made again by the client.
async fn watched(client: &mut SettingsClient<Channel>) -> Streaming<Document> {
    let watched = async {
        loop {
            if let Ok(answer) = client.watch(WatchRequest::default()).await {
                let mut stream = answer.into_inner();
                if let Ok(Some(_)) = stream.message().await {
                    return stream;
                }
            }
        }
    };
    soon("a document", watched).await
}

#[tokio::test]
async fn what_is_not_served_is_unimplemented() {
    let server = Server::start(services(), Limits::default()).await;
    let mut client = IdentityClient::new(server.channel().await);
    let status = soon("an answer", client.certify(CertifyRequest::default()))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    let count = || {
        server.series(r#"weir_operator_grpc_calls_total{method="certify",code="unimplemented"}"#)
    };
    eventually("the call is counted", || count() == 1.0).await;
}

#[tokio::test]
async fn only_who_trusts_the_authority_connects_and_only_for_http2() {
    let server = Server::start(services(), Limits::default()).await;
    let stranger = Pair::authority("stranger", jiff::Timestamp::now(), DAY).unwrap();
    assert!(
        connect(server.address, &stranger.certificate)
            .await
            .is_err()
    );
    let authority = server.authority.certificate.clone();
    assert!(
        shake_hands(server.address, &authority, b"http/1.1")
            .await
            .is_err()
    );
    let stream = shake_hands(server.address, &authority, b"h2")
        .await
        .unwrap();
    let (_, tls) = stream.get_ref();
    assert_eq!(
        tls.protocol_version(),
        Some(rustls::ProtocolVersion::TLSv1_3)
    );
    let count = || server.series(r#"weir_operator_grpc_handshake_failures_total{reason="tls"}"#);
    eventually("both are counted", || count() == 2.0).await;
}

#[tokio::test]
async fn a_new_certificate_is_served_without_a_restart_and_a_bad_one_is_not() {
    let server = Server::start(services(), Limits::default()).await;
    let old = server.channel().await;
    let next = Pair::authority("operator", jiff::Timestamp::now(), DAY).unwrap();
    server.pairs.send_replace(Some(serving(&next)));
    let mut trusted = None;
    soon("the new certificate is served", async {
        while trusted.is_none() {
            trusted = connect(server.address, &next.certificate).await.ok();
        }
    })
    .await;
    // Connections from before go on.
    let _stream = watched(&mut SettingsClient::new(old)).await;

    let broken = Pair {
        certificate: next.certificate.clone(),
        key: "nonsense".to_owned(),
    };
    server.pairs.send_replace(Some(broken));
    for _ in 0..3 {
        connect(server.address, &next.certificate).await.unwrap();
    }
}

#[tokio::test]
async fn the_end_is_told_to_streams_and_awaits_none() {
    let server = Server::start(services(), Limits::default()).await;
    let mut client = SettingsClient::new(server.channel().await);
    let mut stream = watched(&mut client).await;
    let open = r#"weir_operator_grpc_open_calls{method="settings_watch"}"#;
    assert_eq!(server.series(open), 1.0);
    assert_eq!(server.series("weir_operator_grpc_connections"), 1.0);

    let started = std::time::Instant::now();
    server.stop.cancel();
    let status = soon("the stream ends", stream.message()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert!(status.message().contains("connect again"), "{status}");
    let series = server.metrics.clone();
    soon("the server ends", server.task).await.unwrap();
    assert!(
        started.elapsed() < Limits::default().grace,
        "nothing was waited for"
    );
    let text = series.render();
    assert!(text.contains(&format!("{open} 0")), "{text}");
    assert!(
        text.contains(r#"grpc_calls_total{method="settings_watch",code="unavailable"} 1"#),
        "{text}"
    );
}

#[tokio::test]
async fn old_connections_end_and_idle_ones_too() {
    let limits = Limits {
        age: Duration::from_millis(200),
        ..Limits::default()
    };
    let server = Server::start(services(), limits).await;
    let mut client = SettingsClient::new(server.channel().await);
    let mut stream = watched(&mut client).await;
    let status = soon("the stream ends", stream.message()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    // The client connects again by itself.
    let _stream = watched(&mut client).await;

    let limits = Limits {
        idle: Duration::from_millis(100),
        ..Limits::default()
    };
    let server = Server::start(services(), limits).await;
    let mut silent = shake_hands(server.address, &server.authority.certificate, b"h2")
        .await
        .unwrap();
    // Whatever it says before, it ends.
    let _ = soon(
        "a connection without a call ends",
        silent.read_to_end(&mut Vec::new()),
    )
    .await;
    let mut busy = SettingsClient::new(server.channel().await);
    let mut stream = watched(&mut busy).await;
    let idle = tokio::time::timeout(Duration::from_millis(400), stream.message()).await;
    assert!(idle.is_err(), "a watch is not idle: {idle:?}");
}

#[tokio::test]
async fn a_client_that_says_nothing_is_let_go() {
    let limits = Limits {
        handshake: Duration::from_millis(100),
        ..Limits::default()
    };
    let server = Server::start(services(), limits).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let mut rest = Vec::new();
    let _ = soon("the connection ends", stream.read_to_end(&mut rest)).await;
    assert!(rest.is_empty());
    let count =
        || server.series(r#"weir_operator_grpc_handshake_failures_total{reason="timeout"}"#);
    eventually("it is counted", || count() == 1.0).await;
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_their_turn() {
    let limits = Limits {
        connections: 1,
        ..Limits::default()
    };
    let server = Server::start(services(), limits).await;
    let authority = server.authority.certificate.clone();
    let first = shake_hands(server.address, &authority, b"h2")
        .await
        .unwrap();
    let second = shake_hands(server.address, &authority, b"h2");
    tokio::pin!(second);
    let early = tokio::time::timeout(Duration::from_millis(200), second.as_mut()).await;
    assert!(early.is_err(), "the one place is taken");
    drop(first);
    soon("its turn comes", second).await.unwrap();
}

#[tokio::test]
async fn plaintext_is_for_loopback_alone() {
    let run = async |address: [u8; 4]| {
        let bound = Bound::new(Some((address, 0).into()), Limits::default())
            .await
            .unwrap();
        let address = bound.address;
        let stop = tokio_util::sync::CancellationToken::new();
        let metrics = Metrics::default().server;
        let running = bound.run(services(), Security::Plaintext, (metrics, stop.clone()));
        (address, tokio::spawn(running), stop)
    };
    let (_, everywhere, _stop) = run([0, 0, 0, 0]).await;
    let error = soon("a refusal", everywhere).await.unwrap().unwrap_err();
    assert!(matches!(error, ServeError::NotLoopback(_)));
    assert!(error.to_string().contains("--grpc-address"), "{error}");

    let (address, loopback, stop) = run([127, 0, 0, 1]).await;
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap();
    let mut client = SettingsClient::new(endpoint.connect().await.unwrap());
    let _stream = watched(&mut client).await;
    stop.cancel();
    soon("the end", loopback).await.unwrap().unwrap();
}

#[tokio::test]
async fn what_is_no_http2_harms_nobody() {
    let server = Server::start(services(), Limits::default()).await;
    let mut stream = shake_hands(server.address, &server.authority.certificate, b"h2")
        .await
        .unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    let mut rest = Vec::new();
    let _ = soon("the connection ends", stream.read_to_end(&mut rest)).await;
    let mut client = SettingsClient::new(server.channel().await);
    client.watch(WatchRequest::default()).await.unwrap();
}
