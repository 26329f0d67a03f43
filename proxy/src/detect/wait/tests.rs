//! Waiting with real sockets on loopback; the clock is the real one where it must be.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use super::{Config, Detected, Dialing, hear, wait};
use crate::buffer::{Flow, Pool};
use crate::detect::Verdict;
use crate::forward::{self, Destination, Dialer};
use crate::mesh::Mesh;
use crate::stream::Stream;

async fn pair() -> (TcpStream, Stream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let addr = listener.local_addr().expect("an address");
    let (client, accepted) = tokio::join!(TcpStream::connect(addr), listener.accept());
    (client.expect("connect"), accepted.expect("accept").0.into())
}

async fn run(stream: &mut Stream, target: SocketAddr, config: &Config) -> Detected {
    run_to(stream, Destination::Address(target), config).await
}

async fn run_to(stream: &mut Stream, target: Destination, config: &Config) -> Detected {
    let dialer = Dialer {
        config: forward::Config::default(),
        mesh: Rc::new(Mesh::new(Vec::new())),
        pool: Rc::default(),
    };
    let mut opened = 0;
    let dialing = Dialing {
        target: &target,
        dialer: &dialer,
        at_once: false,
        opened: &mut |_| opened += 1,
    };
    let client = (&mut *stream, Flow::default());
    let detected = wait(client, dialing, config, &dialer.pool).await;
    let detected = detected.expect("no error");
    let is_open = matches!(detected.server, Some(Ok(_)));
    assert_eq!(opened, usize::from(is_open), "whoever is open is told of");
    detected
}

#[tokio::test]
async fn a_client_that_speaks_decides_and_nothing_is_dialed() {
    let (mut client, mut accepted) = pair().await;
    client
        .write_all(b"GET / HTTP/1.1\r\n")
        .await
        .expect("write");
    let nowhere = ([127, 0, 0, 1], 1).into();
    let patient = Config {
        silence: Duration::from_secs(60),
        ..Config::default()
    };
    let detected = run(&mut accepted, nowhere, &patient).await;
    assert_eq!(detected.verdict, Verdict::Http1);
    assert!(detected.server.is_none());
    assert_eq!(detected.up.pending(), b"GET / HTTP/1.1\r\n");
}

#[tokio::test]
async fn a_server_that_speaks_first_is_heard_at_once_and_learned() {
    let (_client, mut accepted) = pair().await;
    let server = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let target = server.local_addr().expect("an address");
    let greet = tokio::spawn(async move {
        let (mut stream, _) = server.accept().await.expect("accept");
        stream.write_all(b"hello").await.expect("write");
        stream
    });
    let detected = run(&mut accepted, target, &Config::default()).await;
    assert_eq!(detected.verdict, Verdict::Opaque);
    assert!(detected.server_first);
    assert_eq!(detected.down.pending(), b"hello");
    drop(greet.await.expect("greeted"));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_greets_in_http2_leaves_the_word_to_its_client() {
    let settings = b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x64";
    for (says, verdict) in [
        (&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], Verdict::Http2),
        (b"GET / HTTP/1.1\r\n", Verdict::Http1),
        (b"\x16\x03\x01\x02", Verdict::Opaque),
        // Closes without a word.
        (b"", Verdict::Opaque),
    ] {
        let (mut client, mut accepted) = pair().await;
        let server = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let target = server.local_addr().expect("an address");
        let speak = async {
            let (mut dialed, _) = server.accept().await.expect("accept");
            dialed.write_all(settings).await.expect("write");
            tokio::time::sleep(Config::default().timeout * 3).await;
            client.write_all(says).await.expect("write");
            if says.is_empty() {
                client.shutdown().await.expect("shutdown");
            }
            dialed
        };
        let config = Config::default();
        let (detected, _dialed) = tokio::join!(run(&mut accepted, target, &config), speak);
        assert_eq!(detected.verdict, verdict, "{says:?}");
        assert!(!detected.server_first && !detected.timed_out, "{says:?}");
        assert_eq!(detected.up.pending(), says);
        assert_eq!(detected.down.pending(), settings);
        assert!(matches!(detected.server, Some(Ok(_))));
    }
}

#[tokio::test]
async fn a_server_that_closes_after_its_greeting_is_not_waited_for() {
    let (_client, mut accepted) = pair().await;
    let server = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let target = server.local_addr().expect("an address");
    let greet = async {
        let (mut dialed, _) = server.accept().await.expect("accept");
        let settings = b"\0\0\0\x04\0\0\0\0\0";
        dialed.write_all(settings).await.expect("write");
    };
    let config = Config::default();
    let both = async { tokio::join!(run(&mut accepted, target, &config), greet).0 };
    let detected = tokio::time::timeout(Duration::from_secs(10), both).await;
    assert_eq!(detected.expect("in time").verdict, Verdict::Opaque);
}

#[tokio::test(start_paused = true)]
async fn a_request_line_that_never_ends_passes_after_the_timeout() {
    let (mut client, mut accepted) = pair().await;
    client.write_all(b"GET / HT").await.expect("write");
    let detected = run(
        &mut accepted,
        ([127, 0, 0, 1], 1).into(),
        &Config::default(),
    )
    .await;
    assert!(detected.timed_out);
    assert_eq!(detected.verdict, Verdict::Opaque);
    assert_eq!(detected.up.pending(), b"GET / HT");
}

#[tokio::test]
async fn a_silent_client_of_a_dead_target_is_let_go_soon() {
    let (_client, mut accepted) = pair().await;
    let closed = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let target = closed.local_addr().expect("an address");
    drop(closed);
    let detected = run(&mut accepted, target, &Config::default()).await;
    assert_eq!(detected.verdict, Verdict::Opaque);
    assert!(matches!(detected.server, Some(Err(_))));
}

#[tokio::test]
async fn a_client_that_only_closes_is_opaque() {
    let (mut client, mut accepted) = pair().await;
    client.shutdown().await.expect("shutdown");
    let detected = run(
        &mut accepted,
        ([127, 0, 0, 1], 1).into(),
        &Config::default(),
    )
    .await;
    assert_eq!(detected.verdict, Verdict::Opaque);
    assert!(detected.up.is_empty());
    let mut rest = Vec::new();
    drop(accepted);
    client.read_to_end(&mut rest).await.expect("read");
}

#[tokio::test(start_paused = true)]
async fn the_time_for_a_request_line_begins_with_its_first_byte() {
    let (mut client, mut accepted) = pair().await;
    let server = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let target = server.local_addr().expect("an address");
    let speak = async {
        let _dialed = server.accept().await.expect("accept");
        tokio::time::sleep(Config::default().timeout * 3).await;
        for part in ["GET / HT", "TP/1.1\r\n"] {
            client.write_all(part.as_bytes()).await.expect("write");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let config = Config::default();
    let (detected, ()) = tokio::join!(run(&mut accepted, target, &config), speak);
    assert_eq!(detected.verdict, Verdict::Http1);
    assert!(!detected.timed_out);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_to_be_refused_has_no_more_time_than_another() {
    let config = Config::default();
    let (pool, limit) = (Pool::default(), config.timeout);
    // It is silent.
    let (_client, mut accepted) = pair().await;
    let start = Instant::now();
    let heard = hear((&mut accepted, Flow::default()), &config, &pool);
    let heard = heard.await.expect("no error");
    assert_eq!(heard.verdict, Verdict::Opaque);
    assert!(start.elapsed() < config.refused_grace * 2);
    // It says a byte at a time, and never a whole line.
    let (mut client, mut accepted) = pair().await;
    let drip = async {
        for byte in b"GET /".iter().chain([b'a'; 100].iter()) {
            client.write_all(&[*byte]).await.expect("write");
            tokio::time::sleep(limit / 4).await;
        }
    };
    let start = Instant::now();
    let heard = hear((&mut accepted, Flow::default()), &config, &pool);
    let heard = tokio::select! {
        heard = heard => heard.expect("no error"),
        () = drip => panic!("it is waited for"),
    };
    assert_eq!(heard.verdict, Verdict::Opaque);
    assert!(heard.timed_out && start.elapsed() < limit * 2);
}

#[tokio::test(start_paused = true)]
async fn a_client_of_a_service_without_endpoints_is_waited_for_where_it_may_be_led_elsewhere() {
    let dead = crate::ports::free();
    for endpoints in [&[][..], &[dead]] {
        let (mut client, mut accepted) = pair().await;
        let config = Config::default();
        let speak = async {
            tokio::time::sleep(Duration::from_secs(3600)).await;
            client
                .write_all(b"GET / HTTP/1.1\r\n")
                .await
                .expect("write");
        };
        let detect = run_to(&mut accepted, Destination::steered(endpoints), &config);
        let (detected, ()) = tokio::join!(detect, speak);
        assert_eq!(detected.verdict, Verdict::Http1);
        assert!(detected.server.is_none(), "what failed then is old");
    }
}

#[tokio::test(start_paused = true)]
async fn who_may_be_led_elsewhere_does_not_wait_for_an_endpoint_that_says_nothing() {
    let server = tokio::net::TcpSocket::new_v4().expect("a socket");
    server.bind(([127, 0, 0, 1], 0).into()).expect("bind");
    let server = server.listen(1).expect("listen");
    let silent = server.local_addr().expect("an address");
    // More than it takes before somebody accepts them.
    let kept: Vec<_> = (0..5)
        .map(|_| {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
            let socket = socket.expect("a socket");
            socket.set_nonblocking(true).expect("a socket option");
            let _pending = socket.connect(&silent.into());
            socket
        })
        .collect();
    let (mut client, mut accepted) = pair().await;
    let start = Instant::now();
    let config = Config::default();
    let speak = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        client
            .write_all(b"GET / HTTP/1.1\r\n")
            .await
            .expect("write");
    };
    let detect = run_to(&mut accepted, Destination::steered(&[silent]), &config);
    let (detected, ()) = tokio::join!(detect, speak);
    assert_eq!(detected.verdict, Verdict::Http1);
    assert!(
        start.elapsed() < Duration::from_secs(1),
        "it is not waited for"
    );
    drop(kept);
}
