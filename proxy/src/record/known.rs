//! What is known before anything happens: the servers of the pod that configuration or its settings describe, and the
//! listeners for its own calls. Their series are printed at 0 from the start and stay. Kept by `worker` for as long as
//! it runs.

use std::rc::Rc;

use super::{Book, Labels, Standing, Subject};
use crate::telemetry::{Recorder, Server, TransportSeries};

/// Series that do not wait for their first connection.
pub struct Known {
    books: Vec<Book>,
    /// Of the servers that the settings in force describe.
    described: Vec<Book>,
    series: Vec<TransportSeries>,
}

impl Known {
    /// Those of connections as these books would count them.
    pub fn new(books: Vec<Book>) -> Self {
        let mut known = Self {
            books,
            described: Vec::new(),
            series: Vec::new(),
        };
        known.resolve();
        known
    }

    /// Those servers of the pod are described by now, and no others beside the ones of the start.
    pub fn describe(
        &mut self,
        (recorder, labels): (&Rc<Recorder>, &Rc<Labels>),
        servers: impl IntoIterator<Item = (u16, Server)>,
    ) {
        let book = |(target_port, server)| Book {
            recorder: Rc::clone(recorder),
            labels: Rc::clone(labels),
            subject: Subject::Inbound { server },
            target_port,
            standing: Standing::default(),
        };
        self.described = servers.into_iter().map(book).collect();
        self.resolve();
    }

    /// Takes over changed rules of what is recorded; call after the recorder's tick.
    pub fn renew(&mut self) {
        if !self.series.iter().all(TransportSeries::is_current) {
            self.resolve();
        }
    }

    fn resolve(&mut self) {
        let books = self.books.iter().chain(&self.described);
        self.series = books.flat_map(Book::known).collect();
    }
}

impl Book {
    /// The series of both ends; where the application calls, only of its own: which endpoint it will be is not known.
    fn known(&self) -> Vec<TransportSeries> {
        let src = self.recorder.transport(&self.src());
        match &self.subject {
            Subject::Inbound { server } => {
                self.recorder.know_server(server);
                vec![src, self.recorder.transport(&self.dst())]
            }
            Subject::Outbound { .. } => vec![src],
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::telemetry::{self, Selection, Telemetry};

    #[test]
    fn a_described_server_is_printed_at_zero_whatever_the_policy_and_the_time() {
        let (telemetry, mut seats) = telemetry::new(telemetry::Config::default(), 1);
        let recorder = Rc::new(seats.remove(0).take());
        let server = Server::new("kuma.io", "dataplane", "web", 8080);
        let labels = Rc::new(Labels::new("all-unauthenticated"));
        let mut known = Known::new(vec![Book {
            recorder: Rc::clone(&recorder),
            labels,
            subject: Subject::Inbound { server },
            target_port: 8080,
            standing: Default::default(),
        }]);
        let mut now = Instant::now();
        for policy in ["", "dropLabels: [srv_port, target_port]"] {
            telemetry.set_policy(&telemetry::policy(policy).expect("a policy"));
            for _ in 0..700 {
                now += Duration::from_secs(1);
                recorder.tick(now);
                known.renew();
                telemetry.sweep(now);
            }
            let mut text = Vec::new();
            let printed = telemetry.expose(&Selection::default(), &mut text);
            printed.expect("a Vec takes any bytes");
            let text = String::from_utf8(text).expect("text");
            let zeroes = |start: &str| {
                let lines = text.lines().filter(|line| line.starts_with(start));
                lines.filter(|line| line.ends_with(" 0")).count()
            };
            assert_eq!(zeroes("tcp_open_total{direction=\"inbound\""), 2, "{text}");
            assert_eq!(zeroes("inbound_http_errors_total{"), 5, "{text}");
            let ports = text.matches("srv_port=\"8080\"").count();
            assert_eq!(ports > 0, policy.is_empty(), "{text}");
        }
    }
    /// How many lines of the exposition hold this.
    fn lines(telemetry: &Telemetry, part: &str) -> usize {
        let mut text = Vec::new();
        let printed = telemetry.expose(&Selection::default(), &mut text);
        printed.expect("a Vec takes any bytes");
        let text = String::from_utf8(text).expect("text");
        text.lines().filter(|line| line.contains(part)).count()
    }

    #[test]
    fn servers_of_the_settings_are_printed_at_zero_until_the_settings_have_them_no_more() {
        let (telemetry, mut seats) = telemetry::new(telemetry::Config::default(), 1);
        let recorder = Rc::new(seats.remove(0).take());
        let labels = Rc::new(Labels::new("all-unauthenticated"));
        let mut known = Known::new(Vec::new());
        let mut now = Instant::now();
        let mut run = |known: &mut Known| {
            for second in 0..1500 {
                now += Duration::from_secs(1);
                recorder.tick(now);
                known.renew();
                telemetry.sweep(now);
                if second % 60 == 0 {
                    lines(&telemetry, "");
                }
            }
        };
        let opened = |name: &str| {
            format!(
                "tcp_open_total{{direction=\"inbound\",peer=\"src\",tls=\"no_identity\",no_tls_reason=\"no_tls_from_remote\",srv_group=\"kuma.io\",srv_kind=\"dataplane\",srv_name=\"{name}\""
            )
        };
        for (name, before) in [("web", "api"), ("api", "web")] {
            let server = Server::new("kuma.io", "dataplane", name, 8080);
            known.describe((&recorder, &labels), [(8080, server)]);
            run(&mut known);
            assert_eq!(lines(&telemetry, &opened(name)), 1, "{name}");
            assert_eq!(lines(&telemetry, &opened(before)), 0, "{before}");
            let to_application = "tcp_open_total{direction=\"inbound\",peer=\"dst\"";
            assert_eq!(lines(&telemetry, to_application), 1);
        }
    }
}
