//! What mutual TLS costs: microseconds for a handshake in one thread over loopback, of both sides together, with the
//! sockets and the first byte, and of each side apart, in its own steps of it. Target: at most 400 for a full one on either
//! side.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use weir_proxy::buffer::{Flow, Pool};
use weir_proxy::identity::{Certified, Identity, Key, Trust, server_name};
use weir_proxy::stream::Stream;

#[allow(dead_code, reason = "the tests use the rest")]
#[path = "../src/identity/tests/authority.rs"]
mod authority;

use authority::Authority;

const NAME: &str = "web.shop.serviceaccount.identity.kuma-system.cluster.local";

fn identity(authority: &Authority) -> Identity {
    let key = Key::generate().expect("a key");
    let csr = key.request(NAME).expect("a request");
    let uris = ["spiffe://default/web", "kuma://kuma.io/service/web"].map(str::to_owned);
    let certified = authority.sign(&csr, &uris, Duration::from_secs(3600));
    let trust = Arc::new(Trust::from_pem(&authority.bundle()).expect("a bundle"));
    Identity::new((&NAME.into(), &key), &certified, &trust).expect("it holds")
}

/// A side of a handshake.
#[derive(Clone, Copy, Debug)]
enum Side {
    Client,
    Server,
}

/// The time that each side takes.
struct Spent {
    client: Duration,
    server: Duration,
}

impl Spent {
    fn of(&self, side: Side) -> Duration {
        match side {
            Side::Client => self.client,
            Side::Server => self.server,
        }
    }
}

/// What a future comes to, and the time of its steps; none of a handshake waits for anything.
async fn timed<F: Future>(future: F) -> (F::Output, Duration) {
    let mut future = pin!(future);
    let mut spent = Duration::ZERO;
    let output = poll_fn(|cx| {
        let start = Instant::now();
        let polled = future.as_mut().poll(cx);
        spent += start.elapsed();
        polled
    })
    .await;
    (output, spent)
}

/// One connection, which brings the ticket for the next.
async fn connect(
    listener: &TcpListener,
    (client, server): (&Identity, &Identity),
    pool: &Rc<Pool>,
) -> Spent {
    let addr = listener.local_addr().expect("an address");
    let (dialed, accepted) = tokio::join!(TcpStream::connect(addr), listener.accept());
    let (dialed, accepted) = (dialed.expect("dialed"), accepted.expect("accepted").0);
    // As the proxy's own sockets have it.
    for socket in [&dialed, &accepted] {
        socket.set_nodelay(true).expect("an option");
    }
    let name = server_name(NAME).expect("a name");
    let accepted = (accepted, Flow::default());
    let ((client, by_client), (server, by_server)) = tokio::join!(
        timed(Stream::connect(dialed, (client, name), pool)),
        timed(Stream::accept(accepted, server, pool))
    );
    let (mut client, (mut server, _)) = (client.expect("shaken"), server.expect("shaken"));
    server.write_all(b"x").await.expect("written");
    client.read_exact(&mut [0]).await.expect("read");
    Spent {
        client: by_client,
        server: by_server,
    }
}

fn handshakes(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let authority = Authority::new("mesh");
    let (client, server) = (identity(&authority), identity(&authority));
    let pool = Rc::new(Pool::default());
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"));
    let listener = listener.expect("a free port");
    c.bench_function("handshake/resumed", |b| {
        b.iter(|| runtime.block_on(connect(&listener, (&client, &server), &pool)));
    });
    // A certificate of its own for each is what makes a session new.
    c.bench_function("handshake/full", |b| {
        b.iter_batched(
            || identity(&authority),
            |client| runtime.block_on(connect(&listener, (&client, &server), &pool)),
            criterion::BatchSize::SmallInput,
        );
    });
    for side in [Side::Client, Side::Server] {
        c.bench_function(&format!("handshake/resumed/{side:?}"), |b| {
            b.iter_custom(|times| {
                let steps = (0..times).map(|_| {
                    let spent = connect(&listener, (&client, &server), &pool);
                    runtime.block_on(spent).of(side)
                });
                steps.sum()
            });
        });
        c.bench_function(&format!("handshake/full/{side:?}"), |b| {
            b.iter_custom(|times| {
                let steps = (0..times).map(|_| {
                    let stranger = identity(&authority);
                    let spent = connect(&listener, (&stranger, &server), &pool);
                    runtime.block_on(spent).of(side)
                });
                steps.sum()
            });
        });
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3));
    targets = handshakes
}
criterion_main!(benches);
