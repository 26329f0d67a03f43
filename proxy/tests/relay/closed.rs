//! Closed ports of the application: what there is no route for is answered 404, the application never sees it, and what
//! settings say holds for connections that are open.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use weir_proxy::worker;

use super::closing::{Closing, below};
use super::http2::peer::{Client, Setup, finish, serving};
use super::proxy::{application, read_all, read_until, soon};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const NOT_FOUND: &[u8] =
    b"HTTP/1.1 404 Not Found\r\nproxy-status: weir; error=destination_not_found\r\n\
content-length: 0\r\nconnection: close\r\n\r\n";

type Heads = Arc<Mutex<Vec<String>>>;

/// An application that remembers the heads that it has seen, but for those of probes.
async fn remembering() -> (SocketAddr, Heads) {
    let seen = Heads::default();
    let heads = Arc::clone(&seen);
    let serve = move |mut stream: TcpStream| {
        let heads = Arc::clone(&heads);
        async move {
            loop {
                let head = read_until(&mut stream, b"\r\n\r\n").await;
                if head.is_empty() {
                    return;
                }
                let head = String::from_utf8(head).expect("text");
                if !head.contains("probe") {
                    heads.lock().expect("no panic").push(head);
                }
                if stream.write_all(OK).await.is_err() {
                    return;
                }
            }
        }
    };
    (application(serve).await, seen)
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: web\r\n\r\n")
}

async fn ask(client: &mut TcpStream, path: &str) {
    client
        .write_all(get(path).as_bytes())
        .await
        .expect("written");
    let answer = read_until(client, b"\r\n\r\nok").await;
    assert_eq!(
        String::from_utf8_lossy(&answer),
        String::from_utf8_lossy(OK),
        "{path}"
    );
}

#[tokio::test]
async fn what_there_is_no_route_for_is_answered_in_the_applications_place() {
    let (app, seen) = remembering().await;
    let closing = Closing::start(app, Some(&["/a", "/b"]));
    let mut client = closing.proxy.connect().await;
    ask(&mut client, "/a").await;
    // Several at a time: those before it are answered, nothing after it is looked at.
    let asked = [get("/b/x"), get("/c"), get("/a")].concat();
    client.write_all(asked.as_bytes()).await.expect("written");
    let answers = read_all(&mut client).await;
    assert_eq!(
        String::from_utf8_lossy(&answers),
        String::from_utf8_lossy(&[OK, NOT_FOUND].concat())
    );
    // One that sends nothing else.
    let mut other = closing.proxy.connect().await;
    other.write_all(get("/").as_bytes()).await.expect("written");
    assert_eq!(read_all(&mut other).await, NOT_FOUND);
    assert_eq!(*seen.lock().expect("no panic"), [get("/a"), get("/b/x")]);
    let proxy = &closing.proxy;
    let row = "direction=\"inbound\",authority=\"web\",srv_group=\"kuma.io\",srv_kind=\"dataplane\",srv_name=\"web\",\
               srv_port=\"80\",tls=\"no_identity\",no_tls_reason=\"no_tls_from_remote\"";
    let not_found = format!("inbound_http_route_not_found_total{{{row}}}");
    let found: Vec<_> = proxy.samples();
    let found = found.iter().find(|(series, _)| *series == not_found);
    assert_eq!(found.map(|(_, n)| *n), Some(2.0), "{not_found}");
    let of = |name| closing.of(name, "web");
    assert_eq!((of("request_total"), of("response_total")), (4.0, 4.0));
    let row = [
        "authority=\"web\"",
        "status_code=\"404\"",
        "classification=\"success\"",
        "error=\"\"",
    ];
    assert_eq!(proxy.sum("response_total", &row), 2.0);
    let routes = proxy
        .samples()
        .into_iter()
        .filter(|(series, _)| series.starts_with("route_"));
    assert_eq!(routes.count(), 0, "they are of the client's side");
    assert_eq!(proxy.sum("inbound_http_errors_total", &[]), 0.0);
}

#[tokio::test]
async fn a_change_holds_for_the_next_request_of_an_open_connection() {
    let (app, seen) = remembering().await;
    let closing = Closing::start(app, None);
    let mut kept = closing.proxy.connect().await;
    ask(&mut kept, "/c").await;
    closing.let_in(below(&["/a"])).await;
    let mut later = closing.proxy.connect().await;
    for client in [&mut kept, &mut later] {
        ask(client, "/a").await;
    }
    kept.write_all(get("/c").as_bytes()).await.expect("written");
    assert_eq!(read_all(&mut kept).await, NOT_FOUND);
    closing.let_in(None).await;
    ask(&mut later, "/c").await;
    assert_eq!(seen.lock().expect("no panic").len(), 4);
    assert_eq!(closing.of("inbound_http_route_not_found_total", "web"), 1.0);
}

#[tokio::test]
async fn a_body_of_what_there_is_no_route_for_goes_nowhere() {
    let (app, seen) = remembering().await;
    let closing = Closing::start(app, Some(&["/a"]));
    let mut client = closing.proxy.connect().await;
    let post = b"POST /c HTTP/1.1\r\nHost: web\r\nContent-Length: 100000\r\n\r\n";
    client.write_all(post).await.expect("written");
    client.write_all(&[b'x'; 1000]).await.expect("written");
    assert_eq!(read_until(&mut client, b"close\r\n\r\n").await, NOT_FOUND);
    drop(client);
    assert_eq!(closing.of("inbound_http_route_not_found_total", "web"), 1.0);
    closing
        .proxy
        .counts("tcp_open_connections", &["peer=\"src\""], 0.0)
        .await;
    assert!(seen.lock().expect("no panic").is_empty());
}

/// The relay has no paths to ask routes for.
#[tokio::test]
async fn http2_that_is_relayed_is_asked_to_leave_and_loses_nothing() {
    let closing = Closing::start(serving(Setup::default()).await, None);
    let proxy = &closing.proxy;
    let (mut idle, mut busy) = (
        Client::connect(proxy, Setup::default()).await,
        Client::connect(proxy, Setup::default()).await,
    );
    idle.call("/c", Bytes::new()).await.expect("an answer");
    let (response, send) = busy.begin("/trailers").await;
    proxy
        .counts("http2_active_streams", &["peer=\"dst\""], 1.0)
        .await;
    closing.let_in(below(&["/a"])).await;
    soon(idle.connection)
        .await
        .expect("it ends")
        .expect("in peace");
    let answer = finish(response, send, Bytes::from_static(b"late")).await;
    assert_eq!(answer.expect("an answer").body, b"late");
    soon(busy.connection)
        .await
        .expect("it ends")
        .expect("in peace");
    let mut next = Client::connect(proxy, Setup::default()).await;
    let answer = next.call("/c", Bytes::new()).await.expect("an answer");
    assert_eq!(answer.status, 404);
    assert_eq!(
        closing.of("inbound_http_route_not_found_total", "web.example"),
        1.0
    );
    proxy
        .counts("response_total", &["error=\"\"", "web.example"], 3.0)
        .await;
    assert_eq!(proxy.sum("weir_http_unparsed_total", &[]), 0.0);
}

#[tokio::test]
async fn what_cannot_be_read_as_a_request_does_not_pass() {
    let (app, seen) = remembering().await;
    let closing = Closing::start(app, Some(&["/a"]));
    // As the first request, and behind one that is let in.
    let h2c =
        "GET /a HTTP/1.1\r\nHost: web\r\nConnection: upgrade\r\nUpgrade: websocket, H2C\r\n\r\n";
    for unread in [
        "GET /b HTTP/1.1\r\nHost web\r\n\r\n",
        "GET /b HTTP/1.1\r\nHost:",
        "\nGET /b HTTP/1.1\r\nHost: web\r\n\r\n",
        "GET /b HTTP/1.1 \r\nHost: web\r\n\r\n",
        "GET /b",
        h2c,
    ] {
        for is_first in [true, false] {
            let mut client = closing.proxy.connect().await;
            if !is_first {
                ask(&mut client, "/a").await;
            }
            client.write_all(unread.as_bytes()).await.expect("written");
            client.shutdown().await.expect("half closed");
            let answer = read_all(&mut client).await;
            let answer = String::from_utf8_lossy(&answer);
            assert!(answer.starts_with("HTTP/1.1 400 "), "{unread:?}: {answer}");
        }
    }
    assert_eq!(*seen.lock().expect("no panic"), vec![get("/a"); 6],);
}

#[tokio::test]
async fn a_long_request_line_is_held_to_the_routes_as_any() {
    let (app, seen) = remembering().await;
    let closing = Closing::start(app, Some(&["/a"]));
    let long = format!("/b?x={}", "x".repeat(9 << 10));
    let mut client = closing.proxy.connect().await;
    client
        .write_all(get(&long).as_bytes())
        .await
        .expect("written");
    assert_eq!(read_all(&mut client).await, NOT_FOUND);
    assert!(seen.lock().expect("no panic").is_empty());
}

/// Empty lines may come before a request, and a method may be any word: both by themselves at first.
#[tokio::test]
async fn what_a_request_begins_with_does_not_let_it_pass() {
    for (before, rest) in [
        ("\r\n", "GET /b HTTP/1.1\r\nHost: web\r\n\r\n"),
        ("\n", "GET /b HTTP/1.1\r\nHost: web\r\n\r\n"),
        ("M-SEARCH /b HT", "TP/1.1\r\nHost: web\r\n\r\n"),
    ] {
        let (app, seen) = remembering().await;
        let closing = Closing::start(app, Some(&["/a"]));
        let mut client = closing.proxy.connect().await;
        client.write_all(before.as_bytes()).await.expect("written");
        let read = before.len() as f64;
        let of_client = ["peer=\"src\""];
        closing
            .proxy
            .counts("tcp_read_bytes_total", &of_client, read)
            .await;
        client.write_all(rest.as_bytes()).await.expect("written");
        let answer = read_all(&mut client).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 40"), "{before:?}: {answer}");
        assert!(seen.lock().expect("no panic").is_empty(), "{before:?}");
    }
}

/// Detection gives up on what does not come in time; the port does not.
#[tokio::test]
async fn a_request_line_that_is_late_does_not_pass() {
    let (app, seen) = remembering().await;
    let mut served = worker::Config::default();
    served.detect.timeout = Duration::from_millis(50);
    let closing = Closing::start_with(app, Some(&["/a"]), served);
    let mut client = closing.proxy.connect().await;
    client.write_all(b"GET /b HTTP/1.").await.expect("written");
    closing
        .proxy
        .counts("weir_http_detect_timeout_total", &[], 1.0)
        .await;
    client
        .write_all(b"1\r\nHost: web\r\n\r\n")
        .await
        .expect("written");
    assert_eq!(read_all(&mut client).await, NOT_FOUND);
    assert!(seen.lock().expect("no panic").is_empty());
}

#[tokio::test]
async fn what_follows_the_last_request_of_a_connection_goes_nowhere() {
    let (app, seen) = remembering().await;
    let closing = Closing::start(app, Some(&["/a"]));
    let mut client = closing.proxy.connect().await;
    let last = "GET /a HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n";
    let asked = [last, &get("/b")].concat();
    client.write_all(asked.as_bytes()).await.expect("written");
    let answer = read_until(&mut client, b"\r\n\r\nok").await;
    assert_eq!(answer, OK);
    client
        .write_all(get("/c").as_bytes())
        .await
        .expect("written");
    client.shutdown().await.expect("half closed");
    assert_eq!(read_all(&mut client).await, b"");
    assert_eq!(*seen.lock().expect("no panic"), [last]);
}
