//! What linkerd2-proxy's own tests of its metrics hold, by their numbers in `linkerd-metrics.md`, section 7.
//!
//! Here: 3-10, 16-33, 52. In other places: 11-13 and 51 are rows of `http1` (the labels `dst_*`, an endpoint that
//! dies), 40 one of `errors`, 49 and 50 are of `routed`, 34 is `admin`'s. Of the directory above this one: 14 and 15 are
//! in `relay/balance.rs`, 37 and 38 in `mtls/refused.rs`, 47 and 48 in `relay/retried.rs` and `terminate/routes.rs`. 53 is
//! in `src/admin/tests/secured.rs`. The admin port's own traffic, 1 and 2, is deliberately in no family. Not Weir's: 39 and
//! 41, for it has no port where only proxies connect; 35, 36 and 42-46 are Linkerd's endpoints for its environment and logs.

use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use weir_proxy::exchange::End;
use weir_proxy::http1::session::Session;
use weir_proxy::record::{Book, HttpLedger, Labels, Subject};
use weir_proxy::telemetry::{self, Selection};

use super::bench::{Bench, Way, listener};
use super::exposition::Scrape;
use super::http1::GET;
use super::rows::read_until;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const HEAD_END: &[u8] = b"\r\n\r\n";

/// A bench whose application answers each request head in turn with one of these, and then begins again.
async fn answering(way: Way, answers: Vec<String>) -> Bench {
    let listener = listener().await;
    let addr = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        let mut answers = answers.into_iter().cycle();
        while let Ok((stream, _)) = listener.accept().await {
            answer(stream, &mut answers).await;
        }
    });
    Bench::start(way, addr).await
}

/// Answers until the client closes.
async fn answer(mut stream: TcpStream, answers: &mut impl Iterator<Item = String>) {
    let mut bytes = Vec::new();
    while stream.read_buf(&mut bytes).await.is_ok_and(|n| n > 0) {
        if bytes.ends_with(HEAD_END) {
            bytes.clear();
            let answer = answers.next().expect("a cycle");
            stream.write_all(answer.as_bytes()).await.expect("written");
        }
    }
}

async fn get(client: &mut TcpStream, end: &[u8]) {
    client.write_all(GET.as_bytes()).await.expect("written");
    read_until(client, end).await;
}

/// 3-6: a request and its answer are absent before they are there, and counted once then.
#[tokio::test]
async fn requests_and_responses_appear_when_they_happen() {
    for way in Way::BOTH {
        let bench = answering(way, vec![OK.to_owned()]).await;
        assert_eq!(bench.changed().await, []);
        get(&mut bench.connect().await, b"ok").await;
        let direction = [("direction", way.name())];
        bench.counts("request_total", &direction, 1.0).await;
        bench.counts("response_total", &direction, 1.0).await;
    }
}

/// 7, 8: each status has its series, and only 5xx is a failure.
#[tokio::test]
async fn statuses_are_classified() {
    let statuses = [200, 304, 400, 418, 504, 500];
    for way in Way::BOTH {
        let answers = statuses.map(|s| format!("HTTP/1.1 {s} X\r\nContent-Length: 0\r\n\r\n"));
        let bench = answering(way, answers.to_vec()).await;
        let mut client = bench.connect().await;
        for status in statuses {
            get(&mut client, HEAD_END).await;
            let class = if status < 500 { "success" } else { "failure" };
            let status = status.to_string();
            let labels = [("status_code", &*status), ("classification", class)];
            bench.counts("response_total", &labels, 1.0).await;
            bench
                .counts("response_latency_ms_count", &labels[..1], 1.0)
                .await;
        }
        bench.counts("response_total", &[], 6.0).await;
    }
}

/// 9, 10: latencies fall into the buckets of their milliseconds. The session is told the time.
#[test]
fn latencies_fall_into_their_buckets() {
    let (telemetry, mut seats) = telemetry::new(telemetry::Config::default(), 1);
    let labels = Rc::new(Labels::new("all-unauthenticated"));
    let mut session = Session::new(HttpLedger::new(Book {
        recorder: Rc::new(seats.remove(0).take()),
        subject: Subject::Inbound {
            server: labels.default_server(80),
        },
        labels,
        target_port: 80,
        standing: Default::default(),
    }));
    let mut now = Instant::now();
    // The head comes at once, the first data late: the latency is that of the data.
    let (head, data) = OK.split_at(OK.len() - 2);
    for (milliseconds, up_to_50, up_to_1000) in [
        (500, 0.0, 1.0),
        (40, 1.0, 2.0),
        (40, 2.0, 3.0),
        (500, 2.0, 4.0),
    ] {
        session.request_bytes(GET.as_bytes(), now);
        session.response_bytes(head.as_bytes(), now);
        now += Duration::from_millis(milliseconds);
        session.response_bytes(data.as_bytes(), now);
        let mut body = Vec::new();
        telemetry
            .expose(&Selection::default(), &mut body)
            .expect("a vector takes all");
        let scrape = Scrape::parse(&String::from_utf8(body).expect("text")).expect("an exposition");
        let bucket = |le| scrape.sum("response_latency_ms_bucket", &[("le", le)]);
        assert_eq!((bucket("50"), bucket("1000")), (up_to_50, up_to_1000));
        assert_eq!((bucket("30"), bucket("+Inf")), (0.0, up_to_1000));
        assert_eq!(scrape.sum("response_latency_ms_count", &[]), up_to_1000);
    }
    session.end_all(now, End::Complete);
}

/// 16, 17: no empty place between two labels, and a start time.
#[tokio::test]
async fn the_exposition_is_well_formed_before_and_after_traffic() {
    for way in Way::BOTH {
        let bench = answering(way, vec![OK.to_owned()]).await;
        for _ in 0..2 {
            let scrape = bench.scrape().await;
            let is_full = |name: &String| !name.is_empty();
            assert!(
                scrape
                    .0
                    .iter()
                    .all(|series| series.order.iter().all(is_full))
            );
            assert!(scrape.sum("process_start_time_seconds", &[]) > 1e9);
            get(&mut bench.connect().await, b"ok").await;
        }
    }
}

/// 18-21: each client connection counts at both peers, once however many requests it carries.
#[tokio::test]
async fn http_connections_are_counted_one_for_one() {
    for way in Way::BOTH {
        let bench = answering(way, vec![OK.to_owned()]).await;
        for count in [1.0, 2.0] {
            let mut client = bench.connect().await;
            get(&mut client, b"ok").await;
            get(&mut client, b"ok").await;
            bench
                .counts("tcp_open_total", &[("peer", "dst")], count)
                .await;
            drop(client);
            for peer in ["src", "dst"] {
                bench
                    .counts("tcp_open_total", &[("peer", peer)], count)
                    .await;
                let closed = [("peer", peer), ("errno", ""), ("classification", "success")];
                bench.counts("tcp_close_total", &closed, count).await;
            }
        }
        bench.counts("request_total", &[], 4.0).await;
    }
}

/// 22-33: bytes and gauges of a raw exchange, twice, while the connection is open and after.
#[tokio::test]
async fn raw_connections_count_bytes_and_open_connections() {
    const UP: &[u8] = b"\x01custom tcp hello";
    const DOWN: &[u8] = b"custom tcp bye";
    for way in Way::BOTH {
        let listener = listener().await;
        let bench = Bench::start(way, listener.local_addr().expect("an address")).await;
        for count in [1.0, 2.0] {
            let mut client = bench.connect().await;
            client.write_all(UP).await.expect("written");
            let (mut application, _) = listener.accept().await.expect("dialed");
            read_until(&mut application, UP).await;
            application.write_all(DOWN).await.expect("written");
            read_until(&mut client, DOWN).await;
            for (name, peer, bytes) in [
                ("tcp_read_bytes_total", "src", UP),
                ("tcp_write_bytes_total", "src", DOWN),
                ("tcp_read_bytes_total", "dst", DOWN),
                ("tcp_write_bytes_total", "dst", UP),
            ] {
                let expected = bytes.len() as f64 * count;
                bench.counts(name, &[("peer", peer)], expected).await;
            }
            bench.counts("tcp_open_connections", &[], 2.0).await;
            bench
                .counts("tcp_open_total", &[("peer", "src")], count)
                .await;
            drop((client, application));
            bench.counts("tcp_open_connections", &[], 0.0).await;
            bench
                .counts("tcp_close_total", &[("errno", "")], 2.0 * count)
                .await;
        }
    }
}

/// 52: a connection counts as accepted even where nothing can be dialed for it; the next one is served.
#[tokio::test]
async fn an_application_that_comes_later_is_found() {
    for way in Way::BOTH {
        let addr = crate::ports::free();
        let bench = Bench::start(way, addr).await;
        get(&mut bench.connect().await, HEAD_END).await;
        bench
            .counts("tcp_open_total", &[("peer", "src")], 1.0)
            .await;
        bench
            .counts("tcp_open_total", &[("peer", "dst")], 0.0)
            .await;
        let listener = tokio::net::TcpListener::bind(addr)
            .await
            .expect("the port is still free");
        tokio::spawn(async move {
            let mut answers = std::iter::repeat(OK.to_owned());
            while let Ok((stream, _)) = listener.accept().await {
                answer(stream, &mut answers).await;
            }
        });
        get(&mut bench.connect().await, b"ok").await;
        bench
            .counts("response_total", &[("status_code", "200")], 1.0)
            .await;
    }
}

/// The page updates byte counters when a connection closes; ours move while a long stream is open.
#[tokio::test]
async fn bytes_of_long_answers_and_of_tunnels_move_while_they_are_open() {
    const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n";
    const STREAM: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let request = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n";
    for (way, head) in Way::BOTH
        .into_iter()
        .flat_map(|way| [(way, SWITCH), (way, STREAM)])
    {
        let listener = listener().await;
        let bench = Bench::start(way, listener.local_addr().expect("an address")).await;
        let mut client = bench.connect().await;
        client.write_all(request.as_bytes()).await.expect("written");
        let (mut application, _) = listener.accept().await.expect("dialed");
        read_until(&mut application, HEAD_END).await;
        let piece = "5\r\nevent\r\n";
        application
            .write_all(head.as_bytes())
            .await
            .expect("written");
        for count in 1..=3 {
            application
                .write_all(piece.as_bytes())
                .await
                .expect("written");
            let bytes = (head.len() + count * piece.len()) as f64;
            bench
                .counts("tcp_read_bytes_total", &[("peer", "dst")], bytes)
                .await;
            bench
                .counts("tcp_write_bytes_total", &[("peer", "src")], bytes)
                .await;
        }
        bench.counts("request_total", &[], 1.0).await;
        bench.counts("response_latency_ms_count", &[], 1.0).await;
        bench.counts("response_total", &[], 0.0).await;
        bench.counts("tcp_close_total", &[], 0.0).await;
        bench
            .counts("tcp_connection_duration_ms_count", &[], 0.0)
            .await;
        drop((client, application));
        bench.counts("response_total", &[], 1.0).await;
        bench
            .counts("tcp_connection_duration_ms_count", &[], 2.0)
            .await;
    }
}

/// The duration is the connection's lifetime: no less than what passed while it was open, no more than the test took.
#[tokio::test]
async fn durations_are_lifetimes_in_milliseconds() {
    for way in Way::BOTH {
        let bench = answering(way, vec![OK.to_owned()]).await;
        let begun = Instant::now();
        let mut client = bench.connect().await;
        get(&mut client, b"ok").await;
        let opened = Instant::now();
        bench.counts("tcp_open_connections", &[], 2.0).await;
        while opened.elapsed() < Duration::from_millis(20) {
            get(&mut client, b"ok").await;
        }
        let at_least = opened.elapsed().as_secs_f64() * 1000.0;
        drop(client);
        bench
            .counts("tcp_connection_duration_ms_count", &[("peer", "src")], 1.0)
            .await;
        let at_most = begun.elapsed().as_secs_f64() * 1000.0;
        let scrape = bench.scrape().await;
        let sum = scrape.sum("tcp_connection_duration_ms_sum", &[("peer", "src")]);
        assert!(
            (at_least - 1.0..=at_most).contains(&sum),
            "{at_least} <= {sum} <= {at_most}"
        );
        let bucket = [("peer", "src"), ("le", "10")];
        assert_eq!(
            scrape.sum("tcp_connection_duration_ms_bucket", &bucket),
            0.0
        );
    }
}
