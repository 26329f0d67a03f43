//! Which families a query leaves, on both endpoints, in both formats, compressed or not: by the parsed set of families.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use crate::http;
use crate::parser::{self, Family, Syntax};
use crate::process::{Proxy, until};

/// What has changed after one request over a connection that was closed.
const TCP: [&str; 6] = [
    "tcp_close_total",
    "tcp_connection_duration_ms",
    "tcp_open_connections",
    "tcp_open_total",
    "tcp_read_bytes_total",
    "tcp_write_bytes_total",
];
/// The request, and who was let in: it, and whoever found out whether the proxy listens.
const ASKED: [&str; 5] = [
    "inbound_http_authz_allow_total",
    "inbound_tcp_authz_allow_total",
    "request_total",
    "response_latency_ms",
    "response_total",
];
const PROCESS: [&str; 8] = [
    "process_cpu_seconds_total",
    "process_max_fds",
    "process_open_fds",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
    "process_threads",
    "process_virtual_memory_bytes",
    "proxy_build_info",
];
const OWN: [&str; 3] = [
    "weir_scrape_duration_seconds",
    "weir_scrape_worker_delay_seconds",
    "weir_series",
];
/// Printed at 0 before anything of the kind has happened, of traffic and of the proxy itself.
const UNUSED: [&str; 4] = [
    "http2_active_connections",
    "http2_active_streams",
    "inbound_http_errors_total",
    "outbound_http_errors_total",
];
const IDLE: [&str; 3] = [
    "weir_http_detect_timeout_total",
    "weir_series_dropped_total",
    "weir_series_evicted_total",
];

const REPRESENTATIONS: [(&str, Syntax); 4] = [
    ("", Syntax::Text),
    ("Accept-Encoding: gzip\r\n", Syntax::Text),
    (
        "Accept: application/openmetrics-text;version=1.0.0\r\n",
        Syntax::OpenMetrics,
    ),
    (
        "Accept: application/openmetrics-text\r\nAccept-Encoding: gzip\r\n",
        Syntax::OpenMetrics,
    ),
];

fn set(parts: &[&[&'static str]]) -> BTreeSet<String> {
    parts.concat().into_iter().map(str::to_owned).collect()
}

/// The name of a family in the text format, which is what a filter sees.
fn text_name(family: &Family) -> String {
    match (family.kind.as_str(), family.samples.first()) {
        ("histogram", _) | (_, None) => family.name.clone(),
        (_, Some(sample)) => sample.name.clone(),
    }
}

fn scrape(addr: SocketAddr, path: &str, (headers, syntax): (&str, Syntax)) -> Vec<Family> {
    let answer = http::get(addr, path, headers);
    assert_eq!(answer.status, 200, "{path}");
    let media_type = match syntax {
        Syntax::Text => "text/plain; version=0.0.4; charset=utf-8",
        Syntax::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
    };
    assert_eq!(answer.header("content-type"), media_type);
    let gzip = if headers.contains("gzip") { "gzip" } else { "" };
    assert_eq!(answer.header("content-encoding"), gzip);
    parser::parse(&answer.text(), syntax).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Asserts the families of every representation of this path.
fn assert_families(addr: SocketAddr, path: &str, expected: &BTreeSet<String>) {
    for representation in REPRESENTATIONS {
        let families = scrape(addr, path, representation);
        let names: BTreeSet<_> = families.iter().map(text_name).collect();
        assert_eq!(names, *expected, "{path} {representation:?}");
    }
}

/// A proxy through which one request has gone, whose connections are closed and counted.
fn used(envoy: &str) -> Proxy {
    let proxy = Proxy::start(envoy);
    proxy.request(1, "/");
    until("both connections are counted as closed", || {
        let families = scrape(
            proxy.admin,
            "/metrics?filter=^tcp_close_total$",
            REPRESENTATIONS[0],
        );
        let closes = families.iter().flat_map(|family| &family.samples);
        closes.map(|sample| sample.value).sum::<f64>() >= 2.0
    });
    proxy
}

#[test]
fn filter_and_usedonly_alone_and_together_on_both_endpoints() {
    let proxy = used("");
    for (addr, path) in [(proxy.admin, "/metrics"), (proxy.metrics, "/mesh")] {
        for (query, expected) in [
            ("", set(&[&TCP, &ASKED, &PROCESS, &OWN, &UNUSED, &IDLE])),
            ("?filter=^tcp_", set(&[&TCP])),
            (
                "?filter=tcp_.+total",
                set(&[&[
                    "inbound_tcp_authz_allow_total",
                    "tcp_close_total",
                    "tcp_open_total",
                    "tcp_read_bytes_total",
                    "tcp_write_bytes_total",
                ]]),
            ),
            ("?usedonly", set(&[&TCP, &ASKED, &PROCESS, &OWN])),
            ("?usedonly=1", set(&[&TCP, &ASKED, &PROCESS, &OWN])),
            ("?filter=^tcp_&usedonly", set(&[&TCP])),
            ("?filter=%5Eweir_", set(&[&OWN, &IDLE])),
            ("?usedonly&filter=^weir_", set(&[&OWN])),
            ("?usedonly&filter=^weir_http_", set(&[])),
            // OpenMetrics calls this family `request`; the filter sees one name whatever the format.
            ("?filter=^request_total$", set(&[&["request_total"]])),
            ("?filter=^request$", set(&[])),
            (
                "?format=prometheus&text_readouts&histogram_buckets=cumulative&type=All&x=y&filter=^tcp_",
                set(&[&TCP]),
            ),
        ] {
            assert_families(addr, &format!("{path}{query}"), &expected);
        }
    }
}

#[test]
fn the_mesh_selects_first_and_the_query_after_it() {
    let proxy = used("filterRegex: '^(tcp|weir)_', usedOnly: true");
    for (query, expected) in [
        ("", set(&[&TCP, &OWN])),
        ("?filter=^tcp_", set(&[&TCP])),
        ("?filter=^request", set(&[])),
        ("?filter=open_total&usedonly", set(&[&["tcp_open_total"]])),
    ] {
        assert_families(proxy.metrics, &format!("/mesh{query}"), &expected);
    }
    assert_families(
        proxy.admin,
        "/metrics",
        &set(&[&TCP, &ASKED, &PROCESS, &OWN, &UNUSED, &IDLE]),
    );
    for (addr, path) in [(proxy.admin, "/metrics"), (proxy.metrics, "/mesh")] {
        for (query, named) in [("?filter=(", "`filter`"), ("?format=json", "`format`")] {
            let refused = http::get(addr, &format!("{path}{query}"), "");
            assert_eq!(refused.status, 400);
            assert!(refused.text().contains(named), "{}", refused.text());
        }
    }
}

#[test]
fn both_formats_say_the_same() {
    let proxy = used("");
    let path = "/metrics?filter=^(request|response|tcp)_";
    let [text, open_metrics] = [REPRESENTATIONS[0], REPRESENTATIONS[2]].map(|representation| {
        let families = scrape(proxy.admin, path, representation);
        let samples = families.into_iter().flat_map(|family| family.samples);
        samples.collect::<Vec<_>>()
    });
    assert_eq!(text.len(), open_metrics.len());
    for (text, open_metrics) in text.iter().zip(&open_metrics) {
        let mut labels = text.labels.clone();
        if let Some(le) = labels.get_mut("le").filter(|le| *le != "+Inf") {
            le.push_str(".0");
        }
        assert_eq!(
            (&text.name, &labels, text.value),
            (&open_metrics.name, &open_metrics.labels, open_metrics.value)
        );
    }
}
