//! What passes: bytes of any protocol, whoever speaks first, and ends as they were.

use std::io::ErrorKind;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::mesh::Pair;
use crate::proxy::{answer_heads, application, read_all, read_until, soon};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: web\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Bytes that no two places have in common.
pub(crate) fn noise(len: usize, seed: u32) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed.into());
    (0..len).map(|_| random.u8(..)).collect()
}

pub(crate) async fn echo(mut stream: TcpStream) {
    let (mut read, mut write) = stream.split();
    let _ended = tokio::io::copy(&mut read, &mut write).await;
    let _closed = write.shutdown().await;
}

#[tokio::test]
async fn a_request_and_its_answer() {
    let pair = Pair::start(application(|s| answer_heads(s, OK)).await);
    let mut client = pair.client.proxy.connect().await;
    for _ in 0..3 {
        client.write_all(GET).await.expect("written");
        assert_eq!(read_until(&mut client, b"ok").await, OK);
    }
    drop(client);
    for (party, labels) in [(&pair.client, "server_id"), (&pair.server, "client_id")] {
        let labels = ["tls=\"true\"", labels];
        party.proxy.counts("request_total", &labels, 3.0).await;
        party.proxy.counts("tcp_open_total", &labels, 1.0).await;
        party
            .proxy
            .counts("tcp_open_connections", &labels, 0.0)
            .await;
        let well = [labels[0], labels[1], "classification=\"success\""];
        party.proxy.counts("tcp_close_total", &well, 1.0).await;
    }
}

#[tokio::test]
async fn a_body_arrives_byte_by_byte_as_it_was_sent() {
    let body = noise(8 << 20, 1);
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    let answer = [head.as_bytes(), &body].concat();
    let answered = answer.clone();
    let app = application(move |mut stream| {
        let answer = answered.clone();
        async move {
            read_until(&mut stream, b"\r\n\r\n").await;
            let _gone = stream.write_all(&answer).await;
        }
    });
    let pair = Pair::start(app.await);
    let mut client = pair.client.proxy.connect().await;
    client.write_all(GET).await.expect("written");
    assert!(read_all(&mut client).await == answer);
    let bytes = answer.len() as f64;
    let src = ["peer=\"src\"", "tls=\"true\""];
    pair.server
        .proxy
        .counts("tcp_write_bytes_total", &src, bytes)
        .await;
    let dst = ["peer=\"dst\"", "tls=\"true\""];
    pair.client
        .proxy
        .counts("tcp_read_bytes_total", &dst, bytes)
        .await;
}

#[tokio::test]
async fn bulk_both_ways_at_once() {
    let pair = Pair::start(application(echo).await);
    let sent = noise(32 << 20, 2);
    let mut client = pair.client.proxy.connect().await;
    let (mut read, mut write) = client.split();
    let mut got = Vec::with_capacity(sent.len());
    let exchange = async {
        let (wrote, read) = tokio::join!(
            async {
                write.write_all(&sent).await?;
                write.shutdown().await
            },
            read.read_to_end(&mut got)
        );
        wrote.expect("written");
        read.expect("read");
    };
    soon(exchange).await;
    assert!(got == sent);
}

#[tokio::test]
async fn a_server_that_speaks_first() {
    let greet = |mut stream: TcpStream| async move {
        stream.write_all(b"220 ready\r\n").await.expect("written");
        echo(stream).await;
    };
    let pair = Pair::start(application(greet).await);
    for _ in 0..20 {
        let mut client = pair.client.proxy.connect().await;
        assert_eq!(read_until(&mut client, b"\n").await, b"220 ready\r\n");
        client.write_all(b"HELO\r\n").await.expect("written");
        assert_eq!(read_until(&mut client, b"\n").await, b"HELO\r\n");
    }
}

#[tokio::test]
async fn an_end_of_one_side_is_not_that_of_the_other() {
    let sum = |mut stream: TcpStream| async move {
        let asked = read_all(&mut stream).await;
        let answer = format!("{} bytes", asked.len());
        stream.write_all(answer.as_bytes()).await.expect("written");
    };
    let pair = Pair::start(application(sum).await);
    let mut client = pair.client.proxy.connect().await;
    client.write_all(&noise(100_000, 3)).await.expect("written");
    client.shutdown().await.expect("shut");
    assert_eq!(read_all(&mut client).await, b"100000 bytes");
    for party in [&pair.client, &pair.server] {
        let well = ["classification=\"success\"", "errno=\"\""];
        party.proxy.counts("tcp_close_total", &well, 2.0).await;
    }
}

#[tokio::test]
async fn a_reset_stays_a_reset_both_ways() {
    let reset = |mut stream: TcpStream| async move {
        let _asked = stream.read(&mut [0; 16]).await;
        SockRef::from(&stream)
            .set_linger(Some(std::time::Duration::ZERO))
            .expect("an option");
    };
    let pair = Pair::start(application(reset).await);
    let mut client = pair.client.proxy.connect().await;
    client.write_all(b"\0\x01").await.expect("written");
    let error = soon(client.read(&mut [0])).await.expect_err("a reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);

    let (told, mut ends) = tokio::sync::mpsc::channel(1);
    let watch = move |mut stream: TcpStream| {
        let told = told.clone();
        async move {
            let mut end = stream.read(&mut [0; 16]).await;
            if end.as_ref().is_ok_and(|n| *n > 0) {
                end = stream.read(&mut [0; 16]).await;
            }
            let _told = told.send(end.map_err(|error| error.kind())).await;
        }
    };
    let pair = Pair::start(application(watch).await);
    let mut client = pair.client.proxy.connect().await;
    client.write_all(b"\0\x01").await.expect("written");
    // It has to be there before the reset.
    let up = ["peer=\"dst\"", "direction=\"inbound\""];
    pair.server
        .proxy
        .counts("tcp_write_bytes_total", &up, 2.0)
        .await;
    SockRef::from(&client)
        .set_linger(Some(std::time::Duration::ZERO))
        .expect("an option");
    drop(client);
    let end = soon(ends.recv()).await.expect("told");
    assert_eq!(end, Err(ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn a_thousand_connections_without_a_failure() {
    let pair = Pair::start(application(echo).await);
    for round in 0..20 {
        let exchanges = (0..50).map(|n| {
            let proxy = &pair.client.proxy;
            async move {
                let sent = noise(1000 + 37 * n as usize, round * 50 + n);
                let mut client = proxy.connect().await;
                client.write_all(&sent).await.expect("written");
                client.shutdown().await.expect("shut");
                assert!(read_all(&mut client).await == sent, "{round} {n}");
            }
        });
        futures::future::join_all(exchanges).await;
    }
    for (party, peer) in [
        (&pair.client, "peer=\"dst\""),
        (&pair.server, "peer=\"src\""),
    ] {
        let secured = [peer, "tls=\"true\""];
        party.proxy.counts("tcp_open_total", &secured, 1000.0).await;
        party
            .proxy
            .counts("tcp_open_connections", &secured, 0.0)
            .await;
        let well = [peer, "classification=\"success\""];
        party.proxy.counts("tcp_close_total", &well, 1000.0).await;
    }
    assert_eq!(pair.server.proxy.sum("inbound_tcp_errors_total", &[]), 0.0);
    assert_eq!(pair.client.proxy.sum("outbound_tcp_errors_total", &[]), 0.0);
}
