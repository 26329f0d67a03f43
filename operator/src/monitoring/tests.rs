use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{Known, Limits, serve};
use crate::index::Discovery;
use crate::metrics::Metrics;

const SOON: Duration = Duration::from_secs(10);

/// A server that has not listed pods, with one connection at a time.
async fn started(limits: Limits) -> (TcpStream, impl AsyncFn() -> TcpStream, CancellationToken) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, metrics) = (CancellationToken::new(), Metrics::default().monitoring);
    let known = Known {
        index: Discovery::default(),
        contact: watch::Sender::new(true).subscribe(),
    };
    let limits = Limits {
        connections: 1,
        ..limits
    };
    tokio::spawn(serve(listener, known, limits, (metrics, stop.clone())));
    let connect = async move || TcpStream::connect(address).await.unwrap();
    (connect().await, connect, stop)
}

/// What the server says to a request, until it hangs up.
async fn asked(mut stream: TcpStream) -> String {
    let request = b"GET /targets HTTP/1.1\r\nHost: operator\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    let read = timeout(SOON, stream.read_to_string(&mut answer));
    read.await.expect("the server hangs up").unwrap();
    answer
}

#[tokio::test]
async fn a_connection_ends_with_its_answer() {
    let (stream, _, _) = started(Limits::default()).await;
    let answer = asked(stream).await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(
        answer.to_lowercase().contains("connection: close"),
        "{answer}"
    );
}

#[tokio::test]
async fn half_a_head_keeps_nobody_waiting_for_long() {
    let head = Duration::from_millis(50);
    let limits = Limits {
        head,
        ..Limits::default()
    };
    let (mut silent, connect, _) = started(limits).await;
    silent
        .write_all(b"GET /targets HTTP/1.1\r\n")
        .await
        .unwrap();
    let answer = asked(connect().await).await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
}

#[tokio::test]
async fn a_connection_that_says_nothing_ends_with_the_operator() {
    let grace = Duration::from_millis(10);
    let limits = Limits {
        grace,
        ..Limits::default()
    };
    let (mut silent, _, stop) = started(limits).await;
    silent.write_all(b"GET").await.unwrap();
    stop.cancel();
    let mut answer = Vec::new();
    // A reset is an end, too.
    let _ = timeout(SOON, silent.read_to_end(&mut answer))
        .await
        .expect("the server hangs up");
    assert!(answer.is_empty());
}
