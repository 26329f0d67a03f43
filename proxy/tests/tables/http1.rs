//! The rows that HTTP/1 shows: the HTTP families, and every row of "what happens" that needs neither routes nor a mesh.
//! Those of HTTP/2 are written in the same form, with the same columns. Route timeouts, 404 of the proxy's own and retries
//! are rows of `routed`; what the proxy cannot forward is in `errors`. The refused, 403, have certificates: they are in
//! `mtls/permission.rs`.

use super::rows::{Act, Row, broken, play, well};

pub(crate) const GET: &str = "GET / HTTP/1.1\r\nHost: Web.example:80\r\n\r\n";
pub(crate) const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const HALF: &str = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf";
pub(crate) const NONE: &str = "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n";
pub(crate) const HEAD_END: &str = "\r\n\r\n";
const UPGRADE: &str =
    "GET / HTTP/1.1\r\nHost: web.example\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n";
const SWITCH: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n";
const CONNECT: &str = "CONNECT web.example HTTP/1.1\r\nHost: web.example\r\n\r\n";
const TUNNEL: &str = "HTTP/1.1 200 OK\r\n\r\n";
const INTERIM: &str = "HTTP/1.1 103 Early Hints\r\n\r\n";
const GRPC: &str =
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\ngrpc-status: 14\r\n\r\n";
const TRAILERS_ONLY: &str = "HTTP/1.1 503 No\r\ngrpc-status: 0\r\nContent-Length: 0\r\n\r\n";
/// Of the proxy's own, with `Proxy-Status`.
const RESET: &str = "HTTP/1.1 502 Bad Gateway\r\nproxy-status: weir; error=connection_terminated\r\n\
                     content-length: 0\r\nconnection: close\r\n\r\n";

const REFUSED: &str = "HTTP/1.1 400 Bad Request\r\nproxy-status: weir; error=http_request_error\r\n\
                       content-length: 0\r\nconnection: close\r\n\r\n";
const AMBIGUOUS: &str = "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n";

pub(crate) const REQUEST: &str = "request_total{{HTTP}} 1";
pub(crate) const LET_IN: &str = "inbound_http_authz_allow_total{{LET_IN}} 1";

/// The series of one request whose answer has this status and end.
macro_rules! answered {
    ($status:literal, $class:literal, $grpc:literal, $error:literal) => {
        &[
            REQUEST,
            LET_IN,
            concat!(
                "response_latency_ms_count{{HTTP},status_code=\"",
                $status,
                "\"} 1"
            ),
            concat!(
                "response_total{{HTTP},status_code=\"",
                $status,
                "\",classification=\"",
                $class,
                "\",grpc_status_code=\"",
                $grpc,
                "\",error=\"",
                $error,
                "\"} 1"
            ),
        ]
    };
}

pub(crate) use answered;

const ENDS: &[Row] = &[
    Row {
        what: "normal end",
        client: &[Act::Send(GET), Act::Read("ok")],
        application: &[Act::Read(HEAD_END), Act::Send(OK), Act::End],
        series: answered!("200", "success", "", ""),
        src: well(GET.len(), OK.len()),
        dst: Some(well(OK.len(), GET.len())),
    },
    Row {
        what: "normal end, 5xx",
        client: &[Act::Send(GET), Act::Read(HEAD_END)],
        application: &[Act::Read(HEAD_END), Act::Send(NONE), Act::End],
        series: answered!("503", "failure", "", ""),
        src: well(GET.len(), NONE.len()),
        dst: Some(well(NONE.len(), GET.len())),
    },
    Row {
        what: "normal end, a failing grpc-status in the trailers",
        client: &[Act::Send(GET), Act::Read("14\r\n\r\n")],
        application: &[Act::Read(HEAD_END), Act::Send(GRPC), Act::End],
        series: answered!("200", "failure", "14", ""),
        src: well(GET.len(), GRPC.len()),
        dst: Some(well(GRPC.len(), GET.len())),
    },
    Row {
        what: "normal end, a good grpc-status in the head",
        client: &[Act::Send(GET), Act::Read(HEAD_END)],
        application: &[Act::Read(HEAD_END), Act::Send(TRAILERS_ONLY), Act::End],
        series: answered!("503", "success", "0", ""),
        src: well(GET.len(), TRAILERS_ONLY.len()),
        dst: Some(well(TRAILERS_ONLY.len(), GET.len())),
    },
    Row {
        what: "1xx before the answer",
        client: &[Act::Send(GET), Act::Read("ok")],
        application: &[
            Act::Read(HEAD_END),
            Act::Send(INTERIM),
            Act::Send(INTERIM),
            Act::Send(OK),
            Act::End,
        ],
        series: answered!("200", "success", "", ""),
        src: well(GET.len(), 2 * INTERIM.len() + OK.len()),
        dst: Some(well(2 * INTERIM.len() + OK.len(), GET.len())),
    },
    Row {
        what: "passed unread because of its syntax",
        client: &[
            Act::Send("GET / HTTP/1.1\r\nodd name: x\r\n\r\n"),
            Act::Read("ok"),
        ],
        application: &[Act::Read(HEAD_END), Act::Send(OK), Act::End],
        series: &["weir_http_unparsed_total{direction=\"{DIR}\",reason=\"field name\"} 1"],
        src: well(31, OK.len()),
        dst: Some(well(OK.len(), 31)),
    },
];

pub(crate) const CANCELED: &[&str] = &[
    REQUEST,
    LET_IN,
    "response_total{{HTTP},classification=\"failure\",grpc_status_code=\"\",error=\"canceled\"} 1",
];

const CLIENTS: &[Row] = &[
    Row {
        what: "client gone before the head, closed",
        client: &[Act::Send(GET), Act::Meet],
        application: &[Act::Read(HEAD_END), Act::Meet, Act::End],
        series: CANCELED,
        src: well(GET.len(), 0),
        dst: Some(well(0, GET.len())),
    },
    Row {
        what: "client gone before the head, reset",
        client: &[Act::Send(GET), Act::Meet, Act::Reset],
        application: &[Act::Read(HEAD_END), Act::Meet, Act::End],
        series: CANCELED,
        src: broken(GET.len(), 0, "ECONNRESET"),
        dst: Some(broken(0, GET.len(), "ECONNRESET")),
    },
    Row {
        what: "client gone after the head, closed",
        client: &[Act::Send(GET), Act::Read("half")],
        application: &[Act::Read(HEAD_END), Act::Send(HALF), Act::End],
        series: answered!("200", "success", "", "canceled"),
        src: well(GET.len(), HALF.len()),
        dst: Some(well(HALF.len(), GET.len())),
    },
    Row {
        what: "client gone after the head, reset",
        client: &[Act::Send(GET), Act::Read("half"), Act::Reset],
        application: &[Act::Read(HEAD_END), Act::Send(HALF), Act::End],
        series: answered!("200", "success", "", "canceled"),
        src: broken(GET.len(), HALF.len(), "ECONNRESET"),
        dst: Some(broken(HALF.len(), GET.len(), "ECONNRESET")),
    },
];

const SERVERS: &[Row] = &[
    Row {
        what: "server gone before the head",
        client: &[Act::Send(GET), Act::End],
        application: &[Act::Read(HEAD_END)],
        series: answered!("502", "failure", "", "reset"),
        src: well(GET.len(), RESET.len()),
        dst: Some(well(0, GET.len())),
    },
    Row {
        what: "server reset before the head",
        client: &[Act::Send(GET), Act::End],
        application: &[Act::Read(HEAD_END), Act::Reset],
        series: answered!("502", "failure", "", "reset"),
        src: well(GET.len(), RESET.len()),
        dst: Some(broken(0, GET.len(), "ECONNRESET")),
    },
    Row {
        what: "server gone mid-body",
        client: &[Act::Send(GET), Act::End],
        application: &[Act::Read(HEAD_END), Act::Send(HALF)],
        series: answered!("200", "failure", "", "reset"),
        src: well(GET.len(), HALF.len()),
        dst: Some(well(HALF.len(), GET.len())),
    },
    Row {
        what: "server reset mid-body",
        client: &[Act::Send(GET), Act::Read("half"), Act::Meet, Act::End],
        application: &[Act::Read(HEAD_END), Act::Send(HALF), Act::Meet, Act::Reset],
        series: answered!("200", "failure", "", "reset"),
        src: broken(GET.len(), HALF.len(), "ECONNRESET"),
        dst: Some(broken(HALF.len(), GET.len(), "ECONNRESET")),
    },
];

/// The first request of a connection went well, and the client keeps it.
const KEPT: &[Row] = &[
    Row {
        what: "server gone before the head of a later answer",
        client: &[Act::Send(GET), Act::Read("ok"), Act::Send(GET), Act::End],
        application: &[Act::Read(HEAD_END), Act::Send(OK), Act::Read(HEAD_END)],
        series: &[
            "request_total{{HTTP}} 2",
            "inbound_http_authz_allow_total{{LET_IN}} 2",
            "response_latency_ms_count{{HTTP},status_code=\"200\"} 1",
            "response_latency_ms_count{{HTTP},status_code=\"502\"} 1",
            "response_total{{HTTP},status_code=\"200\",classification=\"success\",grpc_status_code=\"\",error=\"\"} 1",
            "response_total{{HTTP},status_code=\"502\",classification=\"failure\",grpc_status_code=\"\",error=\"reset\"} 1",
        ],
        src: well(2 * GET.len(), OK.len()),
        dst: Some(well(OK.len(), 2 * GET.len())),
    },
    Row {
        what: "malformed, after a good request",
        client: &[
            Act::Send(GET),
            Act::Read("ok"),
            Act::Send(AMBIGUOUS),
            Act::End,
        ],
        application: &[Act::Read(HEAD_END), Act::Send(OK), Act::End],
        series: &[
            REQUEST,
            LET_IN,
            "response_latency_ms_count{{HTTP},status_code=\"200\"} 1",
            "response_total{{HTTP},status_code=\"200\",classification=\"success\",grpc_status_code=\"\",error=\"\"} 1",
            "{DIR}_http_errors_total{direction=\"{DIR}\",error=\"bad request\"{SRV}} 1",
        ],
        src: well(GET.len() + AMBIGUOUS.len(), OK.len() + REFUSED.len()),
        dst: Some(well(OK.len(), GET.len())),
    },
    Row {
        what: "malformed, after a silence in which the application was dialed",
        client: &[Act::Meet, Act::Send(AMBIGUOUS), Act::End],
        application: &[Act::Meet, Act::End],
        series: &["{DIR}_http_errors_total{direction=\"{DIR}\",error=\"bad request\"{SRV}} 1"],
        src: well(AMBIGUOUS.len(), REFUSED.len()),
        dst: Some(well(0, 0)),
    },
];

const TUNNELS: &[Row] = &[
    Row {
        what: "upgrade accepted, ended well",
        client: &[
            Act::Send(UPGRADE),
            Act::Read(HEAD_END),
            Act::Send("ping"),
            Act::Read("pong"),
        ],
        application: &[
            Act::Read(HEAD_END),
            Act::Send(SWITCH),
            Act::Read("ping"),
            Act::Send("pong"),
            Act::End,
        ],
        series: answered!("101", "success", "", ""),
        src: well(UPGRADE.len() + 4, SWITCH.len() + 4),
        dst: Some(well(SWITCH.len() + 4, UPGRADE.len() + 4)),
    },
    Row {
        what: "upgrade accepted, broken",
        client: &[Act::Send(UPGRADE), Act::Read(HEAD_END), Act::Meet, Act::End],
        application: &[
            Act::Read(HEAD_END),
            Act::Send(SWITCH),
            Act::Meet,
            Act::Reset,
        ],
        series: answered!("101", "failure", "", "reset"),
        src: broken(UPGRADE.len(), SWITCH.len(), "ECONNRESET"),
        dst: Some(broken(SWITCH.len(), UPGRADE.len(), "ECONNRESET")),
    },
    Row {
        what: "CONNECT accepted, ended well",
        client: &[
            Act::Send(CONNECT),
            Act::Read(HEAD_END),
            Act::Send("ping"),
            Act::Read("pong"),
        ],
        application: &[
            Act::Read(HEAD_END),
            Act::Send(TUNNEL),
            Act::Read("ping"),
            Act::Send("pong"),
            Act::End,
        ],
        series: answered!("200", "success", "", ""),
        src: well(CONNECT.len() + 4, TUNNEL.len() + 4),
        dst: Some(well(TUNNEL.len() + 4, CONNECT.len() + 4)),
    },
    Row {
        what: "CONNECT accepted, broken by the client",
        client: &[
            Act::Send(CONNECT),
            Act::Read(HEAD_END),
            Act::Meet,
            Act::Reset,
        ],
        application: &[Act::Read(HEAD_END), Act::Send(TUNNEL), Act::Meet, Act::End],
        series: answered!("200", "failure", "", "reset"),
        src: broken(CONNECT.len(), TUNNEL.len(), "ECONNRESET"),
        dst: Some(broken(TUNNEL.len(), CONNECT.len(), "ECONNRESET")),
    },
];

#[tokio::test]
async fn what_ends_well_is_counted_as_it_ended() {
    play(ENDS).await;
}

#[tokio::test]
async fn clients_that_leave_are_counted_as_canceled() {
    play(CLIENTS).await;
}

#[tokio::test]
async fn servers_that_leave_are_counted_as_resets() {
    play(SERVERS).await;
}

#[tokio::test]
async fn kept_connections_are_counted_request_by_request() {
    play(KEPT).await;
}

#[tokio::test]
async fn tunnels_are_counted_when_they_end() {
    play(TUNNELS).await;
}
