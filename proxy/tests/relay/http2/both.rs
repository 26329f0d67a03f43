//! What a client sees and what is counted, the same whichever way HTTP/2 takes through the proxy: the tests of both ways
//! call it.

use bytes::Bytes;
use h2::Reason;

use super::peer::Client;
use crate::proxy::{Proxy, soon};

/// A server resets one stream before its answer and one after it has begun, and answers the next.
pub(crate) async fn a_server_resets_streams(proxy: &Proxy, client: &mut Client) {
    let error = client.call("/reset", Bytes::new()).await;
    let error = error.err().expect("a reset");
    assert!(error.is_reset() && error.is_remote());
    assert_eq!(error.reason(), Some(Reason::REFUSED_STREAM));
    let row = [
        "status_code=\"502\"",
        "error=\"reset\"",
        "classification=\"failure\"",
    ];
    proxy.counts("response_total", &row, 1.0).await;
    let (response, mut send) = client.begin("/break").await;
    let mut body = soon(response).await.expect("a head").into_body();
    let first = soon(body.data()).await.expect("data").expect("no error");
    assert_eq!(first, "some");
    send.send_data(Bytes::new(), true).expect("sent");
    let error = soon(body.data()).await.expect("an end");
    let error = error.expect_err("a reset");
    assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR));
    let row = [
        "status_code=\"200\"",
        "error=\"h2(INTERNAL_ERROR)\"",
        "classification=\"failure\"",
    ];
    proxy.counts("response_total", &row, 1.0).await;
    client
        .call("/plain", Bytes::new())
        .await
        .expect("an answer");
    proxy.counts("response_total", &["error=\"\""], 1.0).await;
    proxy.counts("response_latency_ms_count", &[], 3.0).await;
    proxy.counts("http2_active_streams", &[], 0.0).await;
}

/// One call without trailers, one with them, one of them alone.
pub(crate) async fn calls_end_as_their_servers_say(client: &mut Client) {
    for (path, grpc_status) in [
        ("/plain", None),
        ("/trailers", Some("0")),
        ("/only", Some("12")),
    ] {
        let answer = client.call(path, Bytes::from_static(b"body")).await;
        let answer = answer.expect("an answer");
        assert_eq!(
            (answer.status, answer.grpc_status.as_deref()),
            (200, grpc_status)
        );
    }
}

/// Waits until a proxy has counted these, in this direction.
pub(crate) async fn those_calls_are_counted(proxy: &Proxy, direction: &str) {
    let request = [direction, "authority=\"web.example\""];
    proxy.counts("request_total", &request, 3.0).await;
    proxy
        .counts("response_latency_ms_count", &["status_code=\"200\""], 3.0)
        .await;
    for code in ["", "0", "12"] {
        let code = format!("grpc_status_code=\"{code}\"");
        let labels = ["classification=\"success\"", &code, "error=\"\""];
        proxy.counts("response_total", &labels, 1.0).await;
    }
}
