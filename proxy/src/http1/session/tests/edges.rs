//! The session at its edges: ends, cuts and limits that meet each other.

use super::{Bench, GET, MAX_PIPELINE, OK, bench};
use crate::http1::reply::Reply;

const CHUNKED: &str = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";

#[test]
fn a_client_that_ends_in_a_long_pipeline_has_all_of_it_counted() {
    let mut b = bench();
    let many = GET.repeat(MAX_PIPELINE + 3);
    let passed = b.up(&many);
    b.session.client_eof();
    assert_eq!(b.up(&many[passed..]), 0, "the pipeline is full");
    b.all_down(OK);
    assert!(b.session.take_resumed());
    assert_eq!(b.up(&many[passed..]), GET.len());
    for _ in 0..2 {
        b.all_down(OK);
    }
    b.all_up(&many[passed + GET.len()..]);
    assert_eq!(b.total("request_total"), (MAX_PIPELINE + 3) as f64);
    assert_eq!(b.total("weir_http_unparsed_total"), 0.0);
}

#[test]
fn a_client_that_ends_after_an_offer_to_upgrade_is_still_followed() {
    let mut b = bench();
    let upgrade = "GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n";
    assert_eq!(b.up(&format!("{upgrade}{GET}")), upgrade.len());
    b.session.client_eof();
    assert_eq!(b.up(GET), 0);
    b.all_down(OK);
    b.all_up(GET);
    assert_eq!(b.total("request_total"), 2.0);
}

#[test]
fn a_bad_chunk_after_the_answer_gets_no_second_one() {
    let mut b = bench();
    b.all_up(CHUNKED);
    b.all_down("HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(b.up("zz\r\n"), 0);
    assert_eq!(b.session.refusal(), None);
    assert!(b.session.is_refused() && b.session.is_cut());
    assert_eq!(b.response(), "413,success,");
}

#[test]
fn a_bad_chunk_in_the_middle_of_the_answer_cuts_the_request_off() {
    let mut b = bench();
    b.all_up(CHUNKED);
    b.all_down("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nok");
    assert_eq!(b.up("zz\r\n"), 0);
    assert!(b.session.is_cut());
    assert_eq!(b.session.refusal(), None);
    b.all_down("ok");
    assert_eq!(b.session.refusal(), None);
    assert_eq!(b.response(), "200,success,");
}

/// `identity` was a coding once, and means no end to whoever does not know it.
const IDENTITY: &str =
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nContent-Length: 2\r\n\r\nok";

#[test]
fn a_client_that_sees_an_end_where_there_is_none_is_not_held_up() {
    let mut b = bench();
    for _ in 0..=MAX_PIPELINE {
        b.all_up(GET);
        b.all_down(IDENTITY);
    }
    assert_eq!(b.total("weir_http_unparsed_total"), 1.0);
    b.all_up(GET);
    assert!(!b.session.is_busy());
}

#[test]
fn requests_that_wait_already_behind_an_endless_response_go_on() {
    let mut b = bench();
    let many = GET.repeat(MAX_PIPELINE + 1);
    assert_eq!(b.up(&many), many.len() - GET.len());
    b.all_down(IDENTITY);
    assert!(b.session.take_resumed());
    b.all_up(GET);
    assert_eq!(b.total("weir_http_unparsed_total"), 1.0);
}

/// Client and proxy see the same end: what was sent ahead waits for it, as before.
#[test]
fn requests_behind_a_response_that_ends_with_its_connection_wait() {
    let mut b = bench();
    let many = GET.repeat(MAX_PIPELINE + 1);
    b.up(&many);
    b.all_down("HTTP/1.0 200 OK\r\n\r\nok");
    assert!(!b.session.take_resumed());
    assert_eq!(b.up(GET), 0);
    assert_eq!(b.total("weir_http_unparsed_total"), 0.0);
}

/// Shows a head in pieces of one byte; answers whether it passed with its last byte.
fn trickles(b: &mut Bench, head: &str) -> bool {
    let early = (1..head.len()).all(|n| b.up(&head[..n]) == 0);
    early && b.up(head) == head.len()
}

#[test]
fn a_head_in_single_bytes_passes_with_its_last_byte() {
    let mut b = bench();
    let long = format!("GET / HTTP/1.1\r\nCookie: {}\r\n\r\n", "x".repeat(3000));
    for head in [GET, &long, GET] {
        assert!(trickles(&mut b, head), "{head:?}");
        b.all_down(OK);
    }
    assert_eq!(b.total("request_total"), 3.0);
}

#[test]
fn bytes_that_are_no_head_are_not_held_for_long() {
    let mut b = bench();
    assert_eq!(b.up("A"), 0);
    assert_eq!(b.up("A\0\0"), 3, "no line ends, yet nothing good can come");
}

#[test]
fn an_ambiguous_request_after_an_answer_is_still_refused() {
    let mut b = bench();
    b.all_up(GET);
    b.all_down(OK);
    let bad = "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n";
    assert_eq!(b.up(bad), 0);
    assert_eq!(b.session.refusal(), Some(Reply::BadRequest));
}

#[test]
fn a_grpc_status_that_is_no_number_is_unknown_in_head_and_trailers() {
    for down in [
        "HTTP/1.1 200 OK\r\ngrpc-status: x\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\ngrpc-status: x\r\n\r\n",
    ] {
        let mut b = bench();
        b.all_up(GET);
        b.all_down(down);
        assert_eq!(b.response(), "200,failure,", "{down:?}");
    }
}

const LAST: &str = "GET / HTTP/1.1\r\nConnection: close\r\n\r\n";

#[test]
fn an_early_answer_does_not_end_the_request() {
    let mut b = bench();
    b.all_up("POST / HTTP/1.1\r\nContent-Length: 40\r\n\r\n");
    b.all_down("HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n");
    assert!(b.session.is_busy(), "the client is still sending");
    b.all_up(&"GET / HTTP/1.1\r\n\r\n ".repeat(3)[..40]);
    assert_eq!(b.total("request_total"), 1.0);
    assert!(!b.session.is_busy());
    b.all_up(GET);
    b.all_down(OK);
    assert_eq!(b.total("response_total"), 2.0);
}

#[test]
fn an_offer_with_a_body_holds_what_follows_the_body() {
    let mut b = bench();
    let offer = "POST / HTTP/1.1\r\nUpgrade: x\r\nContent-Length: 2\r\n\r\nhi";
    assert_eq!(b.up(&format!("{offer}{GET}")), offer.len());
    b.all_down("HTTP/1.1 101 Switching Protocols\r\n\r\n");
    assert!(b.session.take_resumed() && b.session.is_tunnel());
    b.all_up(GET);
    assert_eq!(b.total("request_total"), 1.0);
}

#[test]
fn an_offer_that_is_declined_before_its_body_ends_holds_nothing() {
    let mut b = bench();
    b.all_up("POST / HTTP/1.1\r\nUpgrade: x\r\nContent-Length: 2\r\n\r\n");
    b.all_down(OK);
    b.all_up(&format!("hi{GET}"));
    assert_eq!(b.total("request_total"), 2.0);
}

#[test]
fn what_follows_the_last_request_is_none() {
    let mut b = bench();
    b.all_up(&format!("{GET}{LAST}{GET}any\0thing"));
    assert_eq!(b.total("request_total"), 2.0);
    b.all_down(&format!("{OK}{OK}"));
    assert_eq!(b.total("response_total"), 2.0);
    assert_eq!(b.total("weir_http_unparsed_total"), 0.0);
    assert!(!b.session.is_opaque() && !b.session.is_busy());
}

#[test]
fn a_server_that_answers_after_the_last_request_is_no_longer_followed() {
    let mut b = bench();
    b.all_up(&format!("{LAST}{GET}"));
    b.all_down(&format!("{OK}{OK}"));
    assert_eq!(b.total("response_total"), 1.0);
    assert_eq!(b.total("weir_http_unparsed_total"), 1.0);
}

#[test]
fn requests_behind_one_that_switches_without_an_offer_belong_to_the_tunnel() {
    let mut b = bench();
    b.all_up(&format!("{GET}{GET}"));
    b.all_down("HTTP/1.1 101 Switching Protocols\r\n\r\n");
    b.session.end_all(b.now, super::End::Complete);
    let samples = b.samples("response_total");
    let with = |label: &str| samples.iter().filter(|(l, _)| l.contains(label)).count();
    assert_eq!((with("success"), with("failure")), (2, 0), "{samples:?}");
}
