//! Untouched: the bytes that arrive are the bytes that were sent, through two proxies.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::proxy::{Proxy, application, read_all, read_until};

/// A client's pod and a server's pod in a row.
struct Chain {
    outbound: Proxy,
    inbound: Proxy,
}

impl Chain {
    fn to(application: std::net::SocketAddr) -> Self {
        let inbound = Proxy::inbound(application);
        let outbound = Proxy::outbound(&[inbound.addr]);
        Self { outbound, inbound }
    }
}

/// Bytes that repeat late, so that a lost or doubled piece shows.
fn pattern(len: usize) -> Vec<u8> {
    (0..len)
        .map(|i| (i.wrapping_mul(31) ^ (i >> 8) ^ (i >> 16)) as u8)
        .collect()
}

/// Sends every byte back.
async fn echo(mut stream: TcpStream) {
    let (mut read, mut write) = stream.split();
    let _ended = tokio::io::copy(&mut read, &mut write).await;
    let _closed = write.shutdown().await;
}

/// Writes all and half-closes, while reading all.
async fn exchange(stream: TcpStream, sent: Vec<u8>) -> Vec<u8> {
    let (mut read, mut write) = stream.into_split();
    let writer = tokio::spawn(async move {
        write.write_all(&sent).await.expect("the proxy takes all");
        write.shutdown().await.expect("a half-close");
    });
    let mut bytes = Vec::new();
    let read = read.read_to_end(&mut bytes);
    tokio::time::timeout(Duration::from_secs(60), read)
        .await
        .expect("in time")
        .expect("no reset");
    writer.await.expect("written");
    bytes
}

#[tokio::test]
async fn opaque_streams_of_every_size_and_their_half_close() {
    let chain = Chain::to(application(echo).await);
    for size in [
        0,
        1,
        2,
        100,
        16 * 1024 - 1,
        16 * 1024,
        64 * 1024 + 1,
        1 << 20,
        64 << 20,
    ] {
        let mut sent = vec![0];
        sent.extend(pattern(size));
        let back = exchange(chain.outbound.connect().await, sent.clone()).await;
        assert!(back == sent, "{size} bytes come back as {}", back.len());
    }
    chain
        .outbound
        .counts("tcp_open_connections", &[], 0.0)
        .await;
    chain
        .inbound
        .counts("tcp_close_total", &["classification=\"failure\""], 0.0)
        .await;
}

/// Echoes the raw bytes of a request as the body of its response.
async fn echo_request(mut stream: TcpStream, len: usize) {
    let mut bytes = vec![0; len];
    if stream.read_exact(&mut bytes).await.is_ok() {
        let head = format!("HTTP/1.1 200 OK\r\nX-Odd:  spaces  \r\ncontent-length: {len}\r\n\r\n");
        let _ended = stream.write_all(head.as_bytes()).await;
        let _ended = stream.write_all(&bytes).await;
    }
}

#[tokio::test]
async fn http_bodies_of_every_size_keep_head_and_body() {
    for size in [0usize, 1, 16 * 1024, 100_000, 64 << 20] {
        let mut sent =
            format!("POST /x HTTP/1.1\r\nhOST: Web\r\nContent-Length: {size}\r\n\r\n").into_bytes();
        sent.extend(pattern(size));
        let len = sent.len();
        let chain = Chain::to(application(move |s| echo_request(s, len)).await);
        let back = exchange(chain.outbound.connect().await, sent.clone()).await;
        let body = back
            .windows(4)
            .position(|w| w == b"\r\n\r\n")
            .expect("a head")
            + 4;
        assert_eq!(&back[..32], b"HTTP/1.1 200 OK\r\nX-Odd:  spaces ");
        assert!(back[body..] == sent, "{size} bytes");
        chain
            .inbound
            .counts("response_total", &["status_code=\"200\""], 1.0)
            .await;
    }
}

#[tokio::test]
async fn chunks_extensions_and_trailers_pass_as_they_are() {
    const SENT: &[u8] = b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTrailer: T\r\n\r\n5;a=\"b\"\r\nhello\r\n00a\r\n0123456789\r\n0\r\nT: x\r\n\r\n";
    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n0\r\nDone: yes\r\n\r\n";
    let (seen, mut requests) = tokio::sync::mpsc::unbounded_channel();
    let serve = move |mut stream: TcpStream| {
        let seen = seen.clone();
        async move {
            let request = read_until(&mut stream, b"T: x\r\n\r\n").await;
            seen.send(request).expect("the test waits");
            stream.write_all(ANSWER).await.expect("answered");
            let _held = stream.read(&mut [0]).await;
        }
    };
    let chain = Chain::to(application(serve).await);
    let mut client = chain.outbound.connect().await;
    for piece in SENT.chunks(7) {
        client.write_all(piece).await.expect("written");
        tokio::task::yield_now().await;
    }
    assert_eq!(requests.recv().await.expect("a request"), SENT);
    assert_eq!(read_until(&mut client, b"yes\r\n\r\n").await, ANSWER);
    chain
        .inbound
        .counts("response_total", &["classification=\"success\""], 1.0)
        .await;
}

#[tokio::test]
async fn a_client_that_waits_for_100_continue_gets_it() {
    let serve = |mut stream: TcpStream| async move {
        read_until(&mut stream, b"\r\n\r\n").await;
        stream
            .write_all(b"HTTP/1.1 100 Continue\r\n\r\n")
            .await
            .expect("written");
        read_until(&mut stream, b"body").await;
        stream
            .write_all(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
            .await
            .expect("written");
        let _held = stream.read(&mut [0]).await;
    };
    let chain = Chain::to(application(serve).await);
    let mut client = chain.outbound.connect().await;
    let head = b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";
    client.write_all(head).await.expect("written");
    assert_eq!(
        read_until(&mut client, b"\r\n\r\n").await,
        b"HTTP/1.1 100 Continue\r\n\r\n"
    );
    client.write_all(b"body").await.expect("written");
    let answer = read_until(&mut client, b"\r\n\r\n").await;
    assert!(answer.starts_with(b"HTTP/1.1 201"));
    chain
        .outbound
        .counts("response_total", &["status_code=\"201\""], 1.0)
        .await;
    chain.outbound.counts("response_total", &[], 1.0).await;
}

#[tokio::test]
async fn an_upgraded_connection_is_a_tunnel() {
    let serve = |mut stream: TcpStream| async move {
        read_until(&mut stream, b"\r\n\r\n").await;
        let answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n\x81\x02hi";
        stream.write_all(answer).await.expect("written");
        echo(stream).await;
    };
    let chain = Chain::to(application(serve).await);
    let mut client = chain.outbound.connect().await;
    client
        .write_all(b"GET /ws HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
        .await
        .expect("written");
    let greeting = read_until(&mut client, b"\x81\x02hi").await;
    assert!(greeting.ends_with(b"\r\n\r\n\x81\x02hi"));
    let sent = pattern(1 << 20);
    assert!(exchange(client, sent.clone()).await == sent);
    chain
        .inbound
        .counts(
            "response_total",
            &["status_code=\"101\"", "classification=\"success\""],
            1.0,
        )
        .await;
}

#[tokio::test]
async fn http2_that_goes_on_as_something_else_passes_as_it_is() {
    let chain = Chain::to(application(echo).await);
    let mut sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    sent.extend(pattern(100_000));
    assert!(exchange(chain.outbound.connect().await, sent.clone()).await == sent);
    assert_eq!(chain.inbound.sum("request_total", &[]), 0.0);
    chain
        .inbound
        .counts("tcp_close_total", &["peer=\"src\""], 1.0)
        .await;
}

#[tokio::test]
async fn a_server_that_speaks_first_is_not_kept_waiting() {
    let serve = |mut stream: TcpStream| async move {
        stream.write_all(b"220 ready\r\n").await.expect("written");
        echo(stream).await;
    };
    let chain = Chain::to(application(serve).await);
    let mut waits = Vec::new();
    for _ in 0..50 {
        let start = std::time::Instant::now();
        let mut client = chain.outbound.connect().await;
        assert_eq!(read_until(&mut client, b"\n").await, b"220 ready\r\n");
        waits.push(start.elapsed());
        client.write_all(b"QUIT").await.expect("written");
        assert_eq!(read_until(&mut client, b"QUIT").await, b"QUIT");
    }
    waits.sort();
    // Beyond the first, the port is known: the median owes detection nothing. The bound
    // is loose on purpose, the story on the cluster compares with a direct connection.
    assert!(waits[25] < Duration::from_millis(50), "{:?}", waits[25]);
}

#[tokio::test]
async fn a_server_may_close_its_half_first() {
    let serve = |mut stream: TcpStream| async move {
        stream.write_all(b"bye").await.expect("written");
        stream.shutdown().await.expect("a half-close");
        let rest = read_all(&mut stream).await;
        assert_eq!(rest, b"still here");
    };
    let chain = Chain::to(application(serve).await);
    let mut client = chain.outbound.connect().await;
    assert_eq!(read_all(&mut client).await, b"bye");
    client
        .write_all(b"still here")
        .await
        .expect("the other half is open");
    drop(client);
    chain
        .inbound
        .counts("tcp_read_bytes_total", &["peer=\"src\""], 10.0)
        .await;
    chain
        .inbound
        .counts("tcp_close_total", &["classification=\"success\""], 2.0)
        .await;
}
