//! The book of one inbound connection, and what comes to stand in it. Sessions that are fed by hand write
//! into it: here, in the tests of the relay, and in the fuzzer.

use std::rc::Rc;

use weir_proxy::record::{Book, Labels, Subject};
use weir_proxy::telemetry::{self, Selection, Telemetry};

/// An empty book, and the telemetry that shows it.
pub(crate) fn inbound() -> (Telemetry, Book) {
    let (telemetry, mut seats) = telemetry::new(telemetry::Config::default(), 1);
    let labels = Rc::new(Labels::new("all-unauthenticated"));
    let book = Book {
        recorder: Rc::new(seats.remove(0).take()),
        subject: Subject::Inbound {
            server: labels.default_server(80),
        },
        labels,
        target_port: 80,
        standing: Default::default(),
    };
    (telemetry, book)
}

/// The sum of all series that begin so.
pub(crate) fn total(telemetry: &Telemetry, series: &str) -> f64 {
    let mut body = Vec::new();
    telemetry
        .expose(&Selection::default(), &mut body)
        .expect("a vector takes all");
    let body = String::from_utf8(body).expect("text");
    let lines = body.lines().filter(|line| line.starts_with(series));
    lines
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
        .sum()
}
