//! Which server the next request is for, and what is kept of one that may be sent again: without sockets.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use weir_crds::routes::{Backend, Condition, RetryBudget, Route, RouteTable};

use super::{Bench, OK};
use crate::exchange::End;
use crate::http1::reply::Reply;
use crate::http1::session::{Leave, Session};
use crate::record::{Book, HttpLedger, Labels, Subject};
use crate::routes::{MAX_ATTEMPTS, MAX_KEPT, Routing, compile};
use crate::telemetry;

mod model;

const BUSY: &str = "HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy";

pub(super) fn route(path: &str) -> Route {
    Route {
        name: path.to_owned(),
        condition: Condition::PathPrefix(path.to_owned()),
        classes: Vec::new(),
        timeout_ms: None,
        retryable: false,
        backends: Vec::new(),
        missing: 0,
    }
}

fn leading(path: &str, to: &str) -> Route {
    let authority = to.to_owned();
    Route {
        backends: vec![Backend {
            authority,
            weight: 1,
        }],
        ..route(path)
    }
}

pub(super) fn retryable(path: &str) -> Route {
    Route {
        retryable: true,
        ..route(path)
    }
}

/// A connection to a service with these routes, and so many retries.
pub(super) fn steered(routes: Vec<Route>, retries: u32) -> Bench {
    drawing(routes, retries, 7)
}

/// The same, whose lots are drawn by this seed.
fn drawing(routes: Vec<Route>, retries: u32, seed: u64) -> Bench {
    let (telemetry, mut seats) = telemetry::new(telemetry::Config::default(), 1);
    let labels = Rc::new(Labels::new("all-unauthenticated"));
    let subject = Subject::Outbound {
        service: "web".into(),
        dst: labels.unknown_destination(),
    };
    let book = Book {
        recorder: Rc::new(seats.remove(0).take()),
        labels,
        subject,
        target_port: 80,
        standing: Default::default(),
    };
    let budget = RetryBudget {
        ratio: 0.0,
        min_per_second: retries,
        ttl: Duration::from_secs(1),
    };
    let table = RouteTable {
        routes,
        retry_budget: Some(budget),
        ..RouteTable::default()
    };
    let now = Instant::now();
    let routing = Rc::new(Routing::new(1, fastrand::Rng::with_seed(seed)));
    routing.replace(Some(&Arc::new(compile(&table).expect("a table"))), now);
    Bench {
        session: Session::new(HttpLedger::new(book).routed(&routing)),
        telemetry,
        now,
    }
}

pub(super) fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: web\r\n\r\n")
}

pub(super) fn post(path: &str, body: &str) -> String {
    let n = body.len();
    format!("POST {path} HTTP/1.1\r\nHost: web\r\nContent-Length: {n}\r\n\r\n{body}")
}

impl Bench {
    /// Whether the next bytes are for another server.
    fn elsewhere(&mut self, text: &str) -> bool {
        self.up(text) == 0 && self.session.leave() == Some(Leave::Elsewhere)
    }

    /// Finds a server of the backends that are asked for.
    fn set_out(&mut self) -> Option<String> {
        let branch = self.session.set_out(self.now)?;
        Some(branch[0].authority.clone())
    }

    /// The response is not passed on, and the request is to be sent again.
    fn again(&mut self, response: &str) -> bool {
        self.down(response) == 0 && self.session.leave() == Some(Leave::Again)
    }

    /// Everything that the next server is given of a request that is sent again.
    fn given(&mut self) -> String {
        self.session.set_out(self.now);
        let kept = self.session.replay().to_vec();
        self.session.replayed(kept.len());
        String::from_utf8(kept).expect("text")
    }
}

#[test]
fn a_request_for_which_no_server_is_found_is_counted_wherever_it_would_go_by_now() {
    let mut b = steered(vec![route("/a"), leading("/b", "b")], 0);
    b.session.lead_nowhere();
    b.all_up(&get("/b"));
    assert_eq!(b.session.leave(), None);
    assert_eq!(b.total("request_total"), 1.0);
}

#[test]
fn a_request_of_other_backends_waits_for_the_response_before_it_and_for_its_server() {
    let mut b = steered(vec![route("/a"), leading("/b", "b")], 0);
    let (a, other) = (get("/a"), get("/b"));
    assert_eq!(b.up(&format!("{a}{other}")), a.len());
    assert_eq!(b.session.leave(), None, "a response is owed");
    let (most, rest) = OK.split_at(OK.len() - 1);
    b.all_down(most);
    assert_eq!(b.up(&other), 0);
    b.all_down(rest);
    assert!(b.session.take_resumed());
    assert!(b.elsewhere(&other));
    assert_eq!(b.down("late"), 0, "what the server says now is for nobody");
    assert_eq!(b.total("request_total"), 1.0, "nobody has got it yet");
    assert_eq!(b.set_out().as_deref(), Some("b"));
    b.all_up(&other);
    b.all_down(OK);
    assert_eq!(b.session.leave(), None);
    // The same again, then back.
    b.all_up(&other);
    b.all_down(OK);
    assert!(b.elsewhere(&a));
    assert_eq!(b.set_out(), None);
    b.all_up(&a);
    b.all_down(OK);
    assert_eq!(b.total("request_total"), 4.0);
}

#[test]
fn the_first_request_says_which_server_is_looked_for() {
    let mut b = steered(vec![route("/a"), leading("/b", "b")], 0);
    assert!(b.session.look(get("/b").as_bytes(), b.now));
    assert_eq!(b.set_out().as_deref(), Some("b"));
    b.all_up(&get("/b"));
    // One that was dialed before anything was said is another one.
    let mut b = steered(vec![route("/a"), leading("/b", "b")], 0);
    assert!(b.session.look(get("/b").as_bytes(), b.now));
    assert!(b.elsewhere(&get("/b")));
}

#[test]
fn connections_of_routes_that_ask_for_nothing_are_as_before() {
    let mut b = steered(vec![route("/a"), leading("/b", "b"), retryable("/c")], 9);
    let three = get("/a").repeat(3);
    assert_eq!(b.up(&three), three.len(), "all are under way");
    let body = post("/a", &"x".repeat(100));
    b.all_up(&body[..body.len() - 100]);
    assert_eq!(b.session.unread_request(), 100);
}

#[test]
fn a_server_that_has_closed_is_not_left() {
    let mut b = steered(vec![route("/a"), leading("/b", "b")], 0);
    b.all_up(&get("/a"));
    b.all_down(OK);
    b.session.server_eof(b.now);
    b.all_up(&get("/b"));
    assert_eq!(b.session.leave(), None);
}

#[test]
fn a_failure_is_not_passed_on_and_all_of_its_request_is_sent_again() {
    for request in [
        get("/r"),
        post("/r", "body"),
        "POST /r HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\nA: b\r\n\r\n".to_owned(),
    ] {
        let mut b = steered(vec![retryable("/r")], 9);
        // In pieces of any size.
        let (mut at, mut end) = (0, 1);
        while at < request.len() {
            end = (end + 7).min(request.len());
            at += b.up(&request[at..end]);
        }
        b.all_down("HTTP/1.1 103 Early\r\n\r\n");
        assert_eq!(b.down(&BUSY[..20]), 0, "half a head says nothing");
        assert!(b.again(BUSY));
        let ahead = get("/next");
        assert_eq!(b.up(&ahead), 0, "it waits");
        assert_eq!(b.given(), request);
        assert_eq!(b.up(&ahead), 0, "for the response");
        b.all_down(OK);
        b.all_up(&ahead);
        b.all_down(OK);
        for (family, labels, n) in [
            ("request_total", "authority=\"web\"", 2.0),
            ("response_total", "status_code=\"200\"", 2.0),
            ("route_request_total", "rt_route=\"/r\"", 1.0),
            ("route_response_total", "rt_route=\"/r\"", 1.0),
            ("route_actual_request_total", "rt_route=\"/r\"", 2.0),
            ("route_actual_response_total", "status_code=\"503\",classification=\"failure\",error=\"\"", 1.0),
            ("route_actual_response_total", "status_code=\"200\",classification=\"success\",error=\"\"", 2.0),
        ] {
            let samples = b.samples(family).into_iter();
            let found = samples.filter(|(found, _)| found.contains(labels));
            assert_eq!(found.map(|(_, n)| n).sum::<f64>(), n, "{family} {labels}");
        }
    }
}

#[test]
fn a_server_that_is_gone_before_its_response_is_a_failed_attempt() {
    let mut b = steered(vec![retryable("/r")], 9);
    b.all_up(&post("/r", "body"));
    b.all_down("HTTP/1.1 103 Early\r\n\r\n");
    assert_eq!(b.down("HTTP/1.1 200 O"), 0);
    assert!(b.session.server_lost(b.now));
    assert_eq!(b.session.take_latency(), None, "nobody was fast");
    assert_eq!(b.given(), post("/r", "body"));
    assert!(b.session.owes_first_answer(), "the client can be told");
    b.all_down(OK);
    let [(attempt, 1.0), (_, 1.0)] = &b.samples("route_actual_response_total")[..] else {
        panic!("two attempts");
    };
    let end = "status_code=\"502\",classification=\"failure\",error=\"reset\"";
    assert!(attempt.contains(end), "{attempt}");
    // What has begun is not taken back.
    b.all_up(&get("/r"));
    b.all_down("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n");
    assert!(!b.session.server_lost(b.now));
}

#[test]
fn what_may_not_be_sent_again_is_answered_as_it_is() {
    let large = "x".repeat(MAX_KEPT);
    let chunked =
        "POST /r HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n";
    for (request, why) in [
        (get("/other"), "its route does not say so"),
        (post("/r", &large), "it is large"),
        (
            "GET /r HTTP/1.1\r\nHost: web\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n".to_owned(),
            "it offers to switch",
        ),
        (
            "POST /r HTTP/1.1\r\nHost: web\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx"
                .to_owned(),
            "its client waits for leave",
        ),
        (chunked.to_owned(), "it is not whole"),
    ] {
        let mut b = steered(vec![retryable("/r")], 9);
        b.all_up(&request);
        b.all_down(BUSY);
        assert!(!b.session.server_lost(b.now), "{why}");
        assert!(!b.session.is_kept(), "{why}");
        assert_eq!(b.session.leave(), None, "{why}");
        assert_eq!(b.response(), "503,failure,", "{why}");
    }
    let mut b = steered(vec![retryable("/r")], 0);
    b.all_up(&get("/r"));
    b.all_down(BUSY);
    assert_eq!(b.session.leave(), None, "there is no budget");
    b.all_up(&get("/r"));
    assert!(b.session.is_kept());
    assert!(!b.session.server_lost(b.now));
    assert!(!b.session.is_kept(), "nothing is waited for any more");
}

#[test]
fn a_request_as_large_as_may_be_kept_is_and_one_byte_more_passes_unread() {
    let head = post("/r", "").len() + "65432".len() - 1;
    let fitting = post("/r", &"x".repeat(MAX_KEPT - head));
    assert_eq!(fitting.len(), MAX_KEPT);
    let mut b = steered(vec![retryable("/r")], 9);
    b.all_up(&fitting[..MAX_KEPT - 100]);
    assert_eq!(b.session.unread_request(), 0, "all of it has to be seen");
    b.all_up(&fitting[MAX_KEPT - 100..]);
    assert!(b.again(BUSY));
    assert!(b.given() == fitting);
    let larger = post("/r", &"x".repeat(MAX_KEPT + 100 - head));
    let mut b = steered(vec![retryable("/r")], 9);
    b.all_up(&larger[..MAX_KEPT + 1]);
    assert_eq!(b.session.unread_request(), 99);
}

#[test]
fn one_request_is_sent_so_often_and_no_more() {
    let mut b = steered(vec![retryable("/r")], 1000);
    b.all_up(&get("/r"));
    for _ in 1..MAX_ATTEMPTS {
        assert!(b.again(BUSY));
        assert_eq!(b.given(), get("/r"));
    }
    b.all_down(BUSY);
    assert_eq!(b.response(), "503,failure,");
    assert_eq!(b.total("route_actual_request_total"), 10.0);
    assert_eq!(b.total("route_actual_response_total"), 10.0);
}

#[test]
fn what_a_server_answers_early_is_passed_on_and_the_rest_of_the_request_comes_before_the_next() {
    let mut b = steered(vec![retryable("/r")], 9);
    let request = post("/r", "body");
    b.all_up(&request);
    assert!(b.again(BUSY));
    b.session.set_out(b.now);
    b.session.replayed(request.len() - 4);
    b.all_down(OK);
    assert_eq!(b.up(&get("/a")), 0);
    assert_eq!(b.session.replay(), b"body");
    b.session.replayed(4);
    assert!(b.session.take_resumed());
    b.all_up(&get("/a"));
    assert!(b.session.replay().is_empty());
}

#[test]
fn the_timeout_is_of_all_attempts_and_ends_the_last() {
    let timed = Route {
        timeout_ms: Some(1000),
        ..retryable("/r")
    };
    let mut b = steered(vec![timed], 9);
    b.all_up(&get("/r"));
    let deadline = b.session.deadline().expect("one");
    b.now += Duration::from_millis(600);
    assert!(b.again(BUSY));
    assert_eq!(b.session.patience(), Some(Duration::from_secs(1)));
    assert_eq!(b.session.since(), Some(deadline - Duration::from_secs(1)));
    assert_eq!(b.session.deadline(), Some(deadline));
    b.session.expire(deadline);
    assert_eq!(b.session.leave(), None);
    assert_eq!(b.session.refusal(), Some(Reply::Late));
    assert_eq!(b.response(), "504,failure,timeout");
}

#[test]
fn the_latency_of_a_server_is_that_of_its_own_attempt() {
    let mut b = steered(vec![retryable("/r")], 9);
    b.all_up(&get("/r"));
    b.now += Duration::from_millis(70);
    assert!(b.again(BUSY));
    assert_eq!(b.session.take_latency(), Some(Duration::from_millis(70)));
    b.given();
    b.now += Duration::from_millis(5);
    b.all_down(OK);
    assert_eq!(b.session.take_latency(), Some(Duration::from_millis(5)));
    assert_eq!(b.total("route_response_latency_ms_sum"), 75.0);
}

#[test]
fn a_client_that_leaves_between_two_attempts_has_canceled() {
    let mut b = steered(vec![retryable("/r")], 9);
    b.all_up(&get("/r"));
    assert!(b.again(BUSY));
    b.session.end_all(b.now, End::Canceled);
    assert_eq!(b.total("route_actual_request_total"), 2.0);
    assert_eq!(b.total("route_actual_response_total"), 2.0);
    assert_eq!(b.response(), "-,failure,canceled");
}

#[test]
fn a_request_is_drawn_once_however_long_it_waits_for_its_server() {
    let half = || Route {
        missing: 1,
        ..leading("/b", "b")
    };
    let (mut there, mut missing) = (0, 0);
    for seed in 0..64 {
        let mut b = drawing(vec![route("/a"), half()], 0, seed);
        let (a, other) = (get("/a"), get("/b"));
        b.all_up(&a);
        assert_eq!(b.up(&other), 0, "a response is owed");
        b.all_down(OK);
        if !b.elsewhere(&other) {
            assert_eq!(b.session.refusal(), Some(Reply::NoBackend));
            missing += 1;
            continue;
        }
        assert_eq!(b.set_out().as_deref(), Some("b"));
        b.all_up(&other);
        assert!(!b.session.is_refused());
        there += 1;
    }
    assert!(there > 16 && missing > 16, "{there} and {missing}");
}
