//! What mutual TLS costs: microseconds of CPU for a handshake, of both sides together, in one thread over loopback. Target:
//! at most 400 for a full one on either side.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

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

/// One connection, which brings the ticket for the next.
async fn connect(
    listener: &TcpListener,
    (client, server): (&Identity, &Identity),
    pool: &Rc<Pool>,
) {
    let addr = listener.local_addr().expect("an address");
    let (dialed, accepted) = tokio::join!(TcpStream::connect(addr), listener.accept());
    let (dialed, accepted) = (dialed.expect("dialed"), accepted.expect("accepted").0);
    // As the proxy's own sockets have it.
    for socket in [&dialed, &accepted] {
        socket.set_nodelay(true).expect("an option");
    }
    let name = server_name(NAME).expect("a name");
    let accepted = (accepted, Flow::default());
    let (client, server) = tokio::join!(
        Stream::connect(dialed, (client, name), pool),
        Stream::accept(accepted, server, pool)
    );
    let (mut client, (mut server, _)) = (client.expect("shaken"), server.expect("shaken"));
    server.write_all(b"x").await.expect("written");
    client.read_exact(&mut [0]).await.expect("read");
}

/// Of a process' time, that of its threads.
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
