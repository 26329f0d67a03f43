//! Clients that connect and say nothing, and clients that keep their connection after an answer.

use std::time::{Duration, Instant};

use futures::future::join_all;

use super::child::{Proxy, ask};

/// Connections at a time, each with its pair to the application.
const CLIENTS: usize = 5000;
/// Most resident memory a connection pair may cost, in KiB.
const PAIR: f64 = 10.0;
/// Most resident memory, as a ratio to that before, once they have gone.
const AFTER: f64 = 1.2;
/// Longest until then.
const GIVEN_BACK: Duration = Duration::from_secs(60);
/// How many clients do something at once.
const AT_ONCE: usize = 250;

#[tokio::test]
async fn five_thousand_idle_connections_cost_little_and_keep_nobody_waiting() {
    let proxy = Proxy::start().await;
    proxy.serves_others().await;
    let (before, dialed) = (proxy.resident(), proxy.dialed());
    let mut clients = Vec::new();
    while clients.len() < CLIENTS {
        clients.extend(join_all((0..AT_ONCE).map(|_| proxy.connect())).await);
    }
    // Each silent client's application is dialed, for it may be the one that speaks first.
    proxy.dials(dialed, CLIENTS).await;
    let silent = (proxy.resident() - before) / CLIENTS as f64;
    let slowest = proxy.serves_others().await;
    println!("silent: {silent:.2} KiB a pair; others wait at most {slowest:?}");
    assert!(silent <= PAIR, "{silent} KiB a silent pair");

    for some in clients.chunks_mut(AT_ONCE) {
        join_all(some.iter_mut().map(ask)).await;
    }
    proxy
        .counts("tcp_open_connections{", 2.0 * CLIENTS as f64)
        .await;
    let kept = (proxy.resident() - before) / CLIENTS as f64;
    let slowest = proxy.serves_others().await;
    println!("kept alive: {kept:.2} KiB a pair; others wait at most {slowest:?}");
    assert!(kept <= PAIR, "{kept} KiB a kept pair");
    drop(clients);
    proxy.counts("tcp_open_connections{", 0.0).await;
    let start = Instant::now();
    while proxy.resident() > before * AFTER {
        let (now, waited) = (proxy.resident(), start.elapsed());
        assert!(
            waited < GIVEN_BACK,
            "{now} KiB of {before} after {waited:?}"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!("given back after {:?}", start.elapsed());
}
