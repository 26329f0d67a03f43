//! The accounts of the proxy's own calls to the operator. They are made on the service thread, which writes no cells, and
//! come from there as events; one worker enters them. It must not know connections, nor what is asked.

use std::rc::Rc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::exchange::Tally;
use crate::telemetry::{Classification, ControlLabels, ControlSeries, Recorder, ResponseEnd, Tls};

/// Events that may wait for the worker: those of a thousand calls that begin and end at once. Further ones are lost, and
/// so their counts, until the worker turns again.
pub const CALL_EVENTS: usize = 4096;

/// Something that happened to a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallEvent {
    /// It was made, whether or not there was a connection.
    Request,
    /// The time to its first message, or to its end if it had none, with the status of the response.
    Latency(Option<u16>, Duration),
    /// It ended, as [`ResponseEnd`] has it.
    Response {
        status: Option<u16>,
        classification: Classification,
        grpc_status: String,
        error: String,
    },
}

/// Sends the events of calls to the worker that enters them.
#[derive(Clone, Debug)]
pub struct CallLog(mpsc::Sender<CallEvent>);

/// Where the events of calls come from, and whom they are made to.
#[derive(Debug)]
pub struct CallSource {
    /// Host and port of the operator, as configured.
    pub addr: String,
    /// How the connection to it is secured.
    pub tls: Tls,
    pub events: mpsc::Receiver<CallEvent>,
}

impl CallSource {
    /// Of calls to this address, with the log that they are written to.
    pub fn new(addr: String, tls: Tls) -> (CallLog, Self) {
        let (log, events) = mpsc::channel(CALL_EVENTS);
        (CallLog(log), Self { addr, tls, events })
    }
}

impl CallLog {
    fn tell(&self, event: CallEvent) {
        if let Err(error) = self.0.try_send(event) {
            tracing::debug!(%error, "a call to the operator is not counted");
        }
    }
}

impl Tally for CallLog {
    fn request(&self) {
        self.tell(CallEvent::Request);
    }

    fn latency(&self, status: Option<u16>, latency: Duration) {
        self.tell(CallEvent::Latency(status, latency));
    }

    fn response(&self, end: &ResponseEnd<'_>) {
        self.tell(CallEvent::Response {
            status: end.status,
            classification: end.classification,
            grpc_status: end.grpc_status.to_owned(),
            error: end.error.to_owned(),
        });
    }
}

/// The series of calls to one operator, printed from the start.
pub struct Calls {
    recorder: Rc<Recorder>,
    source: CallSource,
    series: ControlSeries,
}

impl Calls {
    pub fn new(recorder: Rc<Recorder>, source: CallSource) -> Self {
        Self {
            series: series(&recorder, &source),
            recorder,
            source,
        }
    }

    /// Enters everything that happens, for as long as there is somebody whose calls they are.
    pub async fn enter(&mut self) {
        while let Some(event) = self.source.events.recv().await {
            self.note(&event);
        }
        std::future::pending().await
    }

    /// Takes over changed rules of what is recorded; call after the recorder's tick.
    pub fn renew(&mut self) {
        if !self.series.is_current() {
            self.series = series(&self.recorder, &self.source);
        }
    }

    fn note(&self, event: &CallEvent) {
        match event {
            CallEvent::Request => self.series.request(),
            CallEvent::Latency(status, latency) => self.series.latency(*status, *latency),
            CallEvent::Response {
                status,
                classification,
                grpc_status,
                error,
            } => self.series.response(&ResponseEnd {
                status: *status,
                classification: *classification,
                grpc_status,
                error,
            }),
        }
    }
}

fn series(recorder: &Recorder, source: &CallSource) -> ControlSeries {
    recorder.control(&ControlLabels {
        addr: &source.addr,
        tls: &source.tls,
    })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::exchange::{End, Exchange};
    use crate::telemetry::{self, NoTlsReason, Selection};

    fn lines(telemetry: &telemetry::Telemetry) -> Vec<String> {
        let mut text = Vec::new();
        let printed = telemetry.expose(&Selection::default(), &mut text);
        printed.expect("a Vec takes any bytes");
        let text = String::from_utf8(text).expect("text");
        let mine = |line: &&str| line.starts_with("control_") && !line.contains("_bucket");
        text.lines().filter(mine).map(str::to_owned).collect()
    }

    #[test]
    fn calls_are_counted_as_requests_are_and_known_before_the_first() {
        let (telemetry, mut seats) = telemetry::new(telemetry::Config::default(), 1);
        let recorder = Rc::new(seats.remove(0).take());
        let tls = Tls::Mutual {
            id: "operator.example".into(),
        };
        let (log, source) = CallSource::new("operator.example:8086".to_owned(), tls);
        let mut calls = Calls::new(Rc::clone(&recorder), source);
        let labels = r#"addr="operator.example:8086",tls="true",server_id="operator.example""#;
        assert_eq!(
            lines(&telemetry),
            [format!("control_request_total{{{labels}}} 0")]
        );
        let now = Instant::now();
        // A watch whose first message takes 3 ms, and that its server ends.
        let mut watch = Exchange::open(log.clone(), now);
        watch.head(200);
        watch.first_data(now + Duration::from_millis(3));
        watch.grpc_status(Some(14));
        watch.end(now + Duration::from_secs(60), End::Complete);
        // One that is broken before its head, and one that is given up.
        Exchange::open(log.clone(), now).end(now, End::Reset);
        drop(Exchange::open(log, now));
        while let Ok(event) = calls.source.events.try_recv() {
            calls.note(&event);
        }
        let ended = |text: &str| format!("control_response_total{{{labels},{text}}} 1");
        let failure = |text: &str| ended(&format!("{text}classification=\"failure\""));
        let with = |head: String, rest: &str| head.replace("} 1", &format!(",{rest}}} 1"));
        let all = lines(&telemetry);
        for line in [
            format!("control_request_total{{{labels}}} 3"),
            with(
                failure("status_code=\"200\","),
                "grpc_status_code=\"14\",error=\"\"",
            ),
            with(
                failure("status_code=\"502\","),
                "grpc_status_code=\"\",error=\"reset\"",
            ),
            with(failure(""), "grpc_status_code=\"\",error=\"canceled\""),
            format!("control_response_latency_ms_count{{{labels},status_code=\"200\"}} 1"),
            format!("control_response_latency_ms_sum{{{labels},status_code=\"200\"}} 3"),
        ] {
            assert!(all.contains(&line), "{line} is not in {all:#?}");
        }
    }

    #[test]
    fn they_outlive_time_and_policy() {
        let (telemetry, mut seats) = telemetry::new(telemetry::Config::default(), 1);
        let recorder = Rc::new(seats.remove(0).take());
        let tls = Tls::NoIdentity(NoTlsReason::Loopback);
        let (_log, source) = CallSource::new("localhost:8086".to_owned(), tls);
        let mut calls = Calls::new(Rc::clone(&recorder), source);
        let mut now = Instant::now();
        for (policy, labels) in [
            (
                "",
                r#"addr="localhost:8086",tls="no_identity",no_tls_reason="loopback""#,
            ),
            ("dropLabels: [addr, tls]", r#"no_tls_reason="loopback""#),
        ] {
            telemetry.set_policy(&telemetry::policy(policy).expect("a policy"));
            for _ in 0..700 {
                now += Duration::from_secs(1);
                recorder.tick(now);
                calls.renew();
                telemetry.sweep(now);
            }
            assert_eq!(
                lines(&telemetry),
                [format!("control_request_total{{{labels}}} 0")]
            );
        }
    }
}
