//! Certificates and authorities that change while requests are under way: none of them fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::AsyncWriteExt;

use crate::authority::Authority;
use crate::mesh::{CLIENT, LIFE, Pair, SERVER, identity, identity_in};
use crate::proxy::{answer_heads, application, read_until};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: web\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Asks on a connection of its own until told to stop, and on one that it keeps; answers how often.
async fn load(addr: std::net::SocketAddr, stop: Arc<AtomicBool>, asked: Arc<AtomicUsize>) {
    let connect = async || {
        tokio::net::TcpStream::connect(addr)
            .await
            .expect("it listens")
    };
    let mut kept = connect().await;
    while !stop.load(Ordering::Relaxed) {
        let mut once = connect().await;
        for client in [&mut kept, &mut once] {
            client.write_all(GET).await.expect("written");
            let answer = read_until(client, b"ok").await;
            assert_eq!(answer, OK, "{}", String::from_utf8_lossy(&answer));
            asked.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_everything_is_renewed() {
    let pair = Pair::start(application(|s| answer_heads(s, OK)).await);
    let (stop, asked) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let loads: Vec<_> = (0..8)
        .map(|_| tokio::spawn(load(pair.client.proxy.addr, stop.clone(), asked.clone())))
        .collect();
    let pause = || tokio::time::sleep(Duration::from_millis(50));
    for _ in 0..20 {
        let renewed = identity(&pair.authority, SERVER, LIFE);
        pair.server.identity.send_replace(Some(renewed));
        pause().await;
        let renewed = identity(&pair.authority, CLIENT, LIFE);
        pair.client.identity.send_replace(Some(renewed));
        pause().await;
    }
    // Another authority: first everybody trusts both, then everybody is certified by the new one, then the old is gone.
    let next = Authority::new("next");
    let both = format!("{}{}", pair.authority.bundle(), next.bundle());
    let steps = [
        (&pair.authority, both.clone()),
        (&next, both),
        (&next, next.bundle()),
    ];
    for (authority, bundle) in steps {
        for (party, name) in [(&pair.server, SERVER), (&pair.client, CLIENT)] {
            let identity = identity_in(authority, name, (LIFE, &bundle));
            party.identity.send_replace(Some(identity));
            pause().await;
        }
    }
    pause().await;
    stop.store(true, Ordering::Relaxed);
    for load in loads {
        load.await.expect("no request fails");
    }
    let asked = asked.load(Ordering::Relaxed) as f64;
    assert!(asked > 100.0, "{asked} requests");
    let ok = [
        "status_code=\"200\"",
        "classification=\"success\"",
        "tls=\"true\"",
    ];
    for party in [&pair.client, &pair.server] {
        party.proxy.counts("response_total", &ok, asked).await;
        assert_eq!(party.proxy.sum("response_total", &[]), asked);
    }
}
