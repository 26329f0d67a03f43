//! Exposition: whatever a peer puts into a label comes out of either format as it went in, in a body that a strict
//! reader takes.
//!
//! The input: labels, as `Arbitrary` makes them of bytes. Run by the fuzzer, and by `tests/corpora` on
//! what is in `corpus`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use weir_proxy::telemetry::{
    self, Classification, Config, Dst, Format, HttpLabels, HttpSide, ResponseEnd, Selection,
    Telemetry, Tls, TransportEnd, TransportLabels,
};

use super::parser::{self, Sample, Syntax};

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    authority: &'a str,
    name: &'a str,
    grpc_status: &'a str,
    dst: Vec<(&'a str, &'a str)>,
    mutual: bool,
}

/// What comes of a value: all of it, but for the one character at which Prometheus would stop reading.
fn printed(value: &str) -> String {
    value.replace('\0', "\u{fffd}")
}

fn samples(telemetry: &Telemetry, format: Format) -> Vec<Sample> {
    let selection = Selection {
        format,
        ..Selection::default()
    };
    let mut body = Vec::new();
    telemetry
        .expose(&selection, &mut body)
        .expect("a Vec takes any bytes");
    let body = String::from_utf8(body).expect("text");
    let syntax = match format {
        Format::Text => Syntax::Text,
        Format::OpenMetrics => Syntax::OpenMetrics,
    };
    let families = parser::parse(&body, syntax).unwrap_or_else(|error| panic!("{error}\n{body}"));
    families
        .into_iter()
        .flat_map(|family| family.samples)
        .collect()
}

/// Records one request and one connection with these labels.
fn recorded(input: &Input<'_>, dst: &Dst) -> Telemetry {
    let (telemetry, mut seats) = telemetry::new(Config::default(), 1);
    let recorder = seats.remove(0).take();
    let name: Arc<str> = input.name.into();
    let tls = match input.mutual {
        true => Tls::Mutual { id: name },
        false => Tls::Opaque { sni: name },
    };
    let http = recorder.http(&HttpLabels {
        authority: input.authority,
        target_port: 80,
        tls: &tls,
        side: HttpSide::Outbound { dst },
    });
    http.request();
    http.latency(Some(200), Duration::from_millis(3));
    http.response(&ResponseEnd {
        status: Some(200),
        classification: Classification::Success,
        grpc_status: input.grpc_status,
        error: "",
    });
    let end = TransportEnd::OutboundDst {
        authority: input.authority,
        dst,
    };
    recorder.transport(&TransportLabels {
        target_port: 80,
        tls: &tls,
        end,
    });
    telemetry
}

pub(crate) fn run(data: &[u8]) {
    let Ok(input) = Input::arbitrary_take_rest(Unstructured::new(data)) else {
        return;
    };
    let telemetry = recorded(&input, &Dst::new(input.dst.iter().copied()));
    let id = if input.mutual { "server_id" } else { "sni" };
    // Of one label the last value counts.
    let destination: BTreeMap<_, _> = input
        .dst
        .iter()
        .map(|(key, value)| (label(key), *value))
        .collect();
    for format in [Format::Text, Format::OpenMetrics] {
        let samples = samples(&telemetry, format);
        for family in [
            "request_total",
            "response_total",
            "response_latency_ms_count",
            "tcp_open_total",
        ] {
            let mut of = samples.iter().filter(|sample| sample.name == family);
            let labels = &of.next().expect("the series was recorded").labels;
            assert!(of.next().is_none(), "one series was recorded");
            assert_eq!(labels["authority"], printed(input.authority));
            assert_eq!(labels[id], printed(input.name));
            for (key, value) in &destination {
                assert_eq!(labels[key], printed(value));
            }
            if family == "response_total" {
                assert_eq!(labels["grpc_status_code"], printed(input.grpc_status));
            }
        }
    }
}

fn label(key: &str) -> String {
    let valid = |c: char| {
        if c.is_ascii_alphanumeric() || c == '_' {
            c
        } else {
            '_'
        }
    };
    format!("dst_{}", key.chars().map(valid).collect::<String>())
}
