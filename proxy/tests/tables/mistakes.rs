//! What the measurement of linkerd2-proxy found wrong (`linkerd-metrics.md`, section 11), as far as HTTP and TCP
//! can show it. Of the others, services that share a name are in `telemetry/routes.rs`, and a watch that closes in
//! `control/calls.rs`. That `errno` is kept for closes with errors is in the rows of `http1`, `tcp` and `errors`.

use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::bench::{Bench, Way, listener};
use super::frames::bytes;
use super::http1::GET;

/// An application that accepts, reads, and answers nothing.
async fn silent(way: Way) -> Bench {
    let listener = listener().await;
    let addr = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move { stream.read_to_end(&mut Vec::new()).await });
        }
    });
    Bench::start(way, addr).await
}

async fn leave(bench: &Bench, client: TcpStream, has_reset: bool, count: f64) {
    if has_reset {
        SockRef::from(&client)
            .set_linger(Some(Duration::ZERO))
            .expect("a socket option");
    }
    drop(client);
    bench
        .counts("tcp_close_total", &[("peer", "src")], count)
        .await;
    bench.counts("tcp_open_connections", &[], 0.0).await;
}

async fn has_no_errors(bench: &Bench) {
    for series in bench.changed().await {
        assert!(!series.name.contains("errors"), "{series:?}");
    }
}

#[tokio::test]
async fn a_client_that_hangs_up_is_no_error_of_the_proxy() {
    let streams = ["hi", "hi post", "hi call m d"].map(bytes);
    let phases: [&[u8]; 9] = [
        b"G",
        b"GET / HTTP/1.1\r\nHost: web",
        GET.as_bytes(),
        b"POST / HTTP/1.1\r\nContent-Length: 100\r\n\r\nsome",
        b"\x01hello",
        &streams[0][..10],
        &streams[0],
        &streams[1],
        &streams[2],
    ];
    for way in Way::BOTH {
        let bench = silent(way).await;
        let mut count = 0.0;
        for bytes in phases {
            for has_reset in [false, true] {
                count += 1.0;
                let mut client = bench.connect().await;
                client.write_all(bytes).await.expect("written");
                let read = [("peer", "src")];
                bench.counts("tcp_open_total", &read, count).await;
                leave(&bench, client, has_reset, count).await;
            }
        }
        has_no_errors(&bench).await;
        let resets = [
            ("peer", "src"),
            ("errno", "ECONNRESET"),
            ("classification", "failure"),
        ];
        bench.counts("tcp_close_total", &resets, 9.0).await;
    }
}

#[tokio::test]
async fn a_probe_that_connects_and_closes_is_no_error() {
    for way in Way::BOTH {
        let bench = silent(way).await;
        for count in 1..=5 {
            leave(&bench, bench.connect().await, false, f64::from(count)).await;
        }
        has_no_errors(&bench).await;
        bench
            .counts("tcp_close_total", &[("classification", "failure")], 0.0)
            .await;
    }
}

#[tokio::test]
async fn scrapes_and_probes_of_the_proxy_itself_are_no_traffic() {
    for way in Way::BOTH {
        let bench = silent(way).await;
        for path in ["/live", "/ready", "/metrics", "/nothing"] {
            let mut client = TcpStream::connect(bench.bound.admin)
                .await
                .expect("it listens");
            let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
            client.write_all(request.as_bytes()).await.expect("written");
            client
                .read_to_end(&mut Vec::new())
                .await
                .expect("an answer");
        }
        assert_eq!(bench.changed().await, []);
    }
}
