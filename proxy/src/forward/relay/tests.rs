//! The relay polled by hand: what one poll may do.

use std::future::{Future, poll_fn};
use std::io::{Read, Write};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Instant;

use super::{Pair, TURNS, relay};
use crate::activity::{Activity, Gauge};
use crate::buffer::{Flow, LARGE, Pool};
use crate::record::{Book, Labels, Subject};
use crate::telemetry::{self, Direction, Selection, Telemetry};

/// A socket of the proxy and its peer.
fn sockets() -> (tokio::net::TcpStream, std::net::TcpStream) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("an address");
    let peer = std::net::TcpStream::connect(addr).expect("it listens");
    let (ours, _) = listener.accept().expect("a connection");
    ours.set_nonblocking(true).expect("a socket option");
    let ours = tokio::net::TcpStream::from_std(ours).expect("a runtime");
    (ours, peer)
}

fn written(telemetry: &Telemetry) -> usize {
    let mut body = Vec::new();
    telemetry
        .expose(&Selection::default(), &mut body)
        .expect("a vector takes all");
    let body = String::from_utf8(body).expect("text");
    let samples = body
        .lines()
        .filter(|line| line.starts_with("tcp_write_bytes_total{"));
    let values = samples.filter_map(|line| line.rsplit_once(' ')?.1.parse::<usize>().ok());
    values.sum()
}

#[tokio::test]
async fn a_busy_connection_leaves_the_others_their_turn() {
    let (telemetry, mut seats) = telemetry::new(telemetry::Config::default(), 1);
    let labels = Rc::new(Labels::new("all-unauthenticated"));
    let book = Book {
        recorder: Rc::new(seats.remove(0).take()),
        subject: Subject::Inbound {
            server: labels.default_server(80),
        },
        labels,
        target_port: 80,
    };
    let ((client, mut reader), (server, mut writer)) = (sockets(), sockets());
    let pair = Pair {
        client,
        server,
        claim: None,
        accepted: book.accepted(Instant::now()),
        dialed: book.dialed(Instant::now()),
        up: Flow::default(),
        down: Flow::default(),
        session: None,
        direction: Direction::Inbound,
    };
    let write = std::thread::spawn(move || while writer.write_all(&[7; 1 << 20]).is_ok() {});
    let read = std::thread::spawn(move || {
        let mut space = vec![0; 1 << 20];
        while reader.read(&mut space).is_ok_and(|n| n > 0) {}
    });
    let pool = Pool::default();
    {
        let mut relaying = pin!(relay(pair, &pool, Activity::new(Gauge::default()).begin()));
        let (start, mut total) = (Instant::now(), 0);
        while total < 64 << 20 {
            assert!(start.elapsed().as_secs() < 20, "{total} bytes so far");
            poll_fn(|cx| Poll::Ready(relaying.as_mut().poll(cx).is_ready())).await;
            let moved = written(&telemetry) - total;
            assert!(moved <= TURNS * LARGE, "{moved} bytes in one poll");
            total += moved;
            tokio::task::yield_now().await;
        }
    }
    write.join().expect("a writer");
    read.join().expect("a reader");
}
