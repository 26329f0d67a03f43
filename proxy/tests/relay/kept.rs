//! Kept connections: pipelined requests, answers that come before their request has ended, and long silences.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use weir_proxy::activity::{Activity, Gauge};
use weir_proxy::buffer::{Flow, Pool};
use weir_proxy::forward::relay::{Pair, relay};
use weir_proxy::record::HttpLedger;
use weir_proxy::session::Session;
use weir_proxy::telemetry::Direction;

use super::book;
use super::proxy::{Proxy, answer_heads, application, read_until};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: web\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[tokio::test]
async fn pipelined_requests_are_answered_in_order_and_each_is_counted() {
    let serve = |mut stream: TcpStream| async move {
        read_until(&mut stream, b"third\r\n\r\n").await;
        for status in [200, 404, 503] {
            let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: 3\r\n\r\n{status}");
            stream.write_all(answer.as_bytes()).await.expect("written");
        }
        let _held = stream.read(&mut [0]).await;
    };
    let proxy = Proxy::inbound(application(serve).await);
    let mut client = proxy.connect().await;
    let requests =
        ["first", "second", "third"].map(|x| format!("GET / HTTP/1.1\r\nX: {x}\r\n\r\n"));
    client
        .write_all(requests.concat().as_bytes())
        .await
        .expect("written");
    let answers = String::from_utf8(read_until(&mut client, b"503").await).expect("text");
    assert!(answers.starts_with("HTTP/1.1 200 "), "{answers}");
    proxy.counts("request_total", &[], 3.0).await;
    for status in ["200", "404", "503"] {
        let label = format!("status_code=\"{status}\"");
        proxy.counts("response_total", &[&label], 1.0).await;
    }
}

#[tokio::test]
async fn an_early_answer_leaves_the_connection_to_the_next_request() {
    let serve = |mut stream: TcpStream| async move {
        read_until(&mut stream, b"some").await;
        stream.write_all(OK).await.expect("written");
        read_until(&mut stream, b"more").await;
        answer_heads(stream, OK).await;
    };
    let proxy = Proxy::inbound(application(serve).await);
    let mut client = proxy.connect().await;
    client
        .write_all(b"POST / HTTP/1.1\r\nContent-Length: 8\r\n\r\nsome")
        .await
        .expect("written");
    assert_eq!(read_until(&mut client, b"ok").await, OK);
    proxy.counts("response_total", &["error=\"\""], 1.0).await;
    client.write_all(b"more").await.expect("written");
    client.write_all(GET).await.expect("written");
    assert_eq!(read_until(&mut client, b"ok").await, OK);
    proxy.counts("response_total", &["error=\"\""], 2.0).await;
}

#[tokio::test]
async fn a_flood_of_interim_answers_passes_and_is_no_answer() {
    const INTERIM: &[u8] = b"HTTP/1.1 102 Processing\r\n\r\n";
    const FLOOD: usize = 5_000;
    let serve = |mut stream: TcpStream| async move {
        read_until(&mut stream, b"\r\n\r\n").await;
        stream
            .write_all(&INTERIM.repeat(FLOOD))
            .await
            .expect("written");
        stream.write_all(OK).await.expect("written");
        let _held = stream.read(&mut [0]).await;
    };
    let proxy = Proxy::inbound(application(serve).await);
    let mut client = proxy.connect().await;
    client.write_all(GET).await.expect("written");
    let answer = read_until(&mut client, b"ok").await;
    assert_eq!(answer.len(), INTERIM.len() * FLOOD + OK.len());
    proxy
        .counts("response_total", &["status_code=\"200\""], 1.0)
        .await;
    proxy.counts("response_total", &[], 1.0).await;
}

/// A socket of the proxy and its peer.
async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("an address");
    let (peer, ours) = tokio::join!(TcpStream::connect(addr), listener.accept());
    (ours.expect("accepted").0, peer.expect("connected"))
}

async fn exchange(client: &mut TcpStream, server: &mut TcpStream, bytes: (&[u8], &[u8])) {
    let mut space = [0; 256];
    client.write_all(bytes.0).await.expect("written");
    server
        .read_exact(&mut space[..bytes.0.len()])
        .await
        .expect("it passes");
    server.write_all(bytes.1).await.expect("written");
    client
        .read_exact(&mut space[..bytes.1.len()])
        .await
        .expect("it passes");
}

/// A scraper comes every minute, a pool keeps its connections for hours: whoever closes, it is not the proxy.
#[tokio::test(start_paused = true)]
async fn the_proxy_closes_no_idle_connection_by_itself() {
    for is_http in [true, false] {
        let (_telemetry, book) = book::inbound();
        let ((ours, mut client), (other, mut server)) = (sockets().await, sockets().await);
        let pair = Pair {
            client: ours.into(),
            server: other.into(),
            claim: None,
            accepted: book.accepted(Instant::now()),
            dialed: book.dialed(Instant::now()),
            up: Flow::default(),
            down: Flow::default(),
            session: is_http.then(|| Session::http1(HttpLedger::new(book.clone()))),
            direction: Direction::Inbound,
            held: None,
            lost: None,
        };
        let pool = Pool::default();
        let busy = Activity::new(Gauge::default()).begin();
        let talk = async {
            for minutes in [0, 1, 5, 60, 24 * 60] {
                tokio::time::sleep(Duration::from_secs(60 * minutes)).await;
                exchange(&mut client, &mut server, (GET, OK)).await;
            }
            drop((client, server));
        };
        tokio::join!(relay(pair, &pool, busy), talk);
    }
}
