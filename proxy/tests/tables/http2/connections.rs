//! The rows of connections of HTTP/2 that end: on the relay both do, elsewhere the client keeps its own.

use weir_proxy::http2::reply::answer;

use super::{Talk, row};
use crate::http1::{CANCELED, LET_IN, REQUEST, answered};
use crate::rows::{Act, Row};

/// A server that has heard one request, says this, and is gone once the client has heard it.
macro_rules! leaving {
    ($says:literal $(, $how:ident)?) => {
        &[
            Act::Hear("p"),
            Act::Say("set"),
            Act::Hear("h."),
            Act::Say($says),
            Act::Meet,
            $(Act::$how,)?
        ]
    };
}

/// What only the relay shows: there the end of one connection is that of the other, and any bytes pass.
pub(super) const RELAYED: &[Talk] = &[
    (
        "client gone before the head, reset",
        (
            &[Act::Say("hi post"), Act::Hear("s"), Act::Meet, Act::Reset],
            &[
                Act::Hear("p"),
                Act::Say("set"),
                Act::Hear("h"),
                Act::Meet,
                Act::End,
            ],
        ),
        CANCELED,
        "ECONNRESET",
    ),
    (
        "server gone before the head",
        (LEFT, leaving!("")),
        answered!("502", "failure", "", "reset"),
        "",
    ),
    (
        "server reset before the head",
        (LEFT, leaving!("", Reset)),
        answered!("502", "failure", "", "reset"),
        "ECONNRESET",
    ),
    (
        "server gone mid-body",
        (LEFT_IN_BODY, leaving!("200 d")),
        answered!("200", "failure", "", "reset"),
        "",
    ),
    (
        "server gone mid-body, and it says why",
        (LEFT_IN_BODY, leaving!("200 d g11")),
        answered!("200", "failure", "", "h2(ENHANCE_YOUR_CALM)"),
        "",
    ),
    (
        "server reset mid-body",
        (LEFT_IN_BODY, leaving!("200 d", Reset)),
        answered!("200", "failure", "", "reset"),
        "ECONNRESET",
    ),
    (
        "passed unread because of a frame",
        (
            &[Act::Say("hi get"), Act::Hear("d")],
            &[
                Act::Hear("p"),
                Act::Say("set"),
                Act::Hear("h."),
                Act::Say("bad"),
                Act::End,
            ],
        ),
        &[
            REQUEST,
            LET_IN,
            "response_total{{HTTP},classification=\"success\",grpc_status_code=\"\",error=\"\"} 1",
            "weir_http_unparsed_total{direction=\"{DIR}\",reason=\"h2 frame\"} 1",
        ],
        "",
    ),
];

/// A client whose connection ends with its server's.
const LEFT: &[Act] = &[Act::Say("hi get"), Act::Hear("s"), Act::Meet, Act::End];
const LEFT_IN_BODY: &[Act] = &[Act::Say("hi get"), Act::Hear("h d"), Act::Meet, Act::End];

/// The only answer that is the proxy's own, in frames.
pub(super) fn silent() -> Row {
    let mut silent = row(&(
        "server gone before it has said anything",
        (
            &[Act::Say("hi get"), Act::Hear("h. g"), Act::End],
            &[Act::Hear("p h.")],
        ),
        answered!("502", "failure", "", "reset"),
        "",
    ));
    let (frames, _) = answer([1].into_iter(), 1, (502, "connection_terminated"));
    silent.src.written = frames.len();
    silent
}

/// As `RELAYED`, where the client keeps its connection: it hears of the end on the stream.
pub(super) const BALANCED: &[Talk] = &[
    (
        "server gone before the head",
        (
            &[
                Act::Say("hi get"),
                Act::Hear("s"),
                Act::Meet,
                Act::Hear("h."),
            ],
            leaving!(""),
        ),
        answered!("502", "failure", "", "reset"),
        "",
    ),
    (
        "server gone mid-body",
        (BROKEN, leaving!("200 d")),
        answered!("200", "failure", "", "reset"),
        "",
    ),
    (
        "server gone mid-body, and it says why",
        (BROKEN, leaving!("200 d g11")),
        answered!("200", "failure", "", "h2(ENHANCE_YOUR_CALM)"),
        "",
    ),
];

const BROKEN: &[Act] = &[
    Act::Say("hi get"),
    Act::Hear("h d"),
    Act::Meet,
    Act::Hear("r"),
];
