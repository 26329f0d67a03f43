//! A session with the series it counts in.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use weir_proxy::exchange::End;
use weir_proxy::http2::session::Session;
use weir_proxy::record::{Book, HttpLedger, Labels, Subject};
use weir_proxy::telemetry::{self, Selection, Telemetry};

use crate::wire::{hello, settings};

pub(crate) struct Pair {
    pub(crate) session: Option<Session>,
    telemetry: Telemetry,
    pub(crate) now: Instant,
}

impl Pair {
    /// Before anybody has said anything.
    pub(crate) fn silent(is_inbound: bool) -> Self {
        let (telemetry, mut seats) = telemetry::new(telemetry::Config::default(), 1);
        let recorder = Rc::new(seats.remove(0).take());
        let labels = Rc::new(Labels::new("all-unauthenticated"));
        let subject = if is_inbound {
            Subject::Inbound {
                server: labels.default_server(80),
            }
        } else {
            Subject::Outbound {
                service: "web".into(),
                dst: labels.unknown_destination(),
            }
        };
        let book = Book {
            recorder,
            labels,
            subject,
            target_port: 80,
            standing: Default::default(),
        };
        let mut session = Session::new(HttpLedger::new(book));
        session.dialed();
        Self {
            session: Some(session),
            telemetry,
            now: Instant::now(),
        }
    }

    /// After both have said their prefaces.
    pub(crate) fn new() -> Self {
        let mut pair = Self::silent(true);
        pair.up(&hello());
        pair.down(&settings(&[]));
        pair
    }

    pub(crate) fn session(&self) -> &Session {
        self.session.as_ref().expect("not finished")
    }

    pub(crate) fn up(&mut self, bytes: &[u8]) {
        let session = self.session.as_mut().expect("not finished");
        assert_eq!(session.request_bytes(bytes, self.now), bytes.len());
    }

    pub(crate) fn down(&mut self, bytes: &[u8]) {
        let session = self.session.as_mut().expect("not finished");
        assert_eq!(session.response_bytes(bytes, self.now), bytes.len());
    }

    pub(crate) fn wait(&mut self, millis: u64) {
        self.now += Duration::from_millis(millis);
    }

    pub(crate) fn finish(&mut self, end: End) {
        let mut session = self.session.take().expect("not finished");
        session.end_all(self.now, end);
    }

    /// Series as printed, to value.
    pub(crate) fn samples(&self) -> BTreeMap<String, f64> {
        let mut body = Vec::new();
        let all = Selection::default();
        self.telemetry.expose(&all, &mut body).unwrap();
        let body = String::from_utf8(body).unwrap();
        let lines = body.lines().filter(|line| !line.starts_with('#'));
        let parsed = lines.map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            (series.to_owned(), value.parse().unwrap())
        });
        parsed.collect()
    }

    /// The sum of the series of a family that have all of these labels.
    pub(crate) fn sum(&self, family: &str, labels: &[&str]) -> f64 {
        let prefix = format!("{family}{{");
        let samples = self.samples();
        let of = samples
            .iter()
            .filter(|(s, _)| s.starts_with(&prefix) && labels.iter().all(|l| s.contains(l)));
        of.map(|(_, value)| value).sum()
    }

    pub(crate) fn total(&self, family: &str) -> f64 {
        self.sum(family, &[])
    }

    /// The responses as `status,classification,grpc_status_code,error`, each with its count.
    pub(crate) fn responses(&self) -> BTreeMap<String, f64> {
        let samples = self.samples();
        let responses = samples
            .into_iter()
            .filter(|(s, v)| s.starts_with("response_total{") && *v > 0.0);
        let row = |(series, value): (String, f64)| {
            let label = |key: &str| {
                let rest = series.split_once(&format!(",{key}=\""))?.1;
                Some(rest.split('"').next().unwrap_or_default().to_owned())
            };
            let row = [
                label("status_code").unwrap_or_else(|| "-".to_owned()),
                label("classification").unwrap(),
                label("grpc_status_code").unwrap(),
                label("error").unwrap(),
            ];
            (row.join(","), value)
        };
        let mut rows = BTreeMap::new();
        for (row, value) in responses.map(row) {
            *rows.entry(row).or_default() += value;
        }
        rows
    }

    /// The only response, if there is one.
    pub(crate) fn response(&self) -> Option<String> {
        let responses = self.responses();
        assert!(responses.len() <= 1, "{responses:?}");
        responses.into_iter().next().map(|(row, n)| {
            assert_eq!(n, 1.0, "{row}");
            row
        })
    }
}
