//! Ends: who went away, what the other side sees, and what is counted for it.

use std::io::ErrorKind;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use weir_proxy::forward::relay::LINGER;

use super::proxy::{Proxy, answer_heads, application, nobody, read_all, read_until};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: web\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn set_reset(stream: &TcpStream) {
    SockRef::from(stream)
        .set_linger(Some(Duration::ZERO))
        .expect("a socket option");
}

async fn status(client: &mut TcpStream) -> String {
    let answer = String::from_utf8(read_all(client).await).expect("text");
    answer.split(' ').nth(1).unwrap_or_default().to_owned()
}

#[tokio::test]
async fn an_application_that_is_down_is_502_and_the_metrics_say_so() {
    let proxy = Proxy::inbound(nobody());
    let mut client = proxy.connect().await;
    client.write_all(GET).await.expect("written");
    assert_eq!(status(&mut client).await, "502");
    proxy.counts("request_total", &[], 1.0).await;
    let row = [
        "status_code=\"502\"",
        "classification=\"failure\"",
        "error=\"connect\"",
    ];
    proxy.counts("response_total", &row, 1.0).await;
    proxy.counts("response_latency_ms_count", &[], 1.0).await;
    proxy
        .counts("inbound_http_errors_total", &["error=\"connect\""], 1.0)
        .await;
    proxy
        .counts(
            "inbound_tcp_errors_total",
            &["error=\"connect\"", "peer=\"dst\""],
            1.0,
        )
        .await;
}

#[tokio::test]
async fn a_failed_dial_resets_a_client_that_speaks_something_else() {
    let proxy = Proxy::inbound(nobody());
    let mut client = proxy.connect().await;
    client.write_all(b"\x16\x03\x01").await.expect("written");
    let read = client.read(&mut [0]).await;
    assert_eq!(
        read.expect_err("a reset").kind(),
        ErrorKind::ConnectionReset
    );
    proxy
        .counts("inbound_tcp_errors_total", &["error=\"connect\""], 1.0)
        .await;
}

#[tokio::test]
async fn a_client_that_leaves_before_the_head_is_canceled() {
    let serve = |mut stream: TcpStream| async move {
        read_until(&mut stream, b"\r\n\r\n").await;
        let _gone = stream.read(&mut [0]).await;
    };
    let proxy = Proxy::inbound(application(serve).await);
    for reset in [false, true] {
        let mut client = proxy.connect().await;
        client.write_all(GET).await.expect("written");
        let opened = if reset { 2.0 } else { 1.0 };
        proxy.counts("request_total", &[], opened).await;
        if reset {
            set_reset(&client);
        }
        drop(client);
        proxy
            .counts(
                "response_total",
                &["classification=\"failure\"", "error=\"canceled\""],
                opened,
            )
            .await;
    }
    assert_eq!(
        proxy.sum("response_total", &["status_code"])
            - proxy.sum("response_total", &["grpc_status_code"]),
        0.0
    );
    assert_eq!(proxy.sum("response_latency_ms_count", &[]), 0.0);
    proxy
        .counts(
            "tcp_close_total",
            &[
                "peer=\"src\"",
                "errno=\"ECONNRESET\"",
                "classification=\"failure\"",
            ],
            1.0,
        )
        .await;
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_is_counted_by_the_status() {
    let serve = |mut stream: TcpStream| async move {
        read_until(&mut stream, b"\r\n\r\n").await;
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsome")
            .await
            .expect("written");
        let _gone = stream.read(&mut [0]).await;
    };
    let proxy = Proxy::inbound(application(serve).await);
    let mut client = proxy.connect().await;
    client.write_all(GET).await.expect("written");
    read_until(&mut client, b"some").await;
    set_reset(&client);
    drop(client);
    let row = [
        "status_code=\"200\"",
        "classification=\"success\"",
        "error=\"canceled\"",
    ];
    proxy.counts("response_total", &row, 1.0).await;
    proxy.counts("response_latency_ms_count", &[], 1.0).await;
}

#[tokio::test]
async fn a_server_that_leaves_before_the_head_is_502() {
    let serve = |mut stream: TcpStream| async move {
        read_until(&mut stream, b"\r\n\r\n").await;
    };
    let proxy = Proxy::inbound(application(serve).await);
    let mut client = proxy.connect().await;
    client.write_all(GET).await.expect("written");
    assert_eq!(status(&mut client).await, "502");
    let row = [
        "status_code=\"502\"",
        "classification=\"failure\"",
        "error=\"reset\"",
    ];
    proxy.counts("response_total", &row, 1.0).await;
    proxy.counts("response_latency_ms_count", &[], 1.0).await;
}

#[tokio::test]
async fn a_kept_connection_that_closes_is_closed_as_clients_expect() {
    let serve = |mut stream: TcpStream| async move {
        read_until(&mut stream, b"\r\n\r\n").await;
        stream.write_all(OK).await.expect("written");
        read_until(&mut stream, b"\r\n\r\n").await;
    };
    let proxy = Proxy::inbound(application(serve).await);
    let mut client = proxy.connect().await;
    client.write_all(GET).await.expect("written");
    read_until(&mut client, b"ok").await;
    client.write_all(GET).await.expect("written");
    assert_eq!(
        read_all(&mut client).await,
        b"",
        "no answer of the proxy's own"
    );
    // Although the client keeps its side open.
    let ended = proxy.counts("response_total", &["error=\"reset\""], 1.0);
    let in_time = tokio::time::timeout(LINGER / 2, ended).await;
    in_time.expect("counted when it has ended");
}

#[tokio::test]
async fn a_client_that_resets_in_the_middle_resets_the_server() {
    let (ended, mut ends) = tokio::sync::mpsc::unbounded_channel();
    let serve = move |mut stream: TcpStream| {
        let ended = ended.clone();
        async move {
            read_until(&mut stream, b"half").await;
            stream.write_all(b"more").await.expect("written");
            ended.send(stream.read(&mut [0]).await).expect("received");
        }
    };
    let proxy = Proxy::inbound(application(serve).await);
    let mut client = proxy.connect().await;
    client.write_all(b"\x01half").await.expect("written");
    read_until(&mut client, b"more").await;
    set_reset(&client);
    drop(client);
    let end = ends.recv().await.expect("an end");
    assert_eq!(
        end.expect_err("a reset, not an end").kind(),
        ErrorKind::ConnectionReset
    );
}

#[tokio::test]
async fn a_server_that_resets_in_the_middle_resets_the_client() {
    let serve = |mut stream: TcpStream| async move {
        read_until(&mut stream, b"\r\n\r\n").await;
        stream
            .write_all(b"HTTP/1.1 200 OK\r\n\r\nsome")
            .await
            .expect("written");
        let _more = stream.read(&mut [0]).await;
        set_reset(&stream);
    };
    let proxy = Proxy::inbound(application(serve).await);
    let mut client = proxy.connect().await;
    client.write_all(GET).await.expect("written");
    read_until(&mut client, b"some").await;
    client.write_all(b"G").await.expect("written");
    client
        .write_all(b"ET / HTTP/1.1\r\n\r\n")
        .await
        .expect("written");
    let read = client.read(&mut [0]).await;
    assert_eq!(
        read.expect_err("a reset, not an end").kind(),
        ErrorKind::ConnectionReset
    );
    let row = [
        "status_code=\"200\"",
        "classification=\"failure\"",
        "error=\"reset\"",
    ];
    proxy.counts("response_total", &row, 1.0).await;
    proxy
        .counts(
            "tcp_close_total",
            &["peer=\"dst\"", "errno=\"ECONNRESET\""],
            1.0,
        )
        .await;
}

/// A client that has sent all it had may still read: what its server breaks off is the server's.
#[tokio::test]
async fn a_server_that_resets_in_the_middle_has_failed_a_client_that_only_reads() {
    let serve = |mut stream: TcpStream| async move {
        // Up to the end of what the client sends.
        read_all(&mut stream).await;
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsome")
            .await
            .expect("written");
        let _told = stream.readable().await;
        set_reset(&stream);
    };
    let proxy = Proxy::inbound(application(serve).await);
    let mut client = proxy.connect().await;
    client.write_all(GET).await.expect("written");
    client.shutdown().await.expect("a half-close");
    let row = [
        "status_code=\"200\"",
        "classification=\"failure\"",
        "error=\"reset\"",
    ];
    proxy.counts("response_total", &row, 1.0).await;
    proxy.counts("response_total", &[], 1.0).await;
}

#[tokio::test]
async fn an_early_answer_reaches_a_client_that_is_still_sending() {
    let serve = |mut stream: TcpStream| async move {
        read_until(&mut stream, b"\r\n\r\n").await;
        stream
            .write_all(b"HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
            .await
            .expect("written");
        stream.shutdown().await.expect("a half-close");
        let _rest = read_all(&mut stream).await;
    };
    let proxy = Proxy::inbound(application(serve).await);
    let mut client = proxy.connect().await;
    client
        .write_all(b"POST / HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n")
        .await
        .expect("written");
    assert!(
        read_until(&mut client, b"\r\n\r\n")
            .await
            .starts_with(b"HTTP/1.1 413")
    );
    client
        .write_all(&[0; 1000])
        .await
        .expect("the upload goes on");
    proxy
        .counts(
            "response_total",
            &["status_code=\"413\"", "error=\"\""],
            1.0,
        )
        .await;
}

#[tokio::test]
async fn ambiguous_framing_is_400_and_never_reaches_the_application() {
    let (seen, mut connections) = tokio::sync::mpsc::unbounded_channel();
    // A client that is slow to speak has its connection dialed meanwhile: what counts is what arrives on it.
    let serve = move |mut stream: TcpStream| {
        let seen = seen.clone();
        async move {
            if stream.read(&mut [0]).await.is_ok_and(|n| n > 0) {
                seen.send(()).expect("the test lives");
            }
        }
    };
    let proxy = Proxy::inbound(application(serve).await);
    let mut client = proxy.connect().await;
    client
        .write_all(
            b"POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        )
        .await
        .expect("written");
    assert_eq!(status(&mut client).await, "400");
    proxy
        .counts("inbound_http_errors_total", &["error=\"bad request\""], 1.0)
        .await;
    assert_eq!(proxy.sum("request_total", &[]), 0.0);
    assert!(
        connections.try_recv().is_err(),
        "it reached the application"
    );
}

#[tokio::test]
async fn odd_syntax_passes_and_is_counted_as_unparsed() {
    const ODD: &[u8] = b"GET / HTTP/1.1\r\nHost: web\r\nodd name: x\r\n\r\n";
    let proxy = Proxy::inbound(application(|s| answer_heads(s, OK)).await);
    let mut client = proxy.connect().await;
    client.write_all(ODD).await.expect("written");
    assert_eq!(read_until(&mut client, b"ok").await, OK);
    proxy
        .counts("weir_http_unparsed_total", &["direction=\"inbound\""], 1.0)
        .await;
}

#[tokio::test]
async fn a_client_that_connects_and_closes_is_no_error() {
    let proxy = Proxy::inbound(application(|s| answer_heads(s, OK)).await);
    drop(proxy.connect().await);
    proxy
        .counts(
            "tcp_close_total",
            &["peer=\"src\"", "classification=\"success\""],
            1.0,
        )
        .await;
    assert_eq!(proxy.sum("inbound_tcp_errors_total", &[]), 0.0);
}
