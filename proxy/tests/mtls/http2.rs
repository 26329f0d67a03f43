//! HTTP/2 and gRPC through both proxies: frames that pass as they are, and requests that are balanced each by itself.

use bytes::Bytes;
use h2::RecvStream;
use hyper::http::{HeaderMap, Request, Response};
use tokio::net::TcpStream;
use weir_crds::settings::MtlsMode;
use weir_proxy::accept::Aim;
use weir_proxy::worker;

use crate::authority::Authority;
use crate::mesh::{CLIENT, LIFE, Pair, Party, SERVER, identity, listed, settings};
use crate::passes::noise;
use crate::proxy::{Proxy, application, soon};

async fn body(mut stream: RecvStream) -> (Vec<u8>, Option<HeaderMap>) {
    let mut bytes = Vec::new();
    while let Some(data) = stream.data().await {
        let data = data.expect("data");
        stream
            .flow_control()
            .release_capacity(data.len())
            .expect("room");
        bytes.extend_from_slice(&data);
    }
    (bytes, stream.trailers().await.expect("trailers"))
}

/// Answers a request of gRPC with its own body.
async fn grpc(stream: TcpStream) {
    let Ok(mut connection) = h2::server::handshake(stream).await else {
        return;
    };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        tokio::spawn(async move {
            let (bytes, _) = body(request.into_body()).await;
            let head = Response::builder().header("content-type", "application/grpc");
            let mut out = respond
                .send_response(head.body(()).expect("a head"), false)
                .expect("sent");
            out.send_data(bytes.into(), false).expect("sent");
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().expect("a value"));
            out.send_trailers(trailers).expect("sent");
        });
    }
}

/// So many requests, ten at a time, on one connection; each gets back what it sends.
async fn call(proxy: &Proxy, requests: u32, size: usize) {
    let (mut send, connection) = h2::client::handshake(proxy.connect().await)
        .await
        .expect("HTTP/2");
    let driver = tokio::spawn(connection);
    for round in 0..requests / 10 {
        let calls = (0..10).map(|n| {
            let request = Request::post("http://web/echo.Echo/Say")
                .header("content-type", "application/grpc")
                .body(())
                .expect("a request");
            let sent = noise(size, round * 10 + n);
            let (answer, mut out) = send.send_request(request, false).expect("room");
            out.send_data(Bytes::from(sent.clone()), true)
                .expect("sent");
            async move {
                let answer = answer.await.expect("an answer");
                let (got, trailers) = body(answer.into_body()).await;
                assert!(got == sent, "{round} {n}");
                assert_eq!(trailers.expect("trailers")["grpc-status"], "0");
            }
        });
        soon(futures::future::join_all(calls)).await;
    }
    drop(send);
    soon(driver).await.expect("it runs").expect("it ends well");
}

#[tokio::test]
async fn grpc_passes_frame_by_frame() {
    let pair = Pair::start(application(grpc).await);
    call(&pair.client.proxy, 200, 10_000).await;
    for (party, id) in [(&pair.client, "server_id"), (&pair.server, "client_id")] {
        let labels = [
            "tls=\"true\"",
            id,
            "grpc_status_code=\"0\"",
            "status_code=\"200\"",
        ];
        party.proxy.counts("response_total", &labels, 200.0).await;
    }
}

#[tokio::test]
async fn balanced_requests_go_over_the_mesh_tls_of_their_endpoints() {
    let authority = Authority::new("mesh");
    let of = |name| {
        let identity = identity(&authority, name, LIFE);
        (settings(MtlsMode::Strict), Some(identity))
    };
    let servers = [
        Party::server(of(SERVER), application(grpc).await),
        Party::server(of(SERVER), application(grpc).await),
    ];
    let endpoints = servers.iter().map(|s| listed(s.proxy.addr, Some(SERVER)));
    let aim = Aim::Service {
        name: "web".to_owned(),
        endpoints: endpoints.collect(),
    };
    let client = Party::start(of(CLIENT), aim, worker::Config::default());
    call(&client.proxy, 200, 30_000).await;
    let labels = ["tls=\"true\"", "server_id", "grpc_status_code=\"0\""];
    client.proxy.counts("response_total", &labels, 200.0).await;
    let got = servers
        .each_ref()
        .map(|s| s.proxy.sum("request_total", &["tls=\"true\"", CLIENT]));
    assert_eq!(got[0] + got[1], 200.0);
    assert!(got.iter().all(|n| *n > 20.0), "{got:?}");
}
