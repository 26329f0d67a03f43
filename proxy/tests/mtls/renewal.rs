//! Certificates and authorities that change while requests are under way: none of them fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::AsyncWriteExt;

use crate::authority::Authority;
use crate::mesh::{CLIENT, LIFE, Pair, SERVER, identity, identity_in};
use crate::proxy::{answer_heads, application, read_until, soon};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: web\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Asks on a connection of its own until told to stop, and on one that it keeps; counts its rounds.
async fn load(addr: std::net::SocketAddr, stop: Arc<AtomicBool>, rounds: Arc<AtomicUsize>) {
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
        }
        rounds.fetch_add(1, Ordering::Relaxed);
    }
}

/// Another authority: first everybody trusts both, then everybody is certified by the new one, then the old is gone.
async fn exchange_authority(pair: &Pair, settle: impl AsyncFn()) {
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
            settle().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_everything_is_renewed() {
    let pair = Pair::start(application(|s| answer_heads(s, OK)).await);
    let stop = Arc::new(AtomicBool::new(false));
    let rounds: [Arc<AtomicUsize>; 8] = Default::default();
    let begin =
        |rounds: &Arc<AtomicUsize>| load(pair.client.proxy.addr, stop.clone(), rounds.clone());
    let loads: Vec<_> = rounds
        .iter()
        .map(|rounds| tokio::spawn(begin(rounds)))
        .collect();
    let count = || {
        rounds
            .each_ref()
            .map(|rounds| rounds.load(Ordering::Relaxed))
    };
    // Until no handshake is under way that began before, as proxies are told of a root long before it is used.
    let settle = async || {
        let before = count();
        let settled = async {
            while count()
                .iter()
                .zip(&before)
                .any(|(now, then)| now < &(then + 2))
            {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        soon(settled).await;
    };
    let pause = || tokio::time::sleep(Duration::from_millis(50));
    for _ in 0..20 {
        let renewed = identity(&pair.authority, SERVER, LIFE);
        pair.server.identity.send_replace(Some(renewed));
        pause().await;
        let renewed = identity(&pair.authority, CLIENT, LIFE);
        pair.client.identity.send_replace(Some(renewed));
        pause().await;
    }
    exchange_authority(&pair, settle).await;
    stop.store(true, Ordering::Relaxed);
    for load in loads {
        load.await.expect("no request fails");
    }
    let asked = 2.0 * count().iter().sum::<usize>() as f64;
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
