//! The rows that HTTP/2 shows, in the form of those of `http1`: on the relay, in both directions, and where a service
//! has several endpoints and its frames are taken apart.

use super::bench::{Bench, Way, listener};
use super::frames::{bytes, hear};
use super::http1::{CANCELED, LET_IN, REQUEST, answered};
use super::rows::{Act, Closed, Row, play, play_balanced};

mod connections;

/// What it is, what the client and the application do, the series of it, and the error that ends both connections.
type Talk = (
    &'static str,
    (&'static [Act], &'static [Act]),
    &'static [&'static str],
    &'static str,
);

/// The rows of what two peers do: what passes them is what both say.
fn rows(talks: &[Talk]) -> Vec<Row> {
    talks.iter().map(row).collect()
}

fn row(&(what, (client, application), series, errno): &Talk) -> Row {
    let (up, down) = (said(client), said(application));
    Row {
        what,
        client,
        application,
        series,
        src: Closed {
            read: up,
            written: down,
            errno,
        },
        dst: Some(Closed {
            read: down,
            written: up,
            errno,
        }),
    }
}

fn said(acts: &[Act]) -> usize {
    let frames = acts.iter().map(|act| match act {
        Act::Say(names) => bytes(names).len(),
        _ => 0,
    });
    frames.sum()
}

/// The series of a gRPC call with so many messages of the client, and of the server.
macro_rules! called {
    ($asked:literal, $answered:literal, $($series:expr),+) => {
        &[
            concat!("grpc_messages_total{direction=\"{DIR}\",authority=\"web.example\",kind=\"{ASKED}\"} ", $asked),
            concat!("grpc_messages_total{direction=\"{DIR}\",authority=\"web.example\",kind=\"{ANSWERED}\"} ", $answered),
            $($series),+
        ]
    };
}

const LATENCY: &str = "response_latency_ms_count{{HTTP},status_code=\"200\"} 1";

/// A client that says something and has heard this, and an application that has heard it and answers.
macro_rules! talk {
    ($said:literal, $heard:literal; $hears:literal, $says:literal) => {
        (
            &[Act::Say($said), Act::Hear($heard)],
            &[
                Act::Hear("p"),
                Act::Say("set"),
                Act::Hear($hears),
                Act::Say($says),
                Act::End,
            ],
        )
    };
}

/// What holds on the relay and where frames are taken apart.
const ENDS: &[Talk] = &[
    (
        "normal end",
        talk!("hi get", "d."; "h.", "200 d d."),
        answered!("200", "success", "", ""),
        "",
    ),
    (
        "normal end, 5xx",
        talk!("hi post d.", "h."; "d.", "503."),
        answered!("503", "failure", "", ""),
        "",
    ),
    (
        "trailers that fail",
        talk!("hi get", "h."; "h.", "200 d t14"),
        answered!("200", "failure", "14", ""),
        "",
    ),
    (
        "trailers alone",
        talk!("hi get", "h."; "h.", "503+0."),
        answered!("503", "success", "0", ""),
        "",
    ),
    (
        "1xx before the answer",
        talk!("hi get", "d."; "h.", "103 103 200 d."),
        answered!("200", "success", "", ""),
        "",
    ),
    (
        "messages both ways",
        talk!("hi call m m m.", "h."; "d.", "200g m t7"),
        called!(
            "3",
            "1",
            REQUEST,
            LET_IN,
            LATENCY,
            "response_total{{HTTP},status_code=\"200\",classification=\"failure\",grpc_status_code=\"7\",error=\"\"} 1"
        ),
        "",
    ),
    (
        "each status has its series, in whatever order they come",
        talk!(
            "hi get get@3 get@5 get@7 get@9 get@11", "h. h. h. h. h. d.";
            "h. h. h. h. h. h.", "304.@5 400.@3 418.@11 504.@9 500.@7 200 d."
        ),
        &[
            "request_total{{HTTP}} 6",
            "inbound_http_authz_allow_total{{LET_IN}} 6",
            LATENCY,
            "response_latency_ms_count{{HTTP},status_code=\"304\"} 1",
            "response_latency_ms_count{{HTTP},status_code=\"400\"} 1",
            "response_latency_ms_count{{HTTP},status_code=\"418\"} 1",
            "response_latency_ms_count{{HTTP},status_code=\"500\"} 1",
            "response_latency_ms_count{{HTTP},status_code=\"504\"} 1",
            "response_total{{HTTP},status_code=\"200\",classification=\"success\",grpc_status_code=\"\",error=\"\"} 1",
            "response_total{{HTTP},status_code=\"304\",classification=\"success\",grpc_status_code=\"\",error=\"\"} 1",
            "response_total{{HTTP},status_code=\"400\",classification=\"success\",grpc_status_code=\"\",error=\"\"} 1",
            "response_total{{HTTP},status_code=\"418\",classification=\"success\",grpc_status_code=\"\",error=\"\"} 1",
            "response_total{{HTTP},status_code=\"500\",classification=\"failure\",grpc_status_code=\"\",error=\"\"} 1",
            "response_total{{HTTP},status_code=\"504\",classification=\"failure\",grpc_status_code=\"\",error=\"\"} 1",
        ],
        "",
    ),
    (
        "CONNECT accepted, ended well",
        (
            &[
                Act::Say("hi"),
                Act::Hear("s"),
                Act::Say("connect"),
                Act::Hear("h"),
                Act::Say("d."),
                Act::Hear("d."),
            ],
            &[
                Act::Hear("p"),
                Act::Say("set"),
                Act::Hear("h"),
                Act::Say("200"),
                Act::Hear("d."),
                Act::Say("d."),
                Act::End,
            ],
        ),
        answered!("200", "success", "", ""),
        "",
    ),
    (
        "CONNECT accepted, broken",
        (
            &[
                Act::Say("hi"),
                Act::Hear("s"),
                Act::Say("connect"),
                Act::Hear("h"),
                Act::Say("d"),
                Act::Hear("r"),
            ],
            &[
                Act::Hear("p"),
                Act::Say("set"),
                Act::Hear("h"),
                Act::Say("200"),
                Act::Hear("d"),
                Act::Say("r10"),
                Act::End,
            ],
        ),
        answered!("200", "failure", "", "reset"),
        "",
    ),
    (
        "stream reset by the client before the head",
        (
            &[
                Act::Say("hi post"),
                Act::Hear("s"),
                Act::Meet,
                Act::Say("r8"),
                Act::Meet,
            ],
            &[
                Act::Hear("p"),
                Act::Say("set"),
                Act::Hear("h"),
                Act::Meet,
                Act::Hear("r"),
                Act::Meet,
                Act::End,
            ],
        ),
        CANCELED,
        "",
    ),
    (
        "stream reset by the client after the head",
        (
            &[
                Act::Say("hi post"),
                Act::Hear("h d"),
                Act::Say("r8"),
                Act::Meet,
            ],
            &[
                Act::Hear("p"),
                Act::Say("set"),
                Act::Hear("h"),
                Act::Say("200 d"),
                Act::Hear("r"),
                Act::Meet,
                Act::End,
            ],
        ),
        answered!("200", "success", "", "canceled"),
        "",
    ),
    (
        "client gone before the head, closed",
        (
            &[Act::Say("hi post"), Act::Hear("s"), Act::Meet],
            &[
                Act::Hear("p"),
                Act::Say("set"),
                Act::Hear("h"),
                Act::Meet,
                Act::End,
            ],
        ),
        CANCELED,
        "",
    ),
    (
        "client gone after the head, closed",
        talk!("hi post", "h d"; "h", "200 d"),
        answered!("200", "success", "", "canceled"),
        "",
    ),
    (
        "client gone after the head, reset",
        (
            &[Act::Say("hi post"), Act::Hear("h d"), Act::Meet, Act::Reset],
            &[
                Act::Hear("p"),
                Act::Say("set"),
                Act::Hear("h"),
                Act::Say("500 d"),
                Act::Meet,
                Act::End,
            ],
        ),
        answered!("500", "failure", "", "canceled"),
        "ECONNRESET",
    ),
    (
        "stream reset by the server before the head",
        talk!("hi post d", "r"; "d", "r2"),
        answered!("502", "failure", "", "reset"),
        "",
    ),
    (
        "stream reset by the server mid-body",
        talk!("hi get", "h d r"; "h.", "200 d r2"),
        answered!("200", "failure", "", "h2(INTERNAL_ERROR)"),
        "",
    ),
];

#[tokio::test]
async fn streams_are_counted_as_they_ended() {
    play(&rows(ENDS)).await;
}

#[tokio::test]
async fn streams_are_counted_with_their_connections() {
    play(&rows(connections::RELAYED)).await;
    play(&[connections::silent()]).await;
}

#[tokio::test]
async fn balanced_streams_are_counted_as_relayed_ones() {
    play_balanced(&rows(ENDS)).await;
    play_balanced(&rows(connections::BALANCED)).await;
}

/// The gauges of streams and connections, messages and bytes move while a call is open, and nothing is closed yet.
#[tokio::test]
async fn a_call_is_shown_while_it_is_open() {
    for way in Way::BOTH {
        let listener = listener().await;
        let bench = Bench::start(way, listener.local_addr().expect("an address")).await;
        let mut client = bench.connect().await;
        let (up, down) = ("hi call m get@3", "set 200g m 200@3 m@3");
        write(&mut client, up).await;
        let (mut application, _) = listener.accept().await.expect("dialed");
        hear(&mut application, "p h h.").await;
        write(&mut application, down).await;
        hear(&mut client, "h d h d").await;
        let mut expected: Vec<String> = called!(
            "1",
            "1",
            "request_total{{HTTP}} 2",
            "inbound_http_authz_allow_total{{LET_IN}} 2",
            "response_latency_ms_count{{HTTP},status_code=\"200\"} 2",
            "http2_active_connections{direction=\"{DIR}\",peer=\"src\"} 1",
            "http2_active_connections{direction=\"{DIR}\",peer=\"dst\"} 1",
            "http2_active_streams{direction=\"{DIR}\",peer=\"src\"} 2",
            "http2_active_streams{direction=\"{DIR}\",peer=\"dst\"} 2"
        )
        .map(str::to_owned)
        .to_vec();
        let (up, down) = (bytes(up).len(), bytes(down).len());
        for (peer, read, written) in [("{SRC}", up, down), ("{DST}", down, up)] {
            expected.extend([
                format!("tcp_open_total{{{peer}}} 1"),
                format!("tcp_open_connections{{{peer}}} 1"),
                format!("tcp_read_bytes_total{{{peer}}} {read}"),
                format!("tcp_write_bytes_total{{{peer}}} {written}"),
            ]);
        }
        bench.shows("an open call", &expected).await;
    }
}

async fn write(stream: &mut tokio::net::TcpStream, names: &str) {
    let written = tokio::io::AsyncWriteExt::write_all(stream, &bytes(names)).await;
    written.expect("written");
}
