//! HTTP/1 to a service with routes: each request is counted under its route, may take as long as that says, and is
//! answered 404 where the service answers no others. The bytes are those that were sent.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use weir_crds::routes::{Condition, Route, RouteTable, Text};
use weir_proxy::endpoints::{Listed, Service};
use weir_proxy::routes::compile;
use weir_proxy::telemetry::Dst;
use weir_proxy::worker;

use super::deaf::deaf;
use super::proxy::{Proxy, application, nobody, read_all, read_until};
use super::routed::{below, classed, expected, series, table, timed, unsent};

const LATE: &[u8] =
    b"HTTP/1.1 504 Gateway Timeout\r\nproxy-status: weir; error=http_response_timeout\r\n\
content-length: 0\r\nconnection: close\r\n\r\n";
const NOT_FOUND: &[u8] =
    b"HTTP/1.1 404 Not Found\r\nproxy-status: weir; error=destination_not_found\r\n\
content-length: 0\r\nconnection: close\r\n\r\n";
const NO_BACKEND: &[u8] =
    b"HTTP/1.1 500 Internal Server Error\r\nproxy-status: weir; error=destination_not_found\r\n\
content-length: 0\r\nconnection: close\r\n\r\n";

fn web(endpoints: &[SocketAddr], table: &RouteTable) -> Service {
    let listed = |addr: &SocketAddr| Listed::plain(*addr, Dst::new([("service", "web")]));
    Service {
        name: "web".to_owned(),
        endpoints: endpoints.iter().map(listed).collect(),
        routes: Some(Arc::new(compile(table).expect("a table"))),
        ..Service::default()
    }
}

fn routed(endpoint: SocketAddr, table: &RouteTable) -> Proxy {
    Proxy::start_service(web(&[endpoint], table), worker::Config::default())
}

/// Answers each head with what its path says, and hangs where that is `/hang`.
async fn answer(mut stream: TcpStream) {
    loop {
        let head = read_until(&mut stream, b"\r\n\r\n").await;
        let head = String::from_utf8(head).expect("text");
        let Some(status) = head
            .split([' ', '?'])
            .nth(1)
            .and_then(|path| path.rsplit('/').next())
        else {
            return;
        };
        if status == "hang" {
            std::future::pending::<()>().await;
        }
        let answer = format!(
            "HTTP/1.1 {status} X\r\nx: {}\r\ncontent-length: 2\r\n\r\nok",
            head.len()
        );
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// One exchange: the answer is exactly what the application gave.
async fn ask(client: &mut TcpStream, path: &str, status: u16) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: web\r\nX-Odd:  kept \r\n\r\n");
    client.write_all(request.as_bytes()).await.expect("written");
    let answer = read_until(client, b"\r\n\r\nok").await;
    let expected = format!(
        "HTTP/1.1 {status} X\r\nx: {}\r\ncontent-length: 2\r\n\r\nok",
        request.len()
    );
    assert_eq!(String::from_utf8(answer).expect("text"), expected, "{path}");
}

#[tokio::test]
async fn each_request_of_a_connection_is_counted_under_its_route() {
    let routes = vec![timed(classed(below("/a")), 60_000), below("/b")];
    let proxy = routed(application(answer).await, &table(routes));
    let mut client = proxy.connect().await;
    for (path, status) in [
        ("/a/200", 200),
        ("/a/404?x", 404),
        ("/b/404", 404),
        ("/a/500", 500),
        ("/b/500", 500),
        ("/c/200", 200),
        ("/c/500", 500),
    ] {
        ask(&mut client, path, status).await;
    }
    proxy
        .counts("response_total", &["authority=\"web\""], 7.0)
        .await;
    let rows: [(&str, &[_]); 3] = [
        (
            "below /a",
            &[
                ("success", 200, "", 1.0),
                ("failure", 404, "", 1.0),
                ("success", 500, "", 1.0),
            ],
        ),
        (
            "below /b",
            &[("success", 404, "", 1.0), ("failure", 500, "", 1.0)],
        ),
        ("", &[("success", 200, "", 1.0), ("failure", 500, "", 1.0)]),
    ];
    assert_eq!(series(&proxy), expected(&rows));
    // The classes decide here, too.
    for (class, status, n) in [
        ("failure", 404, 1.0),
        ("success", 404, 1.0),
        ("success", 500, 1.0),
        ("failure", 500, 2.0),
    ] {
        let row = [
            format!("status_code=\"{status}\""),
            format!("classification=\"{class}\""),
        ];
        let found = proxy.sum("response_total", &[&row[0], &row[1], "authority=\"web\""]);
        assert_eq!(found, n, "{class} {status}");
    }
}

#[tokio::test]
async fn a_response_that_is_late_is_answered_in_its_place() {
    let routes = vec![timed(below("/a"), 50)];
    let proxy = routed(application(answer).await, &table(routes));
    // One that has sent all that it will, and one that goes on.
    for ends in [false, true] {
        let mut client = proxy.connect().await;
        let request = b"GET /a/hang HTTP/1.1\r\nhost: web\r\n\r\n";
        client.write_all(request).await.expect("written");
        if ends {
            client.shutdown().await.expect("half closed");
        }
        assert_eq!(read_all(&mut client).await, LATE);
    }
    let rows: [(&str, &[_]); 1] = [("below /a", &[("failure", 504, "timeout", 2.0)])];
    proxy.counts("route_response_total", &[], 2.0).await;
    assert_eq!(series(&proxy), expected(&rows));
    let row = [
        "status_code=\"504\"",
        "classification=\"failure\"",
        "error=\"timeout\"",
        "authority=\"web\"",
    ];
    proxy.counts("response_total", &row, 2.0).await;
    proxy
        .counts("outbound_http_errors_total", &["error=\"timeout\""], 2.0)
        .await;
}

#[tokio::test]
async fn a_connection_that_is_late_counts_for_the_timeout() {
    let (addr, _held) = deaf();
    let routes = vec![timed(below("/"), 50)];
    let proxy = routed(addr, &table(routes));
    let mut client = proxy.connect().await;
    let request = b"GET / HTTP/1.1\r\nhost: web\r\n\r\n";
    client.write_all(request).await.expect("written");
    assert_eq!(read_all(&mut client).await, LATE);
    let rows: [(&str, &[_]); 1] = [("below /", &[("failure", 504, "timeout", 1.0)])];
    proxy.counts("route_response_total", &[], 1.0).await;
    assert_eq!(series(&proxy), expected(&rows));
}

#[tokio::test]
async fn what_is_of_no_route_of_a_closed_table_is_404_and_nobody_is_dialed() {
    let closed = RouteTable {
        closed: true,
        ..table(vec![below("/a")])
    };
    let proxy = routed(nobody(), &closed);
    let mut client = proxy.connect().await;
    let request = b"GET /b HTTP/1.1\r\nhost: web\r\n\r\n";
    client.write_all(request).await.expect("written");
    assert_eq!(read_all(&mut client).await, NOT_FOUND);
    let rows: [(&str, &[_]); 1] = [("", &[("success", 404, "", 1.0)])];
    proxy.counts("route_response_total", &[], 1.0).await;
    assert_eq!(series(&proxy), unsent(&rows));
    assert_eq!(proxy.sum("tcp_open_total", &["peer=\"dst\""]), 0.0);
    assert_eq!(proxy.sum("outbound_tcp_errors_total", &[]), 0.0);
    // Behind one that was answered, on the same connection.
    let proxy = routed(application(answer).await, &closed);
    let mut client = proxy.connect().await;
    ask(&mut client, "/a/200", 200).await;
    client.write_all(request).await.expect("written");
    assert_eq!(read_all(&mut client).await, NOT_FOUND);
}

#[tokio::test]
async fn a_route_to_backends_that_are_not_there_is_500_and_nobody_is_dialed() {
    let gone = Route {
        missing: 1,
        ..below("/a")
    };
    let routes = table(vec![gone, below("/")]);
    let proxy = routed(nobody(), &routes);
    let mut client = proxy.connect().await;
    let request = b"GET /a HTTP/1.1\r\nhost: web\r\n\r\n";
    client.write_all(request).await.expect("written");
    assert_eq!(read_all(&mut client).await, NO_BACKEND);
    let rows: [(&str, &[_]); 1] = [("below /a", &[("failure", 500, "no backend", 1.0)])];
    proxy.counts("route_response_total", &[], 1.0).await;
    assert_eq!(series(&proxy), unsent(&rows));
    let row = ["status_code=\"500\"", "classification=\"failure\""];
    assert_eq!(proxy.sum("response_total", &row), 1.0);
    let label = ["error=\"no backend\""];
    assert_eq!(proxy.sum("outbound_http_errors_total", &label), 1.0);
    assert_eq!(proxy.sum("tcp_open_total", &["peer=\"dst\""]), 0.0);
    // Behind one that was answered, on the same connection.
    let proxy = routed(application(answer).await, &routes);
    let mut client = proxy.connect().await;
    ask(&mut client, "/b/200", 200).await;
    client.write_all(request).await.expect("written");
    assert_eq!(read_all(&mut client).await, NO_BACKEND);
}

#[tokio::test]
async fn routes_come_change_and_go_while_a_connection_lives() {
    let server = application(answer).await;
    let proxy = Proxy::outbound(&[server]);
    let mut client = proxy.connect().await;
    ask(&mut client, "/a/200", 200).await;
    assert!(series(&proxy).is_empty());
    let header = Route {
        name: "odd".to_owned(),
        condition: Condition::Header("x-odd".to_owned(), Text::Exact("kept".to_owned())),
        ..below("/")
    };
    for routes in [vec![below("/a")], vec![header]] {
        let name = format!("rt_route=\"{}\"", routes[0].name);
        let service = web(&[server], &table(routes));
        let roster = [(proxy.addr, service)].into();
        proxy.roster.send_replace(Arc::new(roster));
        let mut asked = 0;
        while proxy.sum("route_request_total", &[&name]) == 0.0 {
            ask(&mut client, "/a/200", 200).await;
            asked += 1;
            assert!(asked < 1000, "the routes are never used");
        }
    }
    let opened = proxy.sum("tcp_open_total", &["peer=\"dst\""]);
    assert_eq!(opened, 1.0, "all of it was one connection");
    tokio::time::timeout(Duration::from_secs(1), client.shutdown())
        .await
        .expect("in time")
        .expect("closed");
}
