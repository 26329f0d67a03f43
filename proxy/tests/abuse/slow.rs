//! Slowloris: clients that send a head one byte at a time and never finish it.

use futures::future::join_all;
use tokio::io::AsyncWriteExt;

use super::child::Proxy;

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
