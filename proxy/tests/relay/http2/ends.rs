//! Ends: who went away, what the other side sees, and what is counted for it.

use bytes::Bytes;
use h2::Reason;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::peer::{Client, Setup, serving};
use crate::proxy::{Proxy, application, nobody};

const CANCELED: &str = "error=\"canceled\"";

async fn pair() -> (Proxy, Client) {
    let proxy = Proxy::inbound(serving(Setup::default()).await);
    let client = Client::connect(&proxy, Setup::default()).await;
    (proxy, client)
}

#[tokio::test]
async fn a_server_resets_a_stream_and_the_others_live() {
    let (proxy, mut client) = pair().await;
    for (path, reason, row) in [
        (
            "/reset",
            Reason::REFUSED_STREAM,
            ["status_code=\"502\"", "error=\"reset\""],
        ),
        (
            "/break",
            Reason::INTERNAL_ERROR,
            ["status_code=\"200\"", "error=\"h2(INTERNAL_ERROR)\""],
        ),
    ] {
        let error = client
            .call(path, Bytes::new())
            .await
            .err()
            .expect("a reset");
        assert_eq!(error.reason(), Some(reason));
        let row = [row[0], row[1], "classification=\"failure\""];
        proxy.counts("response_total", &row, 1.0).await;
    }
    client
        .call("/plain", Bytes::new())
        .await
        .expect("an answer");
    proxy.counts("response_total", &["error=\"\""], 1.0).await;
    proxy.counts("response_latency_ms_count", &[], 3.0).await;
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
    let (response, mut send) = client.begin("/stream").await;
    let mut body = response.await.expect("a head").into_body();
    body.data().await.expect("data").expect("no error");
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
    let (response, _send) = client.begin("/stream").await;
    let mut body = response.await.expect("a head").into_body();
    body.data().await.expect("data").expect("no error");
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
    let (response, _send) = client.begin("/stream").await;
    let mut body = response.await.expect("a head").into_body();
    body.data().await.expect("data").expect("no error");
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

#[tokio::test]
async fn an_application_that_is_down_is_502_in_frames() {
    let proxy = Proxy::inbound(nobody().await);
    let mut client = Client::connect(&proxy, Setup::default()).await;
    let answer = client
        .call("/plain", Bytes::new())
        .await
        .expect("an answer");
    assert_eq!(answer.status, 502);
    client.connection.await.expect("it ends").expect("in peace");
    let row = [
        "status_code=\"502\"",
        "classification=\"failure\"",
        "error=\"connect\"",
    ];
    proxy.counts("request_total", &[], 1.0).await;
    proxy.counts("response_total", &row, 1.0).await;
    proxy.counts("response_latency_ms_count", &[], 1.0).await;
    let error = ["error=\"connect\""];
    proxy.counts("inbound_http_errors_total", &error, 1.0).await;
    proxy.counts("inbound_tcp_errors_total", &error, 1.0).await;
    proxy.counts("http2_active_connections", &[], 0.0).await;
}

#[tokio::test]
async fn an_application_that_closes_without_a_word_is_502_in_frames() {
    let serve = |mut stream: TcpStream| async move {
        let _read = stream.read(&mut [0; 9]).await;
        let mut rest = [0; 4096];
        // Closing with unread bytes would be a reset.
        let read = async { while let Ok(1..) = stream.read(&mut rest).await {} };
        let _quiet = tokio::time::timeout(std::time::Duration::from_millis(200), read).await;
    };
    let proxy = Proxy::inbound(application(serve).await);
    let mut client = Client::connect(&proxy, Setup::default()).await;
    let (response, _send) = client.begin("/plain").await;
    assert_eq!(response.await.expect("an answer").status(), 502);
    let row = [
        "status_code=\"502\"",
        "classification=\"failure\"",
        "error=\"reset\"",
    ];
    proxy.counts("response_total", &row, 1.0).await;
    assert_eq!(proxy.sum("inbound_http_errors_total", &[]), 0.0);
}
