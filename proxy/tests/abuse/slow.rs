//! Slowloris: clients that send a head, or a body, one byte at a time and never finish it.

use std::time::{Duration, Instant};

use futures::future::join_all;
use tokio::io::AsyncWriteExt;

use super::child::Proxy;
use super::http2::{AUTHORITY, METHOD, SCHEME, ask, endpoint};
use super::wire::{PREFACE, data, headers, settings};

const CLIENTS: usize = 2000;
/// Bytes that each of them drips.
const DRIPS: usize = 20;
/// Most resident memory such a client may cost, in KiB: the first buffer, and what an idle pair costs.
const CLIENT: f64 = 16.0 + 10.0;

#[tokio::test]
async fn two_thousand_heads_that_never_end_keep_nobody_waiting() {
    let proxy = Proxy::start().await;
    proxy.serves_others().await;
    let before = proxy.resident();
    let mut clients = join_all((0..CLIENTS).map(|_| proxy.connect())).await;
    for client in &mut clients {
        client
            .write_all(b"GET / HTTP/1.1\r\nX: ")
            .await
            .expect("written");
    }
    for _ in 0..DRIPS {
        for client in &mut clients {
            client.write_all(b"x").await.expect("the proxy waits");
        }
        let slowest = proxy.serves_others().await;
        assert!(slowest.as_secs() < 5, "others wait {slowest:?}");
    }
    let sent = CLIENTS * (b"GET / HTTP/1.1\r\nX: ".len() + DRIPS);
    let others = 50 * (DRIPS + 1) * super::child::GET.len();
    let read = "tcp_read_bytes_total{direction=\"inbound\",peer=\"src\"";
    proxy.counts(read, (sent + others) as f64).await;
    let each = (proxy.resident() - before) / CLIENTS as f64;
    println!("{each:.2} KiB a slow client");
    assert!(each <= CLIENT, "{each} KiB a slow client");
    drop(clients);
    proxy.counts("tcp_open_connections{", 0.0).await;
}

/// Clients of HTTP/2, and the most that one may cost: the buffers of its connection, and a stream of
/// its own on the connections to the endpoints.
const H2_CLIENTS: usize = 600;
const H2_CLIENT: f64 = 28.0 + 12.0;

/// Half of them drip a head that its frame says is long, the others the body of their request.
#[tokio::test]
async fn slow_clients_of_http2_that_is_taken_apart_keep_nobody_waiting() {
    let proxy = Proxy::balancing(&[endpoint().await, endpoint().await]).await;
    for _ in 0..20 {
        ask(&proxy).await;
    }
    let before = proxy.resident();
    let mut clients = join_all((0..H2_CLIENTS).map(|_| proxy.connect())).await;
    // HEADERS of 16,000 bytes, of which the first is the method.
    let head = [0, 0x3e, 0x80, 0x1, 0x4, 0, 0, 0, 1, 0x83];
    let open = headers(1, 0, &[METHOD, SCHEME, (":path", "/read"), AUTHORITY]);
    for (n, client) in clients.iter_mut().enumerate() {
        let begun = if n % 2 == 0 { &head[..] } else { &open };
        let hello = [PREFACE, &settings(&[]), begun].concat();
        client.write_all(&hello).await.expect("written");
    }
    let bodies = (H2_CLIENTS / 2) as f64;
    proxy.counts("request_total{", 20.0 + bodies).await;
    for _ in 0..DRIPS {
        for (n, client) in clients.iter_mut().enumerate() {
            let drip = if n % 2 == 0 {
                vec![0x83]
            } else {
                data(1, 0, b"x")
            };
            client.write_all(&drip).await.expect("the proxy waits");
        }
        let start = Instant::now();
        ask(&proxy).await;
        let waited = start.elapsed();
        assert!(waited < Duration::from_secs(5), "others wait {waited:?}");
    }
    let each = (proxy.resident() - before) / H2_CLIENTS as f64;
    println!("{each:.2} KiB a slow client of HTTP/2");
    assert!(each <= H2_CLIENT, "{each} KiB a slow client");
    drop(clients);
    let row = "tcp_open_connections{direction=\"outbound\",peer=\"src\"";
    proxy.counts(row, 0.0).await;
    proxy.counts("http2_active_streams{", 0.0).await;
}
