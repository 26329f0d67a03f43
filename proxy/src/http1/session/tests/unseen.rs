//! Requests that nobody has seen: which answers say so, what of them is sent to another server, and how often.

use std::net::SocketAddr;
use std::time::Duration;

use super::steer::{get, post, retryable, route, steered};
use super::{Bench, OK};
use crate::exchange::End;
use crate::http1::reply::Reply;
use crate::http1::session::{Hop, Leave, MAX_REFUSALS};
use crate::routes::MAX_KEPT;

fn at(n: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, n], 8080))
}

/// What the proxy in front of a server says that it cannot reach.
fn refusal(n: u8) -> String {
    let bytes = Reply::Connect.bytes_at(Some(at(n)));
    String::from_utf8(bytes.into_owned()).expect("text")
}

impl Bench {
    /// Connected to this server, one of several.
    pub(super) fn meets(&mut self, n: u8, has_other: bool) {
        let hop = Hop {
            addr: at(n),
            has_other,
        };
        self.session.dialed(Some(hop));
    }

    /// Whether the server is left for another one, and set aside.
    fn is_unseen(&mut self, response: &str) -> bool {
        let passed = self.down(response);
        let leaves = self.session.leave() == Some(Leave::Again);
        assert_eq!(leaves, passed == 0, "shown, or not");
        leaves && self.session.take_refusal()
    }

    /// Finds the next server, and says what that is given first.
    fn goes_to(&mut self, n: u8, has_other: bool) -> String {
        assert_eq!(self.session.set_out(self.now), None);
        self.meets(n, has_other);
        String::from_utf8(self.session.replay().to_vec()).expect("text")
    }

    fn replays(&mut self) {
        let n = self.session.replay().len();
        self.session.replayed(n);
    }
}

/// A connection to a service without routes.
fn plain() -> Bench {
    steered(Vec::new(), 0)
}

#[test]
fn a_request_of_any_kind_goes_to_another_server_as_it_was() {
    for request in [
        get("/"),
        post("/", "body"),
        "DELETE /a HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n".to_owned(),
        "POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\nA: b\r\n\r\n".to_owned(),
    ] {
        for timeout in [false, true] {
            let mut b = plain();
            b.meets(1, true);
            // In pieces of any size.
            let (mut from, mut end) = (0, 1);
            while from < request.len() {
                end = (end + 7).min(request.len());
                from += b.up(&request[from..end]);
            }
            let said = if timeout {
                let bytes = Reply::Timeout.bytes_at(Some(at(1)));
                String::from_utf8(bytes.into_owned()).expect("text")
            } else {
                refusal(1)
            };
            assert_eq!(b.down(&said[..60]), 0, "half a head says nothing");
            assert_eq!(b.session.leave(), None);
            assert!(b.is_unseen(&said), "{request}");
            assert_eq!(b.session.take_latency(), None, "nobody was fast");
            assert_eq!(b.session.refused(), [at(1)]);
            assert_eq!(b.goes_to(2, false), request);
            b.replays();
            b.all_down(OK);
            assert!(!b.session.is_kept() && b.session.steering.is_none());
            assert_eq!(b.total("request_total"), 1.0);
            assert_eq!(b.response(), "200,success,");
            assert_eq!(b.total("response_latency_ms_count"), 1.0);
            assert_eq!(b.total("outbound_http_errors_total"), 0.0);
        }
    }
}

#[test]
fn what_is_not_this_servers_own_word_is_passed_on() {
    let own = refusal(1);
    let cases = [
        (refusal(2), "another hop: what is behind the server said so"),
        (own.replace('"', ""), "no string"),
        (own.replace("; next-hop=\"10.0.0.1:8080\"", ""), "no hop"),
        (own.replace("502", "503"), "another status"),
        (
            own.replace("connection_refused", "connection_terminated"),
            "it was seen",
        ),
        (own.replace("weir", "cdn"), "another proxy"),
        (
            own.replace("\r\nconnection", "\r\nproxy-status: x\r\nconnection"),
            "there are two",
        ),
        (own.replace("proxy-status", "x-status"), "another field"),
    ];
    for (said, why) in cases {
        let mut b = plain();
        b.meets(1, true);
        b.all_up(&post("/", "body"));
        b.all_down(&said);
        assert!(!b.session.take_refusal(), "{why}");
        assert_eq!(b.session.leave(), None, "{why}");
        assert!(!b.session.is_kept(), "{why}");
        assert_eq!(b.total("response_total"), 1.0, "{why}");
    }
}

#[test]
fn nothing_is_kept_where_there_is_one_server_and_behind_the_first_response() {
    let mut b = plain();
    b.all_up(&get("/"));
    assert!(!b.session.is_kept(), "it is the only one");
    b.all_down(&refusal(1));
    assert!(!b.session.take_refusal());

    let mut b = plain();
    b.meets(1, true);
    b.all_up(&get("/"));
    assert!(b.session.is_kept());
    b.all_down("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n");
    assert!(!b.session.is_kept());
    b.all_down("ok");
    b.all_up(&post("/", "body"));
    assert!(!b.session.is_kept() && b.session.steering.is_none());
    b.all_down(&refusal(1));
    assert!(
        !b.session.take_refusal(),
        "its application has answered before"
    );
    assert_eq!(b.session.leave(), None);
}

#[test]
fn the_last_server_is_heard_and_so_is_one_too_many() {
    let mut b = plain();
    b.meets(1, true);
    b.all_up(&get("/"));
    for n in 1..=MAX_REFUSALS as u8 {
        assert!(b.is_unseen(&refusal(n)));
        assert_eq!(b.goes_to(n + 1, true), get("/"));
        b.replays();
    }
    b.all_down(&refusal(MAX_REFUSALS as u8 + 1));
    assert!(b.session.take_refusal(), "it is set aside all the same");
    assert_eq!(b.response(), "502,failure,");

    let mut b = plain();
    b.meets(1, true);
    b.all_up(&get("/"));
    assert!(b.is_unseen(&refusal(1)));
    b.goes_to(2, false);
    b.replays();
    b.all_down(&refusal(2));
    assert!(b.session.take_refusal());
    assert_eq!(b.response(), "502,failure,");
    assert_eq!(b.total("response_total"), 1.0);
}

#[test]
fn what_is_larger_than_may_be_kept_is_answered_and_its_server_is_set_aside() {
    let head = post("/", "").len() + "65432".len() - 1;
    let fitting = post("/", &"x".repeat(MAX_KEPT - head));
    assert_eq!(fitting.len(), MAX_KEPT);
    let mut b = plain();
    b.meets(1, true);
    b.all_up(&fitting);
    assert!(b.is_unseen(&refusal(1)));
    assert!(b.goes_to(2, false) == fitting);

    let larger = post("/", &"x".repeat(MAX_KEPT + 100 - head));
    let mut b = plain();
    b.meets(1, true);
    b.all_up(&larger[..MAX_KEPT + 1]);
    assert_eq!(b.session.unread_request(), 99, "the rest passes unread");
    b.all_down(&refusal(1));
    assert!(b.session.take_refusal());
    assert_eq!(b.session.leave(), None);
    assert_eq!(b.response(), "502,failure,");
}

#[test]
fn a_request_that_is_still_on_its_way_goes_on_to_the_other_server() {
    let request = post("/", "0123456789");
    let (first, rest) = request.split_at(request.len() - 6);
    let mut b = plain();
    b.meets(1, true);
    b.all_up(first);
    assert!(b.is_unseen(&refusal(1)));
    assert_eq!(b.goes_to(2, true), first);
    // What comes before that is given goes behind it, and is kept, too.
    b.all_up(&rest[..3]);
    assert_eq!(b.session.replay(), first.as_bytes());
    b.replays();
    assert!(b.is_unseen(&refusal(2)));
    assert_eq!(b.goes_to(3, false), request[..request.len() - 3]);
    b.replays();
    b.all_up(&rest[3..]);
    b.all_down(OK);
    assert_eq!(b.response(), "200,success,");

    // One that grows too large meanwhile is given to this server whole, and to no other.
    let large = post("/", &"x".repeat(MAX_KEPT));
    let mut b = plain();
    b.meets(1, true);
    b.all_up(&large[..1000]);
    assert!(b.is_unseen(&refusal(1)));
    assert_eq!(b.goes_to(2, true), large[..1000]);
    b.all_up(&large[1000..]);
    assert_eq!(b.session.replay(), &large.as_bytes()[..1000]);
    b.replays();
    assert!(!b.session.is_kept());
    b.all_down(&refusal(2));
    assert_eq!(b.response(), "502,failure,");
}

#[test]
fn who_waits_for_leave_or_offers_to_switch_does_so_at_the_other_server() {
    let head = "POST / HTTP/1.1\r\nHost: web\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";
    let mut b = plain();
    b.meets(1, true);
    b.all_up(head);
    assert!(b.is_unseen(&refusal(1)));
    assert_eq!(b.goes_to(2, false), head);
    b.replays();
    b.all_down("HTTP/1.1 100 Continue\r\n\r\n");
    b.all_up("body");
    b.all_down(OK);
    assert_eq!(b.response(), "200,success,");

    let offer = "GET / HTTP/1.1\r\nHost: web\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";
    let connect = "CONNECT web:80 HTTP/1.1\r\nHost: web:80\r\n\r\n";
    for (request, accepted) in [(offer, 101), (connect, 200)] {
        let mut b = plain();
        b.meets(1, true);
        b.all_up(request);
        assert!(b.is_unseen(&refusal(1)));
        assert_eq!(b.goes_to(2, false), request);
        assert_eq!(b.up("ahead"), 0, "nothing may follow it yet");
        b.replays();
        b.all_down(&format!("HTTP/1.1 {accepted} X\r\n\r\n"));
        assert!(b.session.is_tunnel() && b.session.take_resumed());
        b.all_up("ahead");
    }
}

#[test]
fn what_is_sent_ahead_goes_on_at_once_and_then_the_first_is_not_kept() {
    let mut b = plain();
    b.meets(1, true);
    b.all_up(&get("/a").repeat(3));
    assert!(!b.session.is_kept());
    b.all_down(&refusal(1));
    assert!(b.session.take_refusal(), "it is set aside");
    assert_eq!(b.session.leave(), None);

    // Behind one that is sent again it waits until that is given.
    let mut b = plain();
    b.meets(1, true);
    b.all_up(&get("/a"));
    assert!(b.is_unseen(&refusal(1)));
    assert_eq!(b.up(&get("/b")), 0);
    assert_eq!(b.goes_to(2, false), get("/a"));
    b.session.replayed(5);
    assert_eq!(b.up(&get("/b")), 0);
    b.replays();
    assert!(b.session.take_resumed());
    b.all_up(&get("/b"));
    b.all_down(OK);
    b.all_down(OK);
    assert_eq!(b.total("response_total"), 2.0);
}

#[test]
fn a_server_that_is_lost_or_silent_may_have_seen_it() {
    let mut b = plain();
    b.meets(1, true);
    b.all_up(&get("/"));
    assert!(!b.session.server_lost(b.now));
    assert!(!b.session.is_kept());
    assert!(b.session.owes_first_answer());
}

#[test]
fn it_takes_nothing_of_a_budget_and_is_an_attempt_of_its_route() {
    for (routed, retries) in [(route("/"), 0), (retryable("/"), 1)] {
        let mut b = steered(vec![routed], retries);
        b.meets(1, true);
        b.all_up(&get("/"));
        for n in 1..=2 {
            assert!(b.is_unseen(&refusal(n)));
            b.goes_to(n + 1, true);
            b.replays();
        }
        let busy = "HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy";
        if retries == 0 {
            b.all_down(busy);
        } else {
            assert_eq!(b.down(busy), 0, "the budget is whole");
            b.goes_to(4, true);
            b.replays();
            b.all_down(OK);
        }
        let attempts = 3.0 + f64::from(retries);
        assert_eq!(b.total("route_actual_request_total"), attempts);
        assert_eq!(b.total("route_actual_response_total"), attempts);
        assert_eq!(b.total("route_request_total"), 1.0);
        let failed = b.samples("route_actual_response_total").into_iter();
        let failed = failed.filter(|(labels, _)| labels.contains("status_code=\"502\""));
        assert_eq!(failed.map(|(_, n)| n).sum::<f64>(), 2.0);
    }
}

#[test]
fn the_timeout_of_its_route_is_of_all_attempts() {
    let timed = weir_crds::routes::Route {
        timeout_ms: Some(1000),
        ..route("/")
    };
    let mut b = steered(vec![timed], 0);
    b.meets(1, true);
    b.all_up(&get("/"));
    let deadline = b.session.deadline().expect("one");
    b.now += Duration::from_millis(600);
    assert!(b.is_unseen(&refusal(1)));
    assert_eq!(b.session.patience(), Some(Duration::from_secs(1)));
    assert_eq!(b.session.since(), Some(deadline - Duration::from_secs(1)));
    b.goes_to(2, false);
    b.replays();
    assert_eq!(b.session.deadline(), Some(deadline));
    b.session.expire(deadline);
    assert_eq!(b.response(), "504,failure,timeout");
}

#[test]
fn a_client_that_leaves_before_another_server_is_found_has_canceled() {
    let mut b = plain();
    b.meets(1, true);
    b.all_up(&get("/"));
    assert!(b.is_unseen(&refusal(1)));
    b.session.end_all(b.now, End::Canceled);
    assert_eq!(b.response(), "-,failure,canceled");
}
