//! CONNECT and extended CONNECT (RFC 9113 section 8.5, RFC 8441): tunnels, and how they end.

use bytes::Bytes;
use h2::Reason;
use hyper::http::{Method, Request};

use super::peer::{Client, Setup};
use super::proxy::soon;
use super::service::{by_streams, two};

#[tokio::test]
async fn tunnels_pass_both_ways_until_both_have_ended() {
    let proxy = two(Setup::default(), by_streams()).await;
    let mut client = Client::connect(&proxy, Setup::default()).await;
    client
        .call("/plain", Bytes::new())
        .await
        .expect("an answer");
    assert!(client.sender.is_extended_connect_protocol_enabled());
    let extended = Request::builder()
        .method(Method::CONNECT)
        .uri("http://web.example/tunnel")
        .extension(h2::ext::Protocol::from_static("websocket"));
    let plain = Request::builder()
        .method(Method::CONNECT)
        .uri("web.example:443");
    for (n, request) in [extended, plain].into_iter().enumerate() {
        let ended = n as f64 + 1.0;
        let request = request.body(()).expect("a request");
        let (response, mut send) = client.sender.send_request(request, false).expect("sent");
        send.send_data(Bytes::from_static(b"hello"), false)
            .expect("sent");
        let mut back = soon(response).await.expect("an answer").into_body();
        let data = soon(back.data()).await.expect("data").expect("no error");
        assert_eq!(data, "hello");
        // Its latency is that of the 200; its end is yet to come.
        proxy
            .counts("response_latency_ms_count", &[], ended + 1.0)
            .await;
        assert_eq!(proxy.sum("response_total", &[]), ended);
        send.send_data(Bytes::new(), true).expect("sent");
        let row = ["status_code=\"200\"", "error=\"\""];
        proxy.counts("response_total", &row, ended + 1.0).await;
    }
    proxy.counts("http2_active_streams", &[], 0.0).await;
}

#[tokio::test]
async fn a_tunnel_that_is_reset_ends_as_it_was() {
    let proxy = two(Setup::default(), by_streams()).await;
    let mut client = Client::connect(&proxy, Setup::default()).await;
    client
        .call("/plain", Bytes::new())
        .await
        .expect("an answer");
    for (code, error, classification) in [
        (Reason::CANCEL, "", "success"),
        (Reason::INTERNAL_ERROR, "reset", "failure"),
    ] {
        let request = Request::builder()
            .method(Method::CONNECT)
            .uri("http://web.example/tunnel")
            .extension(h2::ext::Protocol::from_static("websocket"));
        let request = request.body(()).expect("a request");
        let (response, mut send) = client.sender.send_request(request, false).expect("sent");
        send.send_data(Bytes::from_static(b"hello"), false)
            .expect("sent");
        let mut back = soon(response).await.expect("an answer").into_body();
        soon(back.data()).await.expect("data").expect("no error");
        send.send_reset(code);
        let row = [
            "status_code=\"200\"",
            &format!("error=\"{error}\""),
            &format!("classification=\"{classification}\""),
        ];
        let before = if error.is_empty() { 1.0 } else { 0.0 };
        proxy.counts("response_total", &row, before + 1.0).await;
    }
}
