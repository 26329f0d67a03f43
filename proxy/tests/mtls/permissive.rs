//! A PERMISSIVE mesh: plaintext is let in, and servers that speak first wait until their client cannot begin TLS any more.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use weir_crds::settings::{IdentitySettings, MtlsMode};
use weir_proxy::detect::wait;
use weir_proxy::worker;

use crate::authority::Authority;
use crate::mesh::{CLIENT, LIFE, Pair, Party, SERVER, identity, settings};
use crate::passes::echo;
use crate::proxy::{DEADLINE, Proxy, answer_heads, application, nobody, read_until, soon};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: web\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[tokio::test]
async fn both_are_let_in_and_counted_apart() {
    let pair = Pair::start_in(
        MtlsMode::Permissive,
        application(|s| answer_heads(s, OK)).await,
    );
    for proxy in [&pair.client.proxy, &pair.server.proxy] {
        let mut asks = proxy.connect().await;
        asks.write_all(GET).await.expect("written");
        assert_eq!(read_until(&mut asks, b"ok").await, OK);
    }
    let server = &pair.server.proxy;
    server
        .counts("request_total", &["tls=\"true\"", "client_id"], 1.0)
        .await;
    let plain = ["tls=\"no_identity\"", "no_tls_from_remote"];
    server.counts("request_total", &plain, 1.0).await;
}

#[tokio::test]
async fn a_server_that_speaks_first_waits_for_tls_and_no_longer() {
    let greet = |mut stream: TcpStream| async move {
        stream.write_all(b"220 ready\r\n").await.expect("written");
        echo(stream).await;
    };
    let defaults = wait::Config::default();
    assert_eq!(defaults.plain_silence, Duration::from_millis(10));
    // As long as the client's proxy may take to begin TLS in this test.
    let patient = served(|detect| detect.plain_silence = Duration::from_secs(1));
    let pair = Pair::start_with(MtlsMode::Permissive, application(greet).await, patient);
    // First a stranger, then one that is known to wait for its server; the same address is believed to be slow once it has
    // spoken TLS.
    let (server, client) = (&pair.server.proxy, &pair.client.proxy);
    for (proxy, count, at_least) in [(server, 1, 250), (server, 2, 1000), (client, 20, 0)] {
        for _ in 0..count {
            let start = Instant::now();
            let mut client = proxy.connect().await;
            assert_eq!(read_until(&mut client, b"\n").await, b"220 ready\r\n");
            assert!(start.elapsed() >= Duration::from_millis(at_least));
        }
    }
    server
        .counts("tcp_open_total", &["tls=\"true\"", SERVER_SIDE], 20.0)
        .await;
    server
        .counts("tcp_open_total", &["no_tls_from_remote"], 3.0)
        .await;
    assert_eq!(server.sum("inbound_tcp_errors_total", &[]), 0.0);
}

/// How the server's proxy is set up where its defaults leave a busy machine too little time.
fn served(set: impl FnOnce(&mut wait::Config)) -> worker::Config {
    let mut served = worker::Config::default();
    set(&mut served.detect);
    served
}

/// More than the client's proxy begins TLS with in the time that a stranger has.
#[tokio::test]
async fn a_burst_of_a_client_that_is_known_is_waited_for() {
    assert!(wait::Config::default().tls_patience >= Duration::from_secs(1));
    let patient = served(|detect| detect.tls_patience = DEADLINE);
    let pair = Pair::start_with(MtlsMode::Permissive, greeter().await, patient);
    let greeted = async || {
        let mut client = pair.client.proxy.connect().await;
        read_until(&mut client, b"\n").await
    };
    assert_eq!(greeted().await, b"220 ready\r\n");
    let burst = futures::future::join_all((0..300).map(|_| greeted())).await;
    assert!(burst.iter().all(|greeting| greeting == b"220 ready\r\n"));
    let server = &pair.server.proxy;
    server
        .counts("tcp_open_total", &["tls=\"true\"", SERVER_SIDE], 301.0)
        .await;
    assert_eq!(server.sum("tcp_open_total", &["no_tls_from_remote"]), 0.0);
}

/// An application that greets whoever comes.
async fn greeter() -> SocketAddr {
    application(|mut stream: TcpStream| async move {
        stream.write_all(b"220 ready\r\n").await.expect("written");
        let _gone = stream.read(&mut [0]).await;
    })
    .await
}

/// Another client's proxy, on whose way to the server what it says waits for this.
async fn slow_client<F>(pair: &Pair, waits: impl Fn() -> F + Clone + Send + 'static) -> Party
where
    F: Future<Output = ()> + Send + 'static,
{
    let to = pair.server.proxy.addr;
    let way = application(move |mut client: TcpStream| {
        let waits = waits.clone();
        async move {
            let mut server = TcpStream::connect(to).await.expect("connected");
            waits().await;
            let _ended = tokio::io::copy_bidirectional(&mut client, &mut server).await;
        }
    });
    let of = identity(&pair.authority, CLIENT, LIFE);
    let of = (settings(MtlsMode::Permissive), Some(of));
    Party::client(of, way.await, Some(SERVER))
}

/// A client's proxy on a busy node, say: its connections are accepted long before it has the CPU to begin TLS on them.
#[tokio::test]
async fn the_first_burst_of_a_slow_stranger_is_waited_for() {
    let defaults = wait::Config::default();
    assert_eq!(defaults.stranger_silence, Duration::from_millis(250));
    let patient = served(|detect| detect.stranger_silence = Duration::from_secs(5));
    let pair = Pair::start_with(MtlsMode::Permissive, greeter().await, patient);
    let late = || tokio::time::sleep(Duration::from_millis(100));
    let client = slow_client(&pair, late).await;
    let burst = (0..20).map(|_| async {
        let mut client = client.proxy.connect().await;
        read_until(&mut client, b"\n").await
    });
    let burst = futures::future::join_all(burst).await;
    assert!(burst.iter().all(|greeting| greeting == b"220 ready\r\n"));
    let server = &pair.server.proxy;
    server
        .counts("tcp_open_total", &["tls=\"true\"", SERVER_SIDE], 20.0)
        .await;
    assert_eq!(server.sum("tcp_open_total", &["no_tls_from_remote"]), 0.0);
}

/// A server that has said nothing has decided nothing: TLS may begin whenever it likes.
#[tokio::test]
async fn tls_may_begin_late_where_the_server_waits_for_it() {
    let app = application(|s| answer_heads(s, OK)).await;
    let pair = Pair::start_in(MtlsMode::Permissive, app);
    let server = &pair.server.proxy;
    let go = Arc::new(Notify::new());
    let told = Arc::clone(&go);
    let client = slow_client(&pair, move || Arc::clone(&told).notified_owned()).await;
    let mut asks = client.proxy.connect().await;
    asks.write_all(GET).await.expect("written");
    // The application is dialed meanwhile, and hears nothing on that connection.
    let dialed = ["peer=\"dst\"", "direction=\"inbound\""];
    server.counts("tcp_open_total", &dialed, 1.0).await;
    go.notify_one();
    assert_eq!(read_until(&mut asks, b"ok").await, OK);
    server.counts("tcp_open_total", &dialed, 2.0).await;
    let secured = ["tls=\"true\"", SERVER_SIDE];
    server.counts("request_total", &secured, 1.0).await;
    assert_eq!(server.sum("request_total", &[]), 1.0);
    drop(asks);
    server.counts("tcp_open_connections", &[], 0.0).await;
    assert_eq!(client.proxy.sum("outbound_tcp_errors_total", &[]), 0.0);
}

/// Discovery tells clients of the identity of a pod before its proxy has the certificate.
#[tokio::test]
async fn a_client_is_held_while_the_certificate_is_on_its_way() {
    let app = application(|s| answer_heads(s, OK)).await;
    let authority = Authority::new("mesh");
    let in_force = || settings(MtlsMode::Permissive);
    let server = Party::server((in_force(), None), app);
    let of = Some(identity(&authority, CLIENT, LIFE));
    let client = Party::client((in_force(), of), server.proxy.addr, Some(SERVER));
    let mut asks = client.proxy.connect().await;
    asks.write_all(GET).await.expect("written");
    // Its ClientHello is there, and plaintext passes meanwhile.
    client
        .proxy
        .counts("tcp_open_total", &["peer=\"src\""], 1.0)
        .await;
    let mut plain = server.proxy.connect().await;
    plain.write_all(GET).await.expect("written");
    assert_eq!(read_until(&mut plain, b"ok").await, OK);
    let certified = identity(&authority, SERVER, LIFE);
    server.identity.send_replace(Some(certified));
    assert_eq!(read_until(&mut asks, b"ok").await, OK);
    let secured = ["tls=\"true\"", SERVER_SIDE];
    server.proxy.counts("request_total", &secured, 1.0).await;
    assert_eq!(server.proxy.sum("request_total", &[]), 2.0);
    assert_eq!(client.proxy.sum("outbound_tcp_errors_total", &[]), 0.0);
}

/// One that has ended is not on its way: its peers learn at once that there is nobody to prove who they have reached.
#[tokio::test]
async fn nobody_is_held_for_a_certificate_that_has_ended() {
    let app = application(|s| answer_heads(s, OK)).await;
    let pair = Pair::start_in(MtlsMode::Permissive, app);
    let ask = async |proxy: &Proxy| {
        let mut asks = proxy.connect().await;
        asks.write_all(GET).await.expect("written");
        let mut answer = vec![0; 12];
        asks.read_exact(&mut answer).await.expect("an answer");
        answer
    };
    assert_eq!(ask(&pair.client.proxy).await, b"HTTP/1.1 200");
    pair.server.identity.send_replace(None);
    let deadline = Instant::now() + DEADLINE;
    loop {
        let asked = Instant::now();
        let answer = ask(&pair.client.proxy).await;
        if answer == b"HTTP/1.1 502" {
            assert!(asked.elapsed() < Duration::from_secs(5), "at once");
            break;
        }
        assert!(Instant::now() < deadline, "it is never without one");
    }
    let required = ["error=\"identity required\""];
    let server = &pair.server.proxy;
    server
        .counts("inbound_tcp_errors_total", &required, 1.0)
        .await;
    assert_eq!(ask(server).await, b"HTTP/1.1 200", "plaintext is let in");
}

/// What a client's proxy begins with that is to verify this name.
async fn hello(name: &str) -> Vec<u8> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let listener = listener.expect("a free port");
    let addr = listener.local_addr().expect("an address");
    let of = Some(identity(&Authority::new("mesh"), CLIENT, LIFE));
    let client = Party::client((settings(MtlsMode::Permissive), of), addr, Some(name));
    let mut asks = client.proxy.connect().await;
    asks.write_all(GET).await.expect("written");
    let (mut dialed, _) = soon(listener.accept()).await.expect("dialed");
    let mut hello = Vec::with_capacity(16 * 1024);
    let read = soon(dialed.read_buf(&mut hello)).await;
    assert!(read.expect("read") > 0);
    hello
}

#[tokio::test]
async fn a_client_that_leaves_while_it_is_held_is_let_go() {
    let server = Party::server((settings(MtlsMode::Permissive), None), nobody());
    let hello = hello(SERVER).await;
    let mut client = server.proxy.connect().await;
    client.write_all(&hello).await.expect("written");
    let start = Instant::now();
    drop(client);
    let closed = ["peer=\"src\"", "classification=\"success\""];
    server.proxy.counts("tcp_close_total", &closed, 1.0).await;
    assert!(start.elapsed() < Duration::from_secs(5), "at once");
    assert_eq!(server.proxy.sum("inbound_tcp_errors_total", &[]), 0.0);
}

#[tokio::test]
async fn a_client_that_is_held_passes_once_the_mesh_has_no_tls() {
    let app = application(echo).await;
    let server = Party::server((settings(MtlsMode::Permissive), None), app);
    let hello = hello(SERVER).await;
    let mut client = server.proxy.connect().await;
    client.write_all(&hello).await.expect("written");
    let disabled = Arc::new(settings(MtlsMode::Disabled));
    server.settings.send_replace(disabled);
    assert!(read_until(&mut client, &hello).await == hello);
}

/// Outside of Kubernetes proxies have the names of services.
#[tokio::test]
async fn a_client_is_held_for_the_name_that_the_proxy_is_to_have() {
    let app = application(|s| answer_heads(s, OK)).await;
    let authority = Authority::new("mesh");
    let mut said = settings(MtlsMode::Permissive);
    said.identity = Some(IdentitySettings {
        name: "web.mesh".into(),
        uris: Vec::new(),
        trust_bundle: String::new(),
    });
    let server = Party::server((said, None), app);
    let of = Some(identity(&authority, CLIENT, LIFE));
    let of = (settings(MtlsMode::Permissive), of);
    let client = Party::client(of, server.proxy.addr, Some("web.mesh"));
    let mut asks = client.proxy.connect().await;
    asks.write_all(GET).await.expect("written");
    let dialed = ["peer=\"src\""];
    client.proxy.counts("tcp_open_total", &dialed, 1.0).await;
    let mut plain = server.proxy.connect().await;
    plain.write_all(GET).await.expect("written");
    assert_eq!(read_until(&mut plain, b"ok").await, OK);
    let certified = identity(&authority, "web.mesh", LIFE);
    server.identity.send_replace(Some(certified));
    assert_eq!(read_until(&mut asks, b"ok").await, OK);
    let secured = ["tls=\"true\"", SERVER_SIDE];
    server.proxy.counts("request_total", &secured, 1.0).await;
}

const SERVER_SIDE: &str = "client_id=\"api.shop";

#[tokio::test]
async fn nothing_is_dialed_before_a_client_has_had_its_time() {
    let pair = Pair::start_in(MtlsMode::Permissive, application(echo).await);
    let server = &pair.server.proxy;
    let mut client = server.connect().await;
    // Whoever closes without a word is passed on as that.
    client.shutdown().await.expect("shut");
    assert_eq!(client.read(&mut [0]).await.expect("an end"), 0);
    server
        .counts("tcp_close_total", &["classification=\"success\""], 2.0)
        .await;
    assert_eq!(server.sum("inbound_tcp_errors_total", &[]), 0.0);
}
