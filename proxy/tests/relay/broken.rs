//! Broken: peers that end in the middle, speak out of turn, or never finish.

use std::io::ErrorKind;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::proxy::{DEADLINE, Proxy, answer_heads, application, nobody, read_all, read_until};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: web\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn set_reset(stream: &TcpStream) {
    SockRef::from(stream)
        .set_linger(Some(Duration::ZERO))
        .expect("a socket option");
}

/// Sends until sending fails; answers how it failed.
async fn send_until_it_fails(client: &mut TcpStream, bytes: &[u8]) -> ErrorKind {
    let send = async {
        loop {
            if let Err(error) = client.write_all(bytes).await {
                return error.kind();
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, send)
        .await
        .expect("a client that nobody reads learns of it")
}

#[tokio::test]
async fn a_reset_that_a_write_meets_first_is_still_a_reset() {
    for head in [&b""[..], b"HTTP/1.1 200 OK\r\n\r\nsome"] {
        let serve = move |mut stream: TcpStream| async move {
            stream.read_u8().await.expect("a first byte");
            stream.write_all(head).await.expect("written");
            set_reset(&stream);
        };
        let proxy = Proxy::inbound(application(serve).await);
        let mut client = proxy.connect().await;
        let begin: &[u8] = match head {
            b"" => b"\x01begin",
            _ => b"POST / HTTP/1.1\r\nContent-Length: 1000000000\r\n\r\n",
        };
        client.write_all(begin).await.expect("written");
        let failed = send_until_it_fails(&mut client, &[7; 4096]).await;
        assert!(
            matches!(failed, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe),
            "{failed}"
        );
        let closes = ["peer=\"dst\"", "classification=\"failure\""];
        proxy.counts("tcp_close_total", &closes, 1.0).await;
        let bad = proxy.sum("response_total", &["error=\"reset\""]);
        assert_eq!(bad, if head.is_empty() { 0.0 } else { 1.0 });
    }
}

#[tokio::test]
async fn a_sender_learns_that_its_closed_server_takes_no_more() {
    let serve = |mut stream: TcpStream| async move {
        read_until(&mut stream, b"begin").await;
    };
    let proxy = Proxy::outbound(&[application(serve).await]);
    let mut client = proxy.connect().await;
    client.write_all(b"\x01begin").await.expect("written");
    assert_eq!(read_all(&mut client).await, b"");
    send_until_it_fails(&mut client, b"a line of a log\n").await;
    proxy.counts("tcp_open_connections", &[], 0.0).await;
}

#[tokio::test]
async fn half_a_head_is_not_followed_by_an_answer_of_our_own() {
    let serve = |mut stream: TcpStream| async move {
        read_until(&mut stream, b"\r\n\r\n").await;
        stream.write_all(b"HTTP/1.1 20").await.expect("written");
    };
    let proxy = Proxy::inbound(application(serve).await);
    let mut client = proxy.connect().await;
    client.write_all(GET).await.expect("written");
    let answer = String::from_utf8(read_all(&mut client).await).expect("text");
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer:?}");
    let row = ["status_code=\"502\"", "error=\"reset\""];
    proxy.counts("response_total", &row, 1.0).await;
}

#[tokio::test]
async fn an_answer_of_our_own_counts_as_such_however_the_client_takes_it() {
    let serve = |mut stream: TcpStream| async move {
        read_until(&mut stream, b"\r\n\r\n").await;
    };
    let proxy = Proxy::inbound(application(serve).await);
    let mut client = proxy.connect().await;
    client.write_all(GET).await.expect("written");
    read_until(&mut client, b"\r\n\r\n").await;
    set_reset(&client);
    drop(client);
    let row = ["status_code=\"502\"", "error=\"reset\""];
    proxy.counts("response_total", &row, 1.0).await;
}

#[tokio::test]
async fn stray_bytes_between_answers_do_not_stop_a_connection() {
    const STRAY: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok\r\nstray ok";
    let proxy = Proxy::inbound(application(|s| answer_heads(s, STRAY)).await);
    let mut client = proxy.connect().await;
    for round in 0..200 {
        client.write_all(GET).await.expect("written");
        let answer = read_until(&mut client, b"stray ok").await;
        assert!(answer.ends_with(STRAY), "answer {round}");
    }
    let unparsed = ["reason=\"unsolicited response\""];
    proxy
        .counts("weir_http_unparsed_total", &unparsed, 1.0)
        .await;
    drop(client);
    proxy.counts("tcp_open_connections", &[], 0.0).await;
    assert_eq!(proxy.sum("response_total", &["error=\"reset\""]), 0.0);
    assert_eq!(
        proxy.sum("request_total", &[]),
        proxy.sum("response_total", &[])
    );
}

#[tokio::test]
async fn an_empty_line_after_an_answer_means_nothing() {
    const LOOSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok\r\n";
    let proxy = Proxy::inbound(application(|s| answer_heads(s, LOOSE)).await);
    let mut client = proxy.connect().await;
    for _ in 0..3 {
        client.write_all(GET).await.expect("written");
        assert_eq!(read_until(&mut client, b"ok\r\n").await, LOOSE);
    }
    let row = ["status_code=\"200\"", "error=\"\""];
    proxy.counts("response_total", &row, 3.0).await;
}

#[tokio::test]
async fn a_head_that_never_ends_is_left_to_the_patience_of_the_application() {
    let (dialed, mut connections) = mpsc::unbounded_channel();
    let serve = move |stream: TcpStream| {
        let dialed = dialed.clone();
        async move {
            dialed.send(()).expect("the test lives");
            drop(stream);
        }
    };
    let proxy = Proxy::impatient(application(serve).await, Duration::from_millis(50));
    let mut client = proxy.connect().await;
    client
        .write_all(b"GET / HTTP/1.1\r\nHost: w")
        .await
        .expect("written");
    assert_eq!(read_all(&mut client).await, b"", "closed as it closes");
    connections.recv().await.expect("it was dialed");
}

#[tokio::test]
async fn a_head_that_takes_long_is_still_a_request() {
    let proxy = Proxy::impatient(
        application(|s| answer_heads(s, OK)).await,
        Duration::from_millis(50),
    );
    let mut client = proxy.connect().await;
    let (first, last) = GET.split_at(20);
    client.write_all(first).await.expect("written");
    // The application is dialed once the wait is over.
    proxy.counts("tcp_open_total", &["peer=\"dst\""], 1.0).await;
    client.write_all(last).await.expect("written");
    assert_eq!(read_until(&mut client, b"ok").await, OK);
    proxy
        .counts("response_total", &["status_code=\"200\""], 1.0)
        .await;
}

#[tokio::test]
async fn a_connection_reset_for_a_failed_dial_is_closed_as_failed() {
    let proxy = Proxy::inbound(nobody());
    let mut client = proxy.connect().await;
    client.write_all(b"\x16\x03\x01").await.expect("written");
    let _reset = client.read(&mut [0]).await;
    let row = [
        "peer=\"src\"",
        "classification=\"failure\"",
        "errno=\"ECONNREFUSED\"",
    ];
    proxy.counts("tcp_close_total", &row, 1.0).await;
}

#[tokio::test]
async fn a_client_that_is_reset_does_not_stay_because_its_server_is_deaf() {
    let serve = |stream: TcpStream| async move {
        std::future::pending::<()>().await;
        drop(stream);
    };
    let proxy = Proxy::inbound(application(serve).await);
    for first in [
        &b"\x01"[..],
        b"POST / HTTP/1.1\r\nContent-Length: 1000000000\r\n\r\n",
    ] {
        let mut client = proxy.connect().await;
        client.write_all(first).await.expect("written");
        let fill = async { while client.write_all(&[7; 65536]).await.is_ok() {} };
        let full = tokio::time::timeout(Duration::from_secs(1), fill).await;
        full.expect_err("nobody reads");
        set_reset(&client);
        drop(client);
        proxy.counts("tcp_open_connections", &[], 0.0).await;
    }
    let closes = ["peer=\"src\"", "errno=\"ECONNRESET\""];
    proxy.counts("tcp_close_total", &closes, 2.0).await;
}
