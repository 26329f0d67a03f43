//! What a connection's ledger counts, and in what.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::*;
use crate::routes::Choice;
use crate::telemetry::{self, Selection, Telemetry};

fn book() -> (Telemetry, Book) {
    let (telemetry, mut seats) = telemetry::new(telemetry::Config::default(), 1);
    let book = Book {
        recorder: Rc::new(seats.remove(0).take()),
        labels: Rc::new(Labels::new("all-unauthenticated")),
        subject: Subject::Inbound {
            server: Server::new("kuma.io", "dataplane", "web", 80),
        },
        target_port: 80,
        standing: Standing::default(),
    };
    (telemetry, book)
}

/// The sum of the series that begin so: those of former rules are printed for a while.
fn sum(telemetry: &Telemetry, start: &str) -> f64 {
    let mut text = Vec::new();
    let shown = telemetry.expose(&Selection::default(), &mut text);
    shown.expect("a Vec takes all");
    let text = String::from_utf8(text).expect("text");
    let lines = text.lines().filter(|line| line.starts_with(start));
    let values = lines.filter_map(|line| line.rsplit_once(' '));
    values
        .map(|(_, value)| value.parse::<f64>().expect("a number"))
        .sum()
}

#[test]
fn every_request_is_a_decision_and_the_labels_are_made_once() {
    const ALLOWED: &str = "inbound_http_authz_allow_total{";
    let (telemetry, book) = book();
    let recorder = Rc::clone(&book.recorder);
    let mut ledger = HttpLedger::new(book);
    let ask = |ledger: &mut HttpLedger| drop(ledger.series(b"web"[..].into()));
    (0..3).for_each(|_| ask(&mut ledger));
    assert_eq!(sum(&telemetry, ALLOWED), 3.0);
    let last = ledger.last.as_ref().and_then(|last| last.judged.clone());
    assert!(last.expect("it is remembered").count());
    assert_eq!(sum(&telemetry, ALLOWED), 4.0, "without a label");
    // Other rules: what is remembered is not the one any more.
    let policy = telemetry::policy("dropLabels: [srv_port]").expect("a policy");
    telemetry.set_policy(&policy);
    recorder.tick(Instant::now() + Duration::from_secs(1));
    (0..2).for_each(|_| ask(&mut ledger));
    assert_eq!(sum(&telemetry, ALLOWED), 6.0);
}

#[test]
fn a_request_of_no_route_is_neither_let_in_nor_denied() {
    let (telemetry, book) = book();
    let mut ledger = HttpLedger::new(book.clone());
    for _ in 0..2 {
        drop(ledger.account(b"web"[..].into(), &Choice::Refused));
    }
    drop(ledger.account(b"web"[..].into(), &Choice::Unrouted));
    let not_found =
        "inbound_http_route_not_found_total{direction=\"inbound\",authority=\"web\",srv_group=";
    for (series, n) in [
        (not_found, 2.0),
        ("inbound_http_authz_allow_total{", 1.0),
        ("inbound_http_authz_deny_total{", 0.0),
        ("route_", 0.0),
    ] {
        assert_eq!(sum(&telemetry, series), n, "{series}");
    }
    // At the client's side it is one of its service's, and of none of this.
    let subject = Subject::Outbound {
        service: "web".into(),
        dst: Dst::unknown(),
    };
    let mut outbound = HttpLedger::new(Book { subject, ..book });
    drop(outbound.account(b"web"[..].into(), &Choice::Refused));
    assert_eq!(sum(&telemetry, not_found), 2.0);
}
