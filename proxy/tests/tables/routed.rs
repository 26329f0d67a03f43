//! The rows that need routes: what a route times out, what there is no route for, backends that are not there, requests
//! that are sent again. In front of a service whose client has routes, and of an application whose port is closed; by
//! HTTP/1 with the connections, by HTTP/2 without, for there the frames on them are the proxy's own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use weir_crds::routes::{
    Condition, ResponseClass, ResponseCondition, RetryBudget, Route, RouteTable,
};

use super::bench::{Bench, Way, listener};
use super::http1::{self, GET, HEAD_END, NONE, OK};
use super::rows::{Act, Row, Scene, play_told, read_until, well};
use super::told::Told;

mod streams;

/// Of the proxy's own, with `Proxy-Status`.
const LATE: &str = "HTTP/1.1 504 Gateway Timeout\r\nproxy-status: weir; error=http_response_timeout\r\n\
     content-length: 0\r\nconnection: close\r\n\r\n";
const NOT_FOUND: &str = "HTTP/1.1 404 Not Found\r\nproxy-status: weir; error=destination_not_found\r\n\
                         content-length: 0\r\nconnection: close\r\n\r\n";
const NO_BACKEND: &str = "HTTP/1.1 500 Internal Server Error\r\nproxy-status: weir; error=destination_not_found\r\n\
     content-length: 0\r\nconnection: close\r\n\r\n";

/// A route of everything below a path. The rows ask for `/`.
fn below(path: &str) -> Route {
    Route {
        name: format!("below {path}"),
        condition: Condition::PathPrefix(path.to_owned()),
        classes: Vec::new(),
        timeout_ms: None,
        retryable: false,
        backends: Vec::new(),
        missing: 0,
    }
}

fn table(route: Route) -> RouteTable {
    RouteTable {
        routes: vec![route],
        ..RouteTable::default()
    }
}

/// A service with a route of everything.
fn plain() -> Told {
    Told::Routes(table(below("/")))
}

/// The same, where 200 is a failure.
fn classed() -> Told {
    let class = ResponseClass {
        condition: ResponseCondition::Status(200, 200),
        is_failure: true,
    };
    Told::Routes(table(Route {
        classes: vec![class],
        ..below("/")
    }))
}

/// The same, where a response may take that long.
fn timed() -> Told {
    Told::Routes(table(Route {
        timeout_ms: Some(1000),
        ..below("/")
    }))
}

/// The same, whose backends are not there.
fn missing() -> Told {
    Told::Routes(table(Route {
        missing: 1,
        ..below("/")
    }))
}

/// The same, where requests may be sent again as often as one wants.
fn retried() -> Told {
    let budget = RetryBudget {
        ratio: 0.0,
        min_per_second: 100,
        ttl: Duration::from_secs(3600),
    };
    let route = Route {
        retryable: true,
        ..below("/")
    };
    Told::Routes(RouteTable {
        retry_budget: Some(budget),
        ..table(route)
    })
}

/// A service with a route that the rows do not ask for.
fn elsewhere() -> Told {
    Told::Routes(table(below("/a")))
}

/// The same, which answers nothing else.
fn nowhere_else() -> Told {
    Told::Routes(RouteTable {
        closed: true,
        ..table(below("/a"))
    })
}

/// An application whose port lets in only that.
fn let_in() -> Told {
    Told::Closed(Condition::PathPrefix("/".to_owned()))
}

/// An application whose port lets in only what the rows do not ask for.
fn kept_out() -> Told {
    Told::Closed(Condition::PathPrefix("/a".to_owned()))
}

/// How the one request of a row ends.
#[derive(Clone, Copy, Debug)]
struct Ended {
    /// Its labels.
    at: &'static str,
    /// Those of its route; none where there are no routes.
    of: Option<&'static str>,
    status: u16,
    class: &'static str,
    grpc: &'static str,
    error: &'static str,
    /// Whether the pod's own side would have let it in.
    let_in: bool,
    /// How often it was sent. Each time but the last, the answer was 503.
    sent: u8,
}

const MATCHED: &str = "{ROUTE},rt_route=\"below /\"";

/// Of the route, and well.
const WELL: Ended = Ended {
    at: "{HTTP}",
    of: Some(MATCHED),
    status: 200,
    class: "success",
    grpc: "",
    error: "",
    let_in: true,
    sent: 1,
};

/// Of no route, and well.
const UNMATCHED: Ended = Ended {
    of: Some("{ROUTE}"),
    ..WELL
};

const TIMED_OUT: Ended = Ended {
    status: 504,
    class: "failure",
    error: "timeout",
    ..WELL
};

/// Of no route of a service, and sent to nobody.
const NO_ROUTE: Ended = Ended {
    at: "{NOWHERE}",
    status: 404,
    sent: 0,
    ..UNMATCHED
};

/// Of a route to nowhere.
const UNREACHED: Ended = Ended {
    at: "{NOWHERE}",
    status: 500,
    class: "failure",
    error: "no backend",
    sent: 0,
    ..WELL
};

/// Of the route, and well in the end.
const RECOVERED: Ended = Ended { sent: 3, ..WELL };

/// To an application: routes are counted on the client's side.
const LET_IN: Ended = Ended { of: None, ..WELL };
const KEPT_OUT: Ended = Ended {
    status: 404,
    let_in: false,
    ..LET_IN
};

impl Ended {
    /// The series of one such request.
    fn series(&self) -> Vec<String> {
        let Self {
            at,
            status,
            class,
            grpc,
            error,
            ..
        } = self;
        let mut all = vec![
            format!("request_total{{{at}}} 1"),
            format!("response_latency_ms_count{{{at},status_code=\"{status}\"}} 1"),
            format!(
                "response_total{{{at},status_code=\"{status}\",classification=\"{class}\",\
                 grpc_status_code=\"{grpc}\",error=\"{error}\"}} 1"
            ),
        ];
        if self.let_in {
            all.push(http1::LET_IN.to_owned());
        }
        if let Some(of) = self.of {
            let end =
                format!("status_code=\"{status}\",classification=\"{class}\",error=\"{error}\"");
            all.extend([
                format!("route_request_total{{{of}}} 1"),
                format!("route_response_latency_ms_count{{{of},status_code=\"{status}\"}} 1"),
                format!("route_response_total{{{of},{end}}} 1"),
            ]);
            all.push(format!("route_actual_request_total{{{of}}} {}", self.sent));
            if self.sent > 0 {
                all.push(format!("route_actual_response_total{{{of},{end}}} 1"));
            }
            if self.sent > 1 {
                let failed = "status_code=\"503\",classification=\"failure\",error=\"\"";
                let failures = self.sent - 1;
                all.push(format!(
                    "route_actual_response_total{{{of},{failed}}} {failures}"
                ));
            }
        }
        all
    }
}

/// A row, where it is played, and how its request ends.
type Routed = (Way, fn() -> Told, Ended, Row);

async fn play(rows: &[Routed], counts_connections: bool) {
    for (way, told, ended, row) in rows {
        let scene = Scene {
            way: *way,
            told: told(),
            counts_connections,
        };
        play_told(row, &scene, ended.series()).await;
    }
}

/// One request that the application answers.
const ANSWERED: Row = Row {
    what: "of a route",
    client: &[Act::Send(GET), Act::Read("ok")],
    application: &[Act::Read(HEAD_END), Act::Send(OK), Act::End],
    series: &[],
    src: well(GET.len(), OK.len()),
    dst: Some(well(OK.len(), GET.len())),
};

/// One request that the proxy answers itself, and nobody is dialed.
const fn refused(what: &'static str, answer: &'static str, series: &'static [&'static str]) -> Row {
    Row {
        what,
        client: &[Act::Send(GET), Act::End],
        application: &[],
        series,
        src: well(GET.len(), answer.len()),
        dst: None,
    }
}

const NO_BACKENDS: &[&str] =
    &["outbound_http_errors_total{direction=\"outbound\",error=\"no backend\"} 1"];
const TIMEOUTS: &[&str] =
    &["outbound_http_errors_total{direction=\"outbound\",error=\"timeout\"} 1"];
const NOT_FOUNDS: &[&str] = &[
    "inbound_http_route_not_found_total{direction=\"inbound\",authority=\"web.example\"{SRV},tls=\"no_identity\",\
     no_tls_reason=\"no_tls_from_remote\"} 1",
];

#[tokio::test]
async fn requests_are_counted_under_their_route_or_under_none() {
    let failed = Ended {
        class: "failure",
        ..WELL
    };
    let unmatched = Row {
        what: "of no route",
        ..ANSWERED
    };
    let judged = Row {
        what: "a response class decides",
        ..ANSWERED
    };
    let let_through = Row {
        what: "a closed port that has a route for it",
        ..ANSWERED
    };
    let rows: [Routed; 4] = [
        (Way::Outbound, plain, WELL, ANSWERED),
        (Way::Outbound, elsewhere, UNMATCHED, unmatched),
        (Way::Outbound, classed, failed, judged),
        (Way::Inbound, let_in, LET_IN, let_through),
    ];
    play(&rows, true).await;
}

#[tokio::test]
async fn what_there_is_no_route_for_is_404() {
    let outbound = refused("no route of a service", NOT_FOUND, &[]);
    let inbound = refused("no route of a port", NOT_FOUND, NOT_FOUNDS);
    let rows: [Routed; 2] = [
        (Way::Outbound, nowhere_else, NO_ROUTE, outbound),
        (Way::Inbound, kept_out, KEPT_OUT, inbound),
    ];
    play(&rows, true).await;
}

#[tokio::test]
async fn a_backend_that_is_not_there_is_500() {
    let row = refused("no backend", NO_BACKEND, NO_BACKENDS);
    play(&[(Way::Outbound, missing, UNREACHED, row)], true).await;
}

#[tokio::test]
async fn a_route_that_times_out_is_504() {
    let row = Row {
        what: "route timeout",
        client: &[Act::Send(GET), Act::End],
        application: &[Act::Read(HEAD_END), Act::End],
        series: TIMEOUTS,
        src: well(GET.len(), LATE.len()),
        dst: Some(well(0, GET.len())),
    };
    play(&[(Way::Outbound, timed, TIMED_OUT, row)], true).await;
}

/// Refuses the first two requests, whatever connections they are on, and answers the others.
async fn refuse_two(listener: TcpListener) {
    let seen = Arc::new(AtomicUsize::new(0));
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(answer(stream, Arc::clone(&seen)));
    }
}

async fn answer(mut stream: TcpStream, seen: Arc<AtomicUsize>) {
    let mut bytes = Vec::new();
    while stream.read_buf(&mut bytes).await.is_ok_and(|n| n > 0) {
        if bytes.ends_with(HEAD_END.as_bytes()) {
            bytes.clear();
            let answer = match seen.fetch_add(1, Ordering::Relaxed) {
                0 | 1 => NONE,
                _ => OK,
            };
            stream.write_all(answer.as_bytes()).await.expect("written");
        }
    }
}

/// No row, because each attempt has a connection of its own.
#[tokio::test]
async fn a_request_that_is_sent_again_is_counted_once_and_each_attempt() {
    let listener = listener().await;
    let application = listener.local_addr().expect("an address");
    let bench = Bench::start_told(Way::Outbound, application, &retried(), |_| {}).await;
    tokio::spawn(refuse_two(listener));
    let mut client = bench.connect().await;
    client.write_all(GET.as_bytes()).await.expect("written");
    read_until(&mut client, b"ok").await;
    drop(client);
    let mut expected = RECOVERED.series();
    expected.extend(well(GET.len(), OK.len()).series("{SRC}"));
    let (read, written) = (2 * NONE.len() + OK.len(), 3 * GET.len());
    let attempts = well(read, written).series("{DST}");
    let often = [
        "tcp_open_total",
        "tcp_close_total",
        "tcp_connection_duration_ms_count",
    ];
    expected.extend(attempts.into_iter().map(|series| {
        match often.iter().any(|family| series.starts_with(family)) {
            true => series.trim_end_matches('1').to_owned() + "3",
            false => series,
        }
    }));
    bench.shows("retried", &expected).await;
}
