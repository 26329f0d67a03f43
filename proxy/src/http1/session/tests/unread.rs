//! Bytes that go by unread: counted as if they had been seen.

use super::{GET, bench};

const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n";

#[test]
fn only_the_rest_of_a_body_may_go_by() {
    let mut b = bench();
    assert_eq!(b.session.unread_request(), 0, "a head is due");
    b.all_up("POST / HTTP/1.1\r\nContent-Length: 1000\r\n\r\n12345");
    assert_eq!(b.session.unread_request(), 995);
    assert_eq!(b.session.unread_response(), 0);
    b.session.pass_request(990);
    assert_eq!(b.session.unread_request(), 5);
    b.all_up("12345");
    assert_eq!(b.session.unread_request(), 0, "the next head is due");
    b.all_down(HEAD);
    assert_eq!(b.session.unread_response(), 1000);
    b.session.pass_response(1000, b.now);
    assert_eq!(b.session.unread_response(), 0);
    assert_eq!(b.response(), "200,success,");
    b.all_up(GET);
    assert_eq!(b.total("request_total"), 2.0);
}

#[test]
fn a_request_whose_body_went_by_is_followed_by_another() {
    let mut b = bench();
    b.all_up("POST / HTTP/1.1\r\nContent-Length: 100000\r\n\r\n");
    b.session.pass_request(100_000);
    b.all_up(GET);
    assert_eq!(b.total("request_total"), 2.0);
}

#[test]
fn the_first_unread_byte_is_the_first_data() {
    let mut b = bench();
    b.all_up(GET);
    b.all_down(HEAD);
    assert_eq!(b.session.take_latency(), None);
    b.now += std::time::Duration::from_millis(15);
    b.session.pass_response(1, b.now);
    assert_eq!(b.total("response_latency_ms_count"), 1.0);
    let latency = b.session.take_latency().map(|l| l.as_millis());
    assert_eq!((latency, b.session.take_latency()), (Some(15), None));
}

#[test]
fn chunks_are_seen_and_what_has_no_length_is_not() {
    let mut b = bench();
    b.all_up(GET);
    b.all_down("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel");
    assert_eq!(b.session.unread_response(), 0);
    b.all_down("lo\r\n0\r\n\r\n");
    b.all_up(GET);
    b.all_down("HTTP/1.1 200 OK\r\n\r\nx");
    assert_eq!(b.session.unread_response(), u64::MAX);
    b.session.pass_response(1 << 20, b.now);
    b.session.server_eof(b.now);
    assert_eq!(b.total("response_total"), 2.0);
}
