//! What is known before anything happens: the servers of the pod that configuration describes, and the listeners for
//! its own calls. Their series are printed at 0 from the start and stay. Kept by `worker` for as long as it runs.

use super::{Book, Subject};
use crate::telemetry::TransportSeries;

/// Series that do not wait for their first connection.
pub struct Known {
    books: Vec<Book>,
    series: Vec<TransportSeries>,
}

impl Known {
    /// Those of connections as these books would count them.
    pub fn new(books: Vec<Book>) -> Self {
        let mut known = Self {
            books,
            series: Vec::new(),
        };
        known.resolve();
        known
    }

    /// Takes over changed rules of what is recorded; call after the recorder's tick.
    pub fn renew(&mut self) {
        if !self.series.iter().all(TransportSeries::is_current) {
            self.resolve();
        }
    }

    fn resolve(&mut self) {
        self.series = self.books.iter().flat_map(Book::known).collect();
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
    use std::rc::Rc;
    use std::time::{Duration, Instant};

    use super::super::Labels;
    use super::*;
    use crate::telemetry::{self, Selection, Server};

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
}
