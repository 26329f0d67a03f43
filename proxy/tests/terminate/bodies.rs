//! Heads, bodies and trailers: everything comes out as it went in, at the pace of who takes it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use h2::Reason;
use hyper::http::{HeaderMap, Method, Request, Response, StatusCode};
use tokio::sync::mpsc;
use weir_proxy::worker;

use super::both;
use super::peer::{Client, Setup, finish, write};
use super::proxy::{DEADLINE, Proxy, soon};
use super::service::{Asked, answering, by_streams, serve, two};
use super::wire::message;

/// Bytes that repeat late, so that a lost or doubled piece shows.
fn pattern(len: usize) -> Bytes {
    let byte = |i: usize| (i.wrapping_mul(31) ^ (i >> 8) ^ (i >> 16)) as u8;
    (0..len).map(byte).collect()
}

/// A service of two servers that answer in this way.
async fn two_that<F, S>(answer: S) -> Proxy
where
    S: Fn(Asked) -> F + Clone + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let endpoints = [
        ("a", answering(answer.clone()).await),
        ("b", answering(answer).await),
    ];
    serve(&endpoints, worker::Config::default())
}

#[tokio::test]
async fn answers_trailers_and_trailers_alone() {
    let proxy = two(Setup::default(), by_streams()).await;
    let mut client = Client::connect(&proxy, Setup::default()).await;
    both::calls_end_as_their_servers_say(&mut client).await;
    both::those_calls_are_counted(&proxy, "direction=\"outbound\"").await;
}

#[tokio::test]
async fn messages_are_counted_while_their_call_is_open() {
    let proxy = two(Setup::default(), by_streams()).await;
    let mut client = Client::connect(&proxy, Setup::default()).await;
    let grpc = [("content-type", "application/grpc")];
    let (response, mut send) = client.begin_with("/trailers", &grpc).await;
    for n in 1..=3u8 {
        send.send_data(message(1000).into(), false).expect("sent");
        let labels = ["authority=\"web.example\"", "kind=\"sent\""];
        proxy
            .counts("grpc_messages_total", &labels, f64::from(n))
            .await;
    }
    // Bytes, too, are counted as they pass.
    assert!(proxy.sum("tcp_read_bytes_total", &["peer=\"src\""]) >= 3000.0);
    proxy
        .counts("http2_active_streams", &["peer=\"dst\""], 1.0)
        .await;
    let answer = finish(response, send, Bytes::new()).await;
    assert_eq!(answer.expect("an answer").body.len(), 3015);
    proxy
        .counts("grpc_messages_total", &["kind=\"received\""], 3.0)
        .await;
}

#[tokio::test]
async fn large_bodies_pass_both_ways_byte_by_byte() {
    for window in [1000, 65_535, 1 << 20] {
        let setup = Setup {
            window,
            ..Setup::default()
        };
        let mut config = by_streams();
        config.terminate.window = 70_000;
        config.terminate.send_buffer = 10_000;
        let proxy = two(setup, config).await;
        let mut client = Client::connect(&proxy, setup).await;
        let len = if window == 1000 { 200_000 } else { 8_000_000 };
        let body = pattern(len);
        let answer = client.call("/echo", body.clone()).await.expect("an answer");
        assert!(answer.body == body, "{} bytes come back", answer.body.len());
        // What is read on one side is written on the other, but for the frames around it.
        let read = proxy.sum("tcp_read_bytes_total", &["peer=\"src\""]);
        assert!(read >= len as f64, "{read}");
    }
}

/// Answers with as much as is taken, and counts it.
async fn flood((_request, mut respond): Asked, sent: Arc<AtomicUsize>) {
    let Ok(mut send) = respond.send_response(Response::new(()), false) else {
        return;
    };
    while write(&mut send, Bytes::from_static(&[7; 8192])).await {
        sent.fetch_add(8192, Ordering::Relaxed);
    }
}

/// Waits until a count stands still; answers it.
async fn settled(count: &AtomicUsize) -> usize {
    let settle = async {
        loop {
            let before = count.load(Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(200)).await;
            if before > 0 && before == count.load(Ordering::Relaxed) {
                return before;
            }
        }
    };
    soon(settle).await
}

#[tokio::test]
async fn who_does_not_read_holds_up_its_server_and_nobody_else() {
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&sent);
    let proxy = two_that(move |asked: Asked| {
        let sent = Arc::clone(&counted);
        async move {
            match asked.0.uri().path() {
                "/flood" => flood(asked, sent).await,
                _ => {
                    let (_, mut respond) = asked;
                    let _sent = respond.send_response(Response::new(()), true);
                }
            }
        }
    })
    .await;
    let mut client = Client::connect(&proxy, Setup::default()).await;
    // The window of its connection would be used up by one: the rest waits in the proxy.
    let mut unread = Vec::new();
    for _ in 0..20 {
        let (response, _send) = client.begin("/flood").await;
        unread.push(soon(response).await.expect("a head"));
    }
    let held = settled(&sent).await;
    let config = weir_proxy::terminate::Config::default();
    let most = 20 * (config.window as usize + config.send_buffer + 8192) + 2 * 65_535;
    assert!(held <= most, "{held} of at most {most}");
    for _ in 0..20 {
        let answer = client.call("/plain", Bytes::new()).await;
        assert_eq!(answer.expect("an answer").status, 200);
    }
    let mut other = Client::connect(&proxy, Setup::default()).await;
    for _ in 0..20 {
        let answer = other.call("/plain", Bytes::new()).await;
        assert_eq!(answer.expect("an answer").status, 200);
    }
    // Once they are read they go on.
    let reading = unread.into_iter().map(|response| async move {
        let mut body = response.into_body();
        let mut read = 0;
        while read < 200_000 {
            let chunk = soon(body.data()).await.expect("data").expect("no error");
            let released = body.flow_control().release_capacity(chunk.len());
            released.expect("released");
            read += chunk.len();
        }
    });
    join_all(reading).await;
}

#[tokio::test]
async fn who_is_not_read_is_held_up_and_nobody_else() {
    let proxy = two(Setup::default(), by_streams()).await;
    let mut client = Client::connect(&proxy, Setup::default()).await;
    let sent = Arc::new(AtomicUsize::new(0));
    let mut uploads = Vec::new();
    for _ in 0..20 {
        let (response, mut send) = client.begin("/hang").await;
        let sent = Arc::clone(&sent);
        uploads.push(tokio::spawn(async move {
            let _response = response;
            while write(&mut send, Bytes::from_static(&[7; 8192])).await {
                sent.fetch_add(8192, Ordering::Relaxed);
            }
        }));
    }
    let held = settled(&sent).await;
    let config = weir_proxy::terminate::Config::default();
    let most = 20 * (config.window as usize + config.send_buffer + 2 * 8192 + 65_535);
    assert!(held <= most, "{held} of at most {most}");
    for _ in 0..20 {
        let answer = client.call("/only", Bytes::new()).await;
        assert_eq!(answer.expect("an answer").status, 200);
    }
    uploads.iter().for_each(tokio::task::JoinHandle::abort);
}

/// The smallest messages of gRPC, which wait for a server that takes 1000 bytes, and then for a client: as the bytes that
/// they are, however many.
#[tokio::test]
async fn small_messages_that_nobody_reads_yet_wait() {
    let setup = Setup {
        window: 1000,
        ..Setup::default()
    };
    let proxy = two(setup, by_streams()).await;
    let mut client = Client::connect(&proxy, setup).await;
    const SMALLEST: usize = 5;
    let body = pattern(12_000 * SMALLEST);
    let (response, mut send) = client.begin("/echo").await;
    for at in (0..body.len()).step_by(SMALLEST) {
        let message = body.slice(at..at + SMALLEST);
        send.send_data(message, false).expect("queued");
    }
    let framed = (12_000 * (9 + SMALLEST)) as f64;
    let come = async {
        while proxy.sum("tcp_read_bytes_total", &["peer=\"src\""]) < framed {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon(come).await;
    let answer = finish(response, send, Bytes::new()).await;
    assert!(answer.expect("an answer").body == body);
}

#[tokio::test]
async fn a_thousand_streams_at_a_time_are_told_apart() {
    let setup = Setup {
        most_streams: 1000,
        ..Setup::default()
    };
    let mut config = by_streams();
    config.terminate.max_streams = 1000;
    let proxy = two(setup, config).await;
    let mut client = Client::connect(&proxy, Setup::default()).await;
    client
        .call("/plain", Bytes::new())
        .await
        .expect("an answer");
    let mut open = Vec::new();
    for _ in 0..1000 {
        open.push(client.begin("/trailers").await);
    }
    for peer in ["peer=\"src\"", "peer=\"dst\""] {
        proxy.counts("http2_active_streams", &[peer], 1000.0).await;
    }
    let answers = open.into_iter().enumerate().map(|(n, (response, send))| {
        let body = pattern(1000 + n);
        async move { (finish(response, send, body.clone()).await, body) }
    });
    for (answer, body) in join_all(answers).await {
        assert!(answer.expect("an answer").body == body);
    }
    proxy
        .counts("response_total", &["grpc_status_code=\"0\""], 1000.0)
        .await;
    for pod in ["dst_pod=\"a\"", "dst_pod=\"b\""] {
        let count = proxy.sum("request_total", &[pod]);
        assert!((499.0..=502.0).contains(&count), "{pod}: {count}");
    }
    proxy.counts("http2_active_streams", &[], 0.0).await;
}

#[tokio::test]
async fn heads_pass_as_they_are() {
    let (seen, mut heads) = mpsc::unbounded_channel();
    let proxy = two_that(move |(request, mut respond): Asked| {
        let seen = seen.clone();
        async move {
            let (head, _) = request.into_parts();
            seen.send(head).expect("the test listens");
            let response = Response::builder()
                .status(StatusCode::IM_A_TEAPOT)
                .header("set-cookie", "a=1")
                .header("x-two", "2")
                .header("set-cookie", "b=2")
                .header("content-length", "5")
                .body(());
            let _sent = respond.send_response(response.expect("a response"), true);
        }
    })
    .await;
    let mut client = Client::connect(&proxy, Setup::default()).await;
    let large = "l".repeat(40_000);
    for (method, uri) in [
        (Method::HEAD, "http://Web.Example:8080/a/%20b?c=d&e"),
        (Method::OPTIONS, "https://web.example/*"),
        (
            Method::from_bytes(b"PURGE").expect("a token"),
            "http://u@w/",
        ),
    ] {
        let mut request = Request::builder().method(method.clone()).uri(uri);
        for (name, value) in [
            ("te", "trailers"),
            ("cookie", "a=1"),
            ("x-large", &large),
            ("cookie", "b=2"),
            ("x-empty", ""),
        ] {
            request = request.header(name, value);
        }
        let request = request.body(()).expect("a request");
        let fields = request.headers().clone();
        let (response, _send) = client.sender.send_request(request, true).expect("sent");
        let response = soon(response).await;
        let head = soon(heads.recv()).await.expect("a head");
        assert_eq!(
            (head.method.clone(), head.uri.to_string()),
            (method.clone(), uri.to_owned())
        );
        assert_eq!(head.headers, fields);
        if method == Method::HEAD {
            let response = response.expect("an answer");
            assert_eq!(response.status(), StatusCode::IM_A_TEAPOT);
            let cookies: Vec<_> = response.headers().get_all("set-cookie").iter().collect();
            assert_eq!(cookies, ["a=1", "b=2"]);
        } else {
            // Five bytes that never come (RFC 9113 section 8.1.1).
            assert_eq!(
                response.expect("an answer").status(),
                StatusCode::BAD_GATEWAY
            );
        }
    }
}

#[tokio::test]
async fn interim_responses_pass_before_the_final_one() {
    let proxy = two_that(|(_request, mut respond): Asked| async move {
        for status in [100, 103] {
            let interim = Response::builder().status(status).header("link", "</a>");
            let interim = interim.body(()).expect("a response");
            respond.send_informational(interim).expect("sent");
        }
        let _sent = respond.send_response(Response::new(()), true);
    })
    .await;
    let mut client = Client::connect(&proxy, Setup::default()).await;
    let (mut response, _send) = client.begin("/").await;
    for status in [100, 103] {
        let interim = std::future::poll_fn(|cx| response.poll_informational(cx));
        let interim = soon(interim).await.expect("one more").expect("no error");
        assert_eq!(interim.status(), status);
        assert_eq!(interim.headers()["link"], "</a>");
    }
    assert_eq!(soon(response).await.expect("an answer").status(), 200);
    proxy
        .counts("response_total", &["status_code=\"200\""], 1.0)
        .await;
    proxy.counts("response_latency_ms_count", &[], 1.0).await;
    assert_eq!(proxy.sum("response_total", &[]), 1.0);
}

#[tokio::test]
async fn an_answer_may_come_before_its_request_is_whole() {
    let proxy = two_that(|(request, mut respond): Asked| async move {
        let mut send = respond
            .send_response(Response::new(()), false)
            .expect("sent");
        write(&mut send, pattern(200_000)).await;
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "8".parse().expect("a value"));
        send.send_trailers(trailers).expect("sent");
        // Dropped unread: the server has heard enough.
        drop(request);
    })
    .await;
    let mut client = Client::connect(&proxy, Setup::default()).await;
    let (response, mut send) = client.begin("/").await;
    send.send_data(Bytes::from_static(b"some"), false)
        .expect("sent");
    let mut body = soon(response).await.expect("a head").into_body();
    let mut bytes = Vec::new();
    while let Some(chunk) = soon(body.data()).await {
        let chunk = chunk.expect("all of it");
        body.flow_control()
            .release_capacity(chunk.len())
            .expect("released");
        bytes.extend(chunk);
    }
    assert!(bytes == pattern(200_000), "{} bytes", bytes.len());
    let trailers = soon(body.trailers()).await.expect("no error");
    assert_eq!(trailers.expect("trailers")["grpc-status"], "8");
    let reset = std::future::poll_fn(|cx| send.poll_reset(cx));
    assert_eq!(soon(reset).await.expect("a reset"), Reason::NO_ERROR);
    let row = [
        "status_code=\"200\"",
        "grpc_status_code=\"8\"",
        "error=\"\"",
    ];
    proxy.counts("response_total", &row, 1.0).await;
    proxy.counts("http2_active_streams", &[], 0.0).await;
}

#[tokio::test]
async fn every_byte_of_both_sockets_is_counted() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::wire::{END_STREAM, acknowledgement, goaway, headers, hello};

    let proxy = two(Setup::default(), by_streams()).await;
    let mut client = proxy.connect().await;
    let get = headers(
        1,
        END_STREAM,
        &[
            (":method", "GET"),
            (":scheme", "http"),
            (":path", "/only"),
            (":authority", "web"),
        ],
    );
    let sent = [hello(), acknowledgement(), get, goaway(0, 0)].concat();
    // In two pieces: one that detection reads, and one that it does not.
    client.write_all(&sent[..30]).await.expect("written");
    tokio::time::sleep(Duration::from_millis(20)).await;
    client.write_all(&sent[30..]).await.expect("written");
    let mut answer = Vec::new();
    let read = client.read_to_end(&mut answer);
    tokio::time::timeout(DEADLINE, read)
        .await
        .expect("in time")
        .expect("a close");
    let src = ["peer=\"src\""];
    proxy
        .counts("tcp_read_bytes_total", &src, sent.len() as f64)
        .await;
    proxy
        .counts("tcp_write_bytes_total", &src, answer.len() as f64)
        .await;
    proxy
        .counts(
            "tcp_close_total",
            &["peer=\"src\"", "classification=\"success\""],
            1.0,
        )
        .await;
    assert!(proxy.sum("tcp_write_bytes_total", &["peer=\"dst\""]) > 24.0);
}
