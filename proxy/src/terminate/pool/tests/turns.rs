//! A client that has sent everything at once, and how much of it is read before others have their turn.

use std::future::Future as _;
use std::pin::pin;
use std::task::Poll;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::activity::{Activity, Gauge};
use crate::http2::PREFACE;
use crate::terminate::socket::TURN;
use crate::terminate::{Incoming, serve};

/// Says hello, and once its window is open opens many streams, all of whose frames are in the socket at once. Answers the
/// bytes that it has sent.
async fn sends_at_once(sender: &mut TcpStream) -> std::io::Result<usize> {
    let hello = [&PREFACE[..], &[0, 0, 0, 4, 0, 0, 0, 0, 0]].concat();
    sender.write_all(&hello).await?;
    let mut head = [0; 9];
    // Until WINDOW_UPDATE.
    while head[3] != 8 {
        sender.read_exact(&mut head).await?;
        let mut rest = vec![0; usize::from(head[2])];
        sender.read_exact(&mut rest).await?;
    }
    let mut frames = Vec::new();
    for n in 0..20u8 {
        let stream = 2 * n + 1;
        // HEADERS: POST, http, / and the authority "web"; then DATA.
        frames.extend([0, 0, 8, 1, 4, 0, 0, 0, stream, 0x83, 0x86, 0x84]);
        frames.extend(b"\x41\x03web");
        for _ in 0..3 {
            frames.extend([0, 0x3e, 0x80, 0, 0, 0, 0, 0, stream]);
            frames.extend([0; 16_000]);
        }
    }
    sender.write_all(&frames).await?;
    Ok(hello.len() + frames.len())
}

/// Its streams among them: each is begun in a turn of its connection, and goes on before the next.
#[tokio::test]
async fn who_sends_without_an_end_leaves_the_others_their_turn() {
    const READ: &str = "tcp_read_bytes_total{direction=\"outbound\",peer=\"src\"";
    let test = async {
        let bench = bench(vec![named(endpoint().await, "a")]);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let sending = TcpStream::connect(listener.local_addr().expect("an address"));
        let (sender, accepted) = tokio::join!(sending, listener.accept());
        let mut sender = sender.expect("connected");
        let incoming = Incoming {
            stream: accepted.expect("accepted").0.into(),
            first: Bytes::new(),
            accepted: bench.book.accepted(Instant::now()),
            busy: Activity::new(Gauge::default()).begin(),
            permit: None,
            book: bench.book.clone(),
        };
        let mut serving = pin!(serve(bench.service(), incoming));
        let (mut read, mut most) = (0.0, 0.0_f64);
        let turns = poll_fn(|cx| {
            let _ended = serving.as_mut().poll(cx);
            let now = bench.sum(READ);
            most = most.max(now - read);
            read = now;
            Poll::<()>::Pending
        });
        let all = async {
            let sent = sends_at_once(&mut sender).await.expect("sent") as f64;
            let start = Instant::now();
            while bench.sum(READ) < sent {
                assert!(start.elapsed() < DEADLINE, "{sent} bytes are read");
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            () = all => {}
            () = turns => {}
        }
        assert!(most < (TURN + 32 * 1024) as f64, "{most} bytes in a turn");
    };
    LocalSet::new().run_until(test).await;
}
