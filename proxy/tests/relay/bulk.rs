//! Bulk: streams that go through pipes are the bytes that were sent, whatever ends, stalls or
//! mixes with them.

use std::io::ErrorKind;
use std::time::Duration;

use fastrand::Rng;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::bytes::{Chain, exchange, pattern};
use super::proxy::{DEADLINE, Proxy, application, read_all, read_until};

const MIB: usize = 1 << 20;

/// Sends `len` bytes once it was spoken to, and half-closes.
async fn send(mut stream: TcpStream, len: usize) {
    stream.read_u8().await.expect("a first byte");
    let _ended = stream.write_all(&pattern(len)).await;
    let _closed = stream.shutdown().await;
    let _rest = read_all(&mut stream).await;
}

#[tokio::test]
async fn every_size_in_either_direction_with_its_half_close() {
    for size in [0, 1, 65_536, 81_920, 300_000, MIB + 1, 64 * MIB] {
        let chain = Chain::to(application(move |s| send(s, size)).await);
        let mut client = chain.outbound.connect().await;
        client.write_all(b"\x01").await.expect("written");
        assert!(read_all(&mut client).await == pattern(size), "{size} down");
        // The other half is still open, and the server reads on.
        let rest = pattern(size);
        client.write_all(&rest).await.expect("written");
        client.shutdown().await.expect("a half-close");
        let up = 1.0 + size as f64;
        for proxy in [&chain.outbound, &chain.inbound] {
            proxy.counts("tcp_open_connections", &[], 0.0).await;
            for (peer, family) in [
                ("src", "tcp_read_bytes_total"),
                ("dst", "tcp_write_bytes_total"),
            ] {
                proxy
                    .counts(family, &[&format!("peer=\"{peer}\"")], up)
                    .await;
            }
            for (peer, family) in [
                ("dst", "tcp_read_bytes_total"),
                ("src", "tcp_write_bytes_total"),
            ] {
                proxy
                    .counts(family, &[&format!("peer=\"{peer}\"")], up - 1.0)
                    .await;
            }
            proxy
                .counts("tcp_close_total", &["classification=\"success\""], 2.0)
                .await;
        }
    }
}

#[tokio::test]
async fn a_reader_that_stalls_stops_the_writer_and_gets_everything() {
    const SIZE: usize = 64 * MIB;
    let proxy = Proxy::inbound(application(|s| send(s, SIZE)).await);
    let mut client = proxy.connect().await;
    client.write_all(b"\x01").await.expect("written");
    let mut bytes = vec![0; 4 * MIB];
    let first = client.read_exact(&mut bytes);
    tokio::time::timeout(DEADLINE, first)
        .await
        .expect("in time")
        .expect("bytes");
    let from = ["peer=\"dst\""];
    let mut taken = proxy.sum("tcp_read_bytes_total", &from);
    for _ in 0..200 {
        tokio::time::sleep(Duration::from_millis(25)).await;
        let now = proxy.sum("tcp_read_bytes_total", &from);
        if now == taken {
            break;
        }
        taken = now;
    }
    let taken = taken as usize;
    assert!(
        taken >= 4 * MIB,
        "bytes are counted while they flow: {taken}"
    );
    assert!(
        taken < SIZE / 2,
        "the writer goes on although nobody reads: {taken}"
    );
    bytes.extend(read_all(&mut client).await);
    assert!(bytes == pattern(SIZE));
    drop(client);
    proxy
        .counts("tcp_read_bytes_total", &from, SIZE as f64)
        .await;
    proxy
        .counts("tcp_write_bytes_total", &["peer=\"src\""], SIZE as f64)
        .await;
}

#[tokio::test]
async fn many_readers_that_stall_do_not_take_the_pipes_from_others() {
    const SIZE: usize = 8 * MIB;
    let proxy = Proxy::inbound(application(|s| send(s, SIZE)).await);
    let mut stalled = Vec::new();
    for _ in 0..40 {
        let mut client = proxy.connect().await;
        client.write_all(b"\x01").await.expect("written");
        client
            .read_exact(&mut vec![0; 256 * 1024])
            .await
            .expect("bytes");
        stalled.push(client);
    }
    for _ in 0..3 {
        let mut client = proxy.connect().await;
        client.write_all(b"\x01").await.expect("written");
        assert!(
            read_all(&mut client).await == pattern(SIZE),
            "copied where there is no pipe"
        );
    }
    let all = pattern(SIZE);
    for mut client in stalled {
        assert!(read_all(&mut client).await == all[256 * 1024..]);
    }
}

#[tokio::test]
async fn a_server_that_resets_midway_resets_the_client() {
    let serve = |mut stream: TcpStream| async move {
        stream.read_u8().await.expect("a first byte");
        stream.write_all(&pattern(16 * MIB)).await.expect("written");
        let linger = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
        linger.expect("a socket option");
    };
    let proxy = Proxy::inbound(application(serve).await);
    let mut client = proxy.connect().await;
    client.write_all(b"\x01").await.expect("written");
    let mut bytes = Vec::new();
    let read = client.read_to_end(&mut bytes);
    let end = tokio::time::timeout(DEADLINE, read).await.expect("in time");
    assert_eq!(end.expect_err("a reset").kind(), ErrorKind::ConnectionReset);
    assert!(bytes.len() >= MIB && bytes[..] == pattern(16 * MIB)[..bytes.len()]);
    let closed = [
        "peer=\"dst\"",
        "classification=\"failure\"",
        "errno=\"ECONNRESET\"",
    ];
    proxy.counts("tcp_close_total", &closed, 1.0).await;
    proxy.counts("tcp_open_connections", &[], 0.0).await;
}

#[tokio::test]
async fn a_client_that_resets_midway_resets_the_server() {
    let (ended, mut ends) = tokio::sync::mpsc::unbounded_channel();
    let serve = move |mut stream: TcpStream| {
        let ended = ended.clone();
        async move {
            let mut space = vec![0; 64 * 1024];
            let end = loop {
                match stream.read(&mut space).await {
                    Ok(0) => break None,
                    Ok(_) => {}
                    Err(error) => break Some(error.kind()),
                }
            };
            ended.send(end).expect("the test lives");
        }
    };
    let proxy = Proxy::inbound(application(serve).await);
    let mut client = proxy.connect().await;
    client.write_all(b"\x01").await.expect("written");
    client.write_all(&pattern(16 * MIB)).await.expect("written");
    let linger = SockRef::from(&client).set_linger(Some(Duration::ZERO));
    linger.expect("a socket option");
    drop(client);
    let end = tokio::time::timeout(DEADLINE, ends.recv())
        .await
        .expect("in time");
    assert_eq!(end.expect("an end"), Some(ErrorKind::ConnectionReset));
    let closed = [
        "peer=\"src\"",
        "classification=\"failure\"",
        "errno=\"ECONNRESET\"",
    ];
    proxy.counts("tcp_close_total", &closed, 1.0).await;
}

/// Writes everything in pieces of one byte to a MiB, pausing now and then.
async fn write_in_pieces(stream: &mut (impl AsyncWriteExt + Unpin), bytes: &[u8], mut random: Rng) {
    let mut rest = bytes;
    while !rest.is_empty() {
        let most = 1 << random.u32(0..=20);
        let n = random.usize(1..=most).min(rest.len());
        stream.write_all(&rest[..n]).await.expect("written");
        rest = &rest[n..];
        if random.u8(..8) == 0 {
            tokio::time::sleep(Duration::from_micros(random.u64(..2000))).await;
        }
    }
}

/// Reads in pieces of one byte to a MiB, pausing now and then.
async fn read_in_pieces(stream: &mut (impl AsyncReadExt + Unpin), mut random: Rng) -> Vec<u8> {
    let (mut bytes, mut space) = (Vec::new(), vec![0; MIB]);
    loop {
        let most = 1 << random.u32(8..=20);
        let n = stream.read(&mut space[..most]).await.expect("no reset");
        if n == 0 {
            return bytes;
        }
        bytes.extend(&space[..n]);
        if random.u8(..16) == 0 {
            tokio::time::sleep(Duration::from_micros(random.u64(..2000))).await;
        }
    }
}

#[tokio::test]
async fn small_and_large_pieces_mix_both_ways_at_once() {
    for seed in 0..6 {
        let len = Rng::with_seed(seed).usize(MIB..12 * MIB);
        let serve = move |stream: TcpStream| async move {
            let (mut read, mut write) = stream.into_split();
            let writer = tokio::spawn(async move {
                write_in_pieces(&mut write, &pattern(len), Rng::with_seed(seed + 100)).await;
                write.shutdown().await.expect("a half-close");
            });
            let got = read_in_pieces(&mut read, Rng::with_seed(seed + 200)).await;
            assert!(got[1..] == pattern(len), "up, seed {seed}");
            writer.await.expect("written");
        };
        let chain = Chain::to(application(serve).await);
        let (mut read, mut write) = chain.outbound.connect().await.into_split();
        let writer = tokio::spawn(async move {
            write.write_all(b"\x01").await.expect("written");
            write_in_pieces(&mut write, &pattern(len), Rng::with_seed(seed + 300)).await;
            write.shutdown().await.expect("a half-close");
        });
        let read = read_in_pieces(&mut read, Rng::with_seed(seed + 400));
        let got = tokio::time::timeout(Duration::from_secs(60), read)
            .await
            .expect("in time");
        assert!(got == pattern(len), "down, seed {seed}");
        writer.await.expect("written");
        let failed = ["classification=\"failure\""];
        chain.inbound.counts("tcp_open_connections", &[], 0.0).await;
        assert_eq!(
            chain.inbound.sum("tcp_close_total", &failed),
            0.0,
            "seed {seed}"
        );
    }
}

/// Answers every request with as many bytes as its path says, once it has read its body.
async fn answer_sizes(mut stream: TcpStream) {
    loop {
        let head = String::from_utf8(read_until(&mut stream, b"\r\n\r\n").await).expect("text");
        let Some(size) = head.split(['/', ' ']).nth(2) else {
            return;
        };
        let size: usize = size.parse().expect("a number");
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n");
        let _ended = stream.write_all(answer.as_bytes()).await;
        let _ended = stream.write_all(&pattern(size)).await;
    }
}

#[tokio::test]
async fn long_bodies_and_short_ones_take_turns_on_a_connection() {
    let chain = Chain::to(application(answer_sizes).await);
    let mut client = chain.outbound.connect().await;
    let sizes = [0, 10, 4 * MIB, 3, 200_000, 32 * MIB + 7, 0, 1];
    for size in sizes {
        let request = format!("GET /{size} HTTP/1.1\r\nHost: web\r\n\r\n");
        client.write_all(request.as_bytes()).await.expect("written");
        // Byte by byte up to the head's end: nothing of the body may be read with it.
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(client.read_u8().await.expect("a head"));
        }
        assert!(head.starts_with(b"HTTP/1.1 200 "));
        let mut body = vec![0; size];
        client.read_exact(&mut body).await.expect("a body");
        assert!(body == pattern(size), "{size}");
    }
    let count = sizes.len() as f64;
    for proxy in [&chain.outbound, &chain.inbound] {
        let ok = [
            "status_code=\"200\"",
            "classification=\"success\"",
            "error=\"\"",
        ];
        proxy.counts("response_total", &ok, count).await;
        proxy.counts("response_latency_ms_count", &[], count).await;
        assert_eq!(proxy.sum("weir_http_unparsed_total", &[]), 0.0);
    }
}

#[tokio::test]
async fn a_body_that_ends_with_the_connection_is_whole() {
    const SIZE: usize = 16 * MIB;
    let serve = |mut stream: TcpStream| async move {
        read_until(&mut stream, b"\r\n\r\n").await;
        let _ended = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\n").await;
        let _ended = stream.write_all(&pattern(SIZE)).await;
    };
    let chain = Chain::to(application(serve).await);
    let got = exchange(
        chain.outbound.connect().await,
        b"GET / HTTP/1.0\r\n\r\n".to_vec(),
    )
    .await;
    assert_eq!(&got[..19], b"HTTP/1.0 200 OK\r\n\r\n");
    assert!(got[19..] == pattern(SIZE));
    let row = ["status_code=\"200\"", "error=\"\""];
    chain.inbound.counts("response_total", &row, 1.0).await;
}

#[tokio::test]
async fn a_long_body_that_breaks_off_is_a_failure() {
    let serve = |mut stream: TcpStream| async move {
        read_until(&mut stream, b"\r\n\r\n").await;
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 16 * MIB);
        let _ended = stream.write_all(head.as_bytes()).await;
        let _ended = stream.write_all(&pattern(8 * MIB)).await;
    };
    let proxy = Proxy::inbound(application(serve).await);
    let mut client = proxy.connect().await;
    client
        .write_all(b"GET / HTTP/1.1\r\n\r\n")
        .await
        .expect("written");
    let got = read_all(&mut client).await;
    assert!(got.ends_with(&pattern(8 * MIB)[7 * MIB..]));
    let row = [
        "status_code=\"200\"",
        "classification=\"failure\"",
        "error=\"reset\"",
    ];
    proxy.counts("response_total", &row, 1.0).await;
}
