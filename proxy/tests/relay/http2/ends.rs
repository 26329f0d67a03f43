//! Ends: who went away, what the other side sees, and what is counted for it.

use std::time::Duration;

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use weir_proxy::accept::Aim;
use weir_proxy::http2::reply::answer;
use weir_proxy::telemetry::Server;
use weir_proxy::worker;

use super::both;
use super::peer::{Client, Setup, serving};
use super::wire::{get, hello};
use crate::deaf::deaf;
use crate::proxy::{Proxy, application, nobody, read_all};

const CANCELED: &str = "error=\"canceled\"";

async fn pair() -> (Proxy, Client) {
    let proxy = Proxy::inbound(serving(Setup::default()).await);
    let client = Client::connect(&proxy, Setup::default()).await;
    (proxy, client)
}

/// A call whose answer has begun and does not end.
async fn streaming(client: &mut Client) -> (RecvStream, SendStream<Bytes>) {
    let (response, send) = client.begin("/stream").await;
    let mut body = response.await.expect("a head").into_body();
    body.data().await.expect("data").expect("no error");
    (body, send)
}

#[tokio::test]
async fn a_server_resets_a_stream_and_the_others_live() {
    let (proxy, mut client) = pair().await;
    both::a_server_resets_streams(&proxy, &mut client).await;
}

#[tokio::test]
async fn a_client_resets_a_stream_before_and_after_its_head() {
    let (proxy, mut client) = pair().await;
    let (_response, mut send) = client.begin("/hang").await;
    proxy.counts("request_total", &[], 1.0).await;
    send.send_reset(Reason::CANCEL);
    proxy
        .counts(
            "response_total",
            &[CANCELED, "classification=\"failure\""],
            1.0,
        )
        .await;
    assert_eq!(proxy.sum("response_latency_ms_count", &[]), 0.0);
    let (_body, mut send) = streaming(&mut client).await;
    send.send_reset(Reason::CANCEL);
    let row = [
        CANCELED,
        "classification=\"success\"",
        "status_code=\"200\"",
    ];
    proxy.counts("response_total", &row, 1.0).await;
    proxy.counts("http2_active_streams", &[], 0.0).await;
}

#[tokio::test]
async fn a_server_that_leaves_in_peace_answers_what_it_has() {
    let (proxy, mut client) = pair().await;
    client
        .call("/leave", Bytes::from_static(b"body"))
        .await
        .expect("an answer");
    client.connection.await.expect("it ends").expect("in peace");
    proxy.counts("response_total", &["error=\"\""], 1.0).await;
    proxy.counts("http2_active_connections", &[], 0.0).await;
    proxy.counts("tcp_open_connections", &[], 0.0).await;
}

#[tokio::test]
async fn a_server_that_fails_says_why_to_the_metrics_too() {
    let (proxy, mut client) = pair().await;
    let (_body, _send) = streaming(&mut client).await;
    let failed = client.call("/fail", Bytes::new()).await;
    assert!(failed.is_err(), "the connection is gone");
    let row = [
        "status_code=\"200\"",
        "error=\"h2(INTERNAL_ERROR)\"",
        "classification=\"failure\"",
    ];
    proxy.counts("response_total", &row, 1.0).await;
    let row = [
        "status_code=\"502\"",
        "error=\"reset\"",
        "classification=\"failure\"",
    ];
    proxy.counts("response_total", &row, 1.0).await;
    proxy.counts("http2_active_connections", &[], 0.0).await;
}

#[tokio::test]
async fn a_client_that_goes_away_cancels_what_it_asked() {
    let (proxy, mut client) = pair().await;
    let (_body, _send) = streaming(&mut client).await;
    let (_response, _send) = client.begin("/hang").await;
    proxy.counts("request_total", &[], 2.0).await;
    client.connection.abort();
    proxy
        .counts("response_total", &[CANCELED, "status_code=\"200\""], 1.0)
        .await;
    proxy
        .counts(
            "response_total",
            &[CANCELED, "classification=\"failure\""],
            1.0,
        )
        .await;
    proxy.counts("http2_active_streams", &[], 0.0).await;
}

/// Asks through a proxy that reaches nobody, and expects this status and these errors.
async fn in_vain(proxy: Proxy, status: u16, errors: [&str; 2]) {
    let mut client = Client::connect(&proxy, Setup::default()).await;
    let answer = client
        .call("/plain", Bytes::new())
        .await
        .expect("an answer");
    assert_eq!(answer.status, status);
    client.connection.await.expect("it ends").expect("in peace");
    let [http, tcp] = errors.map(|error| format!("error=\"{error}\""));
    let code = format!("status_code=\"{status}\"");
    let row = [code.as_str(), "classification=\"failure\"", &http];
    proxy.counts("request_total", &[], 1.0).await;
    proxy.counts("response_total", &row, 1.0).await;
    proxy.counts("response_latency_ms_count", &[], 1.0).await;
    let way = if proxy.sum("inbound_http_errors_total", &[]) > 0.0 {
        "inbound"
    } else {
        "outbound"
    };
    let family = |layer: &str| format!("{way}_{layer}_errors_total");
    proxy.counts(&family("http"), &[&http], 1.0).await;
    proxy.counts(&family("tcp"), &[&tcp], 1.0).await;
    proxy.counts("http2_active_connections", &[], 0.0).await;
    // The proxy answered, and both ends closed.
    let well = ["peer=\"src\"", "classification=\"success\"", "errno=\"\""];
    proxy.counts("tcp_close_total", &well, 1.0).await;
    assert_eq!(proxy.sum("tcp_open_total", &["peer=\"dst\""]), 0.0);
}

#[tokio::test]
async fn an_application_that_is_down_is_502_in_frames() {
    in_vain(Proxy::inbound(nobody()), 502, ["connect"; 2]).await;
    in_vain(Proxy::outbound(&[nobody()]), 502, ["connect"; 2]).await;
}

#[tokio::test]
async fn a_service_without_endpoints_is_502_in_frames() {
    in_vain(Proxy::outbound(&[]), 502, ["connect"; 2]).await;
}

#[tokio::test]
async fn an_application_that_does_not_accept_is_504_in_frames() {
    let (addr, _full) = deaf();
    let server = Server::new("kuma.io", "dataplane", "web", addr.port());
    let mut config = worker::Config::default();
    config.forward.connect_timeout = Duration::from_millis(100);
    let proxy = Proxy::start_with(Aim::Application { addr, server }, config);
    in_vain(proxy, 504, ["timeout", "connect timeout"]).await;
}

#[tokio::test]
async fn an_application_that_closes_without_a_word_is_502_in_frames() {
    let request = || [hello(), get(1), get(3)].concat();
    let serve = move |mut stream: TcpStream| async move {
        let mut bytes = vec![0; request().len()];
        stream.read_exact(&mut bytes).await.expect("a request");
    };
    let proxy = Proxy::inbound(application(serve).await);
    let mut client = proxy.connect().await;
    client.write_all(&request()).await.expect("written");
    let (expected, _) = answer([1, 3].into_iter(), 3, (502, "connection_terminated"));
    assert_eq!(read_all(&mut client).await, expected);
    let row = [
        "status_code=\"502\"",
        "classification=\"failure\"",
        "error=\"reset\"",
    ];
    proxy.counts("response_total", &row, 2.0).await;
    assert_eq!(proxy.sum("inbound_http_errors_total", &[]), 0.0);
}
