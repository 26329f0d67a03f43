//! A PERMISSIVE mesh: plaintext is let in, and servers that speak first wait until their client cannot begin TLS any more.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use weir_crds::settings::MtlsMode;

use crate::authority::Authority;
use crate::mesh::{CLIENT, LIFE, Pair, Party, SERVER, identity, settings};
use crate::passes::echo;
use crate::proxy::{answer_heads, application, read_until};

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
    let pair = Pair::start_in(MtlsMode::Permissive, application(greet).await);
    // First a stranger; the same address is believed to be slow once it has spoken TLS.
    for (proxy, at_least) in [(&pair.server.proxy, 10), (&pair.client.proxy, 0)] {
        for _ in 0..20 {
            let start = Instant::now();
            let mut client = proxy.connect().await;
            assert_eq!(read_until(&mut client, b"\n").await, b"220 ready\r\n");
            assert!(start.elapsed() >= Duration::from_millis(at_least));
        }
    }
    let server = &pair.server.proxy;
    server
        .counts("tcp_open_total", &["tls=\"true\"", SERVER_SIDE], 20.0)
        .await;
    server
        .counts("tcp_open_total", &["no_tls_from_remote"], 20.0)
        .await;
    assert_eq!(server.sum("inbound_tcp_errors_total", &[]), 0.0);
}

/// More than the client's proxy begins TLS with in the time that a stranger has.
#[tokio::test]
async fn a_burst_of_a_client_that_is_known_is_waited_for() {
    let greet = |mut stream: TcpStream| async move {
        stream.write_all(b"220 ready\r\n").await.expect("written");
        let _gone = stream.read(&mut [0]).await;
    };
    let pair = Pair::start_in(MtlsMode::Permissive, application(greet).await);
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
