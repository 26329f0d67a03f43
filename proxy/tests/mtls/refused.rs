//! Who is not let in, and who is not believed. Nothing of them gets to the application.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use weir_crds::settings::MtlsMode;
use weir_proxy::accept::Aim;
use weir_proxy::worker;

use crate::authority::Authority;
use crate::labels::{SRV, counts_exactly};
use crate::mesh::{CLIENT, LIFE, Party, SERVER, identity, listed, settings};
use crate::proxy::{answer_heads, application, read_all, read_until, soon};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: web\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// An application, and how many connections it has had.
async fn counting() -> (SocketAddr, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let app = application(move |stream| {
        counted.fetch_add(1, Ordering::Relaxed);
        answer_heads(stream, OK)
    });
    (app.await, count)
}

fn strict() -> weir_crds::settings::Settings {
    settings(MtlsMode::Strict)
}

/// The families of connections, and of their errors.
const CONNECTIONS: [&str; 5] = [
    "tcp_open_total",
    "tcp_close_total",
    "inbound_tcp_errors_total",
    "outbound_tcp_errors_total",
    "request_total",
];

/// Waits until a server's proxy has counted so many connections that are of this error, none of which went on, and so many
/// that have left.
async fn shut(server: &Party, srv: &str, error: &str, (failed, left): (usize, usize)) {
    let port = server.proxy.addr.port();
    let src = format!(
        r#"direction="inbound",peer="src",tls="no_identity",no_tls_reason="no_tls_from_remote",{srv},target_port="{port}""#
    );
    let mut expected = vec![
        format!("tcp_open_total{{{src}}} {}", failed + left),
        format!(r#"tcp_close_total{{{src},classification="failure",errno=""}} {failed}"#),
        format!(
            r#"inbound_tcp_errors_total{{direction="inbound",peer="src",error="{error}",target_port="{port}"}} {failed}"#
        ),
    ];
    if left > 0 {
        let closed = r#"classification="success",errno="""#;
        expected.push(format!("tcp_close_total{{{src},{closed}}} {left}"));
    }
    counts_exactly(&server.proxy, &CONNECTIONS, expected).await;
}

/// Waits until a client's proxy has counted one endpoint that it could not connect to, by this error.
async fn unreached(client: &Party, error: &str) {
    let port = client.proxy.addr.port();
    let request = format!(
        r#"direction="outbound",authority="web",target_port="{port}",tls="true",server_id="{SERVER}",dst_service="web""#
    );
    let failed =
        r#"status_code="502",classification="failure",grpc_status_code="",error="connect""#;
    let expected = vec![
        format!("request_total{{{request}}} 1"),
        format!("response_total{{{request},{failed}}} 1"),
        r#"outbound_http_errors_total{direction="outbound",error="connect"} 1"#.to_owned(),
        format!(
            r#"outbound_tcp_errors_total{{direction="outbound",peer="dst",error="{error}",target_port="{port}"}} 1"#
        ),
    ];
    let families = [
        "request_total",
        "response_total",
        "outbound_http_errors_total",
        "outbound_tcp_errors_total",
    ];
    counts_exactly(&client.proxy, &families, expected).await;
    let opened = client.proxy.sum("tcp_open_total", &["peer=\"dst\""]);
    assert_eq!(opened, 0.0, "nothing was opened that can be used");
}

#[tokio::test]
async fn in_a_strict_mesh_nothing_but_its_tls_gets_in() {
    let (app, count) = counting().await;
    let authority = Authority::new("mesh");
    let server = Party::server((strict(), Some(identity(&authority, SERVER, LIFE))), app);
    let says: [&[u8]; 3] = [GET, b"\0\x01", b"\x16\x03\x01\0\x04\x01\xff\0\0"];
    for (n, bytes) in (1..).zip(says) {
        let mut client = server.proxy.connect().await;
        client.write_all(bytes).await.expect("written");
        let error = soon(client.read(&mut [0])).await.expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        shut(&server, SRV, "identity required", (n, 0)).await;
    }
    // Who says nothing and leaves is no error.
    drop(server.proxy.connect().await);
    shut(&server, SRV, "identity required", (3, 1)).await;
    assert_eq!(count.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn without_a_certificate_a_strict_mesh_is_shut_both_ways() {
    let (app, count) = counting().await;
    let server = Party::server((strict(), None), app);
    let asking = async {
        // The reset may be there before the connection is.
        let mut client = TcpStream::connect(server.proxy.addr).await?;
        client.write_all(GET).await?;
        client.read(&mut [0]).await
    };
    assert!(soon(asking).await.is_err());
    shut(&server, SRV, "identity required", (1, 0)).await;
    let client = Party::client((strict(), None), app, Some(SERVER));
    let mut asks = client.proxy.connect().await;
    asks.write_all(GET).await.expect("written");
    assert!(read_all(&mut asks).await.starts_with(b"HTTP/1.1 502 "));
    unreached(&client, "identity required").await;
    assert_eq!(count.load(Ordering::Relaxed), 0);
    // It comes, and so do its connections.
    let authority = Authority::new("mesh");
    server
        .identity
        .send_replace(Some(identity(&authority, SERVER, LIFE)));
    let client = Party::client(
        (strict(), Some(identity(&authority, CLIENT, LIFE))),
        server.proxy.addr,
        Some(SERVER),
    );
    let mut asks = client.proxy.connect().await;
    asks.write_all(GET).await.expect("written");
    assert_eq!(read_until(&mut asks, b"ok").await, OK);
}

/// Where what comes to a server without a Dataplane arrives.
const ALL: &str = r#"srv_group="",srv_kind="default",srv_name="all",srv_port="80""#;

#[tokio::test]
async fn a_hello_that_does_not_come_or_does_not_end_is_given_up() {
    let (app, count) = counting().await;
    let authority = Authority::new("mesh");
    let mut config = worker::Config::default();
    config.detect.timeout = Duration::from_millis(200);
    let (part, nothing): (&[u8], &[u8]) = (b"\x16\x03\x01\x02\0\x01\0\x01", b"");
    // Where plaintext is let in, who says nothing waits for its server.
    for (mode, says) in [
        (MtlsMode::Strict, part),
        (MtlsMode::Permissive, part),
        (MtlsMode::Strict, nothing),
    ] {
        let server = Party::start(
            (settings(mode), Some(identity(&authority, SERVER, LIFE))),
            Aim::Application {
                addr: app,
                server: weir_proxy::telemetry::Server::new("", "default", "all", 80),
            },
            config.clone(),
        );
        let mut client = server.proxy.connect().await;
        client.write_all(says).await.expect("written");
        assert!(soon(client.read(&mut [0])).await.is_err());
        shut(&server, ALL, "tls detection timeout", (1, 0)).await;
    }
    assert_eq!(count.load(Ordering::Relaxed), 0);
}

/// What a proxy of the mesh begins a connection to the server with.
async fn hello(authority: &Authority) -> Vec<u8> {
    let (said, mut heard) = tokio::sync::mpsc::channel(1);
    let endpoint = application(move |mut stream: TcpStream| {
        let said = said.clone();
        async move {
            let mut bytes = vec![0; 16_384];
            let n = stream.read(&mut bytes).await.expect("a ClientHello");
            bytes.truncate(n);
            let _heard = said.send(bytes).await;
        }
    });
    let api = identity(authority, CLIENT, LIFE);
    let client = Party::client((strict(), Some(api)), endpoint.await, Some(SERVER));
    let mut asks = client.proxy.connect().await;
    asks.write_all(GET).await.expect("written");
    soon(heard.recv()).await.expect("a ClientHello")
}

#[tokio::test]
async fn who_hangs_up_in_the_handshake_is_no_error() {
    let (app, count) = counting().await;
    let authority = Authority::new("mesh");
    let server = Party::server((strict(), Some(identity(&authority, SERVER, LIFE))), app);
    let hello = hello(&authority).await;
    for (n, whole) in (1..).zip([true, false]) {
        let mut client = server.proxy.connect().await;
        client.write_all(&hello).await.expect("written");
        // The server has begun its part by then.
        let read = soon(client.read(&mut [0])).await;
        assert_eq!(read.expect("a ServerHello"), 1);
        if whole {
            client.shutdown().await.expect("an end");
            read_all(&mut client).await;
        }
        // With all that it has not read: a reset.
        drop(client);
        let closed = ["peer=\"src\"", "classification=\"failure\""];
        let closed = server
            .proxy
            .counts("tcp_close_total", &closed, f64::from(n));
        closed.await;
    }
    assert_eq!(server.proxy.sum("inbound_tcp_errors_total", &[]), 0.0);
    assert_eq!(count.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn an_endpoint_that_hangs_up_in_the_handshake_is_an_error_of_io() {
    let endpoint = application(|mut stream: TcpStream| async move {
        // All of it: a close that leaves none of it unread is no reset.
        let read = stream.read_buf(&mut Vec::with_capacity(16_384)).await;
        assert!(read.expect("a ClientHello") > 0);
    });
    let api = identity(&Authority::new("mesh"), CLIENT, LIFE);
    let client = Party::client((strict(), Some(api)), endpoint.await, Some(SERVER));
    let (status, _) = ask(&client).await;
    assert_eq!(status, b"502");
    unreached(&client, "i/o").await;
}

/// Asks once; answers the status, and how often the client's proxy has failed to dial for want of an identity.
async fn ask(client: &Party) -> (Vec<u8>, f64) {
    let mut asks = client.proxy.connect().await;
    asks.write_all(GET).await.expect("written");
    let answer = read_until(&mut asks, b"ok").await;
    let errors = ["error=\"identity required\"", "peer=\"dst\""];
    let status = answer.get(9..12).map(<[u8]>::to_vec).unwrap_or_default();
    (
        status,
        client.proxy.sum("outbound_tcp_errors_total", &errors),
    )
}

#[tokio::test]
async fn a_server_that_is_somebody_else_is_no_endpoint() {
    let (app, count) = counting().await;
    let (authority, other) = (Authority::new("mesh"), Authority::new("mesh"));
    let api = identity(&authority, CLIENT, LIFE);
    let servers = [
        // Another name: it hangs up on what is not for it. Another authority, and one whose time is over.
        Party::server((strict(), Some(identity(&authority, CLIENT, LIFE))), app),
        Party::server((strict(), Some(identity(&other, SERVER, LIFE))), app),
        Party::server(
            (
                strict(),
                Some(identity(&authority, SERVER, Duration::from_secs(2))),
            ),
            app,
        ),
    ];
    tokio::time::sleep(Duration::from_secs(4)).await;
    let errors = ["i/o", "identity required", "identity required"];
    for (server, error) in servers.iter().zip(errors) {
        let client = (strict(), Some(Arc::clone(&api)));
        let client = Party::client(client, server.proxy.addr, Some(SERVER));
        let (status, _) = ask(&client).await;
        assert_eq!(status, b"502", "{error}");
        unreached(&client, error).await;
    }
    assert_eq!(count.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn another_endpoint_is_tried_where_one_is_somebody_else() {
    let (app, _) = counting().await;
    let (authority, other) = (Authority::new("mesh"), Authority::new("mesh"));
    let bad = Party::server((strict(), Some(identity(&other, SERVER, LIFE))), app);
    let good = Party::server((strict(), Some(identity(&authority, SERVER, LIFE))), app);
    let aim = Aim::Service {
        name: "web".to_owned(),
        endpoints: [&bad, &good]
            .map(|s| listed(s.proxy.addr, Some(SERVER)))
            .into(),
    };
    let api = identity(&authority, CLIENT, LIFE);
    let client = Party::start((strict(), Some(api)), aim, worker::Config::default());
    for _ in 0..20 {
        assert_eq!(ask(&client).await, (b"200".to_vec(), 0.0));
    }
}

#[tokio::test]
async fn a_client_of_another_mesh_or_whose_time_is_over_gets_nowhere() {
    let (app, count) = counting().await;
    let (authority, other) = (Authority::new("mesh"), Authority::new("mesh"));
    let server = Party::server((strict(), Some(identity(&authority, SERVER, LIFE))), app);
    // It believes the server; the server does not believe it.
    let foreign = crate::mesh::identity_in(
        &other,
        CLIENT,
        (LIFE, &format!("{}{}", authority.bundle(), other.bundle())),
    );
    let ended = identity(&authority, CLIENT, Duration::from_secs(2));
    tokio::time::sleep(Duration::from_secs(4)).await;
    for (n, identity) in (1..).zip([foreign, ended]) {
        let client = Party::client((strict(), Some(identity)), server.proxy.addr, Some(SERVER));
        let mut asks = client.proxy.connect().await;
        asks.write_all(GET).await.expect("written");
        let answer = read_all(&mut asks).await;
        assert!(!answer.starts_with(b"HTTP/1.1 200"), "{n}");
        shut(&server, SRV, "identity required", (n, 0)).await;
    }
    assert_eq!(count.load(Ordering::Relaxed), 0);
}
