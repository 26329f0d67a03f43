//! gRPC messages, counted while their stream is open.

use crate::pair::Pair;
use crate::wire::{END_STREAM, data, frame, headers, hello, message, settings};

const CALL: [(&str, &str); 3] = [
    (":method", "POST"),
    (":authority", "Echo.example:80"),
    ("content-type", "application/grpc+proto"),
];
const ANSWER: [(&str, &str); 2] = [(":status", "200"), ("content-type", "application/grpc")];

fn counted(pair: &Pair, kind: &str) -> f64 {
    let kind = format!("kind=\"{kind}\"");
    pair.sum(
        "grpc_messages_total",
        &["authority=\"echo.example\"", &kind],
    )
}

#[test]
fn messages_are_counted_as_they_pass_in_the_directions_words() {
    for (is_inbound, asked, answered) in [(true, "received", "sent"), (false, "sent", "received")] {
        let mut pair = Pair::silent(is_inbound);
        pair.up(&hello());
        pair.down(&settings(&[]));
        pair.up(&headers(1, 0, &CALL));
        pair.up(&data(1, 0, &[message(3), message(0), message(5)].concat()));
        pair.down(&headers(1, 0, &ANSWER));
        pair.down(&data(1, 0, &message(100)));
        assert_eq!(
            (counted(&pair, asked), counted(&pair, answered)),
            (3.0, 1.0)
        );
        assert!(pair.session().is_busy(), "the call is under way");
        // A message over frames, with padding between.
        let long = message(1000);
        let padded = [&[7][..], &long[..3], &[0; 7]].concat();
        pair.down(&frame(0x0, 0x8, 1, &padded));
        pair.down(&data(1, 0, &long[3..900]));
        assert_eq!(counted(&pair, answered), 1.0);
        pair.down(&data(1, 0, &[&long[900..], &message(1)[..2]].concat()));
        assert_eq!(counted(&pair, answered), 2.0);
        pair.down(&headers(1, END_STREAM, &[("grpc-status", "0")]));
        assert_eq!(pair.response().as_deref(), Some("200,success,0,"));
    }
}

#[test]
fn what_is_not_grpc_is_not_counted_as_messages() {
    let mut pair = Pair::new();
    pair.up(&headers(
        1,
        0,
        &[(":method", "POST"), (":authority", "echo.example")],
    ));
    pair.up(&data(1, 0, &message(3)));
    // An intermediary's page is no message either.
    pair.up(&headers(3, 0, &CALL));
    pair.down(&headers(
        3,
        0,
        &[(":status", "503"), ("content-type", "text/html")],
    ));
    pair.down(&data(3, END_STREAM, &message(3)));
    assert_eq!(pair.total("grpc_messages_total"), 0.0);
}

#[test]
fn streams_that_take_turns_are_told_apart() {
    let mut pair = Pair::new();
    for stream in [1, 3] {
        pair.up(&headers(stream, 0, &CALL));
    }
    let bytes = [message(4), message(4)].concat();
    for piece in bytes.chunks(3) {
        pair.up(&[data(1, 0, piece), data(3, 0, piece)].concat());
    }
    assert_eq!(counted(&pair, "received"), 4.0);
}

#[test]
fn the_authority_is_without_the_port_that_its_scheme_implies() {
    let extended = (":protocol", "websocket");
    for (method, scheme, authority, label) in [
        ("POST", Some("http"), "a:80", "a"),
        ("POST", Some("http"), "b:443", "b:443"),
        ("POST", Some("https"), "c:443", "c"),
        ("POST", Some("https"), "d:80", "d:80"),
        ("CONNECT", None, "e:80", "e:80"),
        ("CONNECT", Some("https"), "f:443", "f"),
    ] {
        let mut pair = Pair::new();
        let mut fields = vec![(":method", method), (":authority", authority)];
        fields.extend(scheme.map(|scheme| (":scheme", scheme)));
        fields.extend(scheme.filter(|_| method == "CONNECT").map(|_| extended));
        fields.push(CALL[2]);
        pair.up(&headers(1, 0, &fields));
        let label = format!("authority=\"{label}\"");
        for family in ["request_total", "grpc_messages_total"] {
            let of = |s: &String| s.starts_with(family) && s.contains(&label);
            assert!(pair.samples().keys().any(of), "{family} {label}");
        }
    }
}

#[test]
fn calls_to_different_authorities_are_told_apart() {
    let mut pair = Pair::new();
    for (stream, authority) in [(1, "a.shop"), (3, "b.shop"), (5, "a.shop"), (7, "c.shop")] {
        let head = [CALL[0], (":authority", authority), CALL[2]];
        pair.up(&headers(stream, 0, &head));
        pair.up(&data(stream, END_STREAM, &message(3)));
    }
    for (authority, expected) in [("a.shop", 2.0), ("b.shop", 1.0), ("c.shop", 1.0)] {
        let authority = format!("authority=\"{authority}\"");
        assert_eq!(pair.sum("grpc_messages_total", &[&authority]), expected);
        assert_eq!(pair.sum("request_total", &[&authority]), expected);
    }
}
