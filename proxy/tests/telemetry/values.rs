//! What is printed of odd values: bounds, escapes, zeroes, texts of the peer, and what a process tells of itself.

use std::time::Duration;

use weir_proxy::telemetry::{
    self, Dst, HttpLabels, HttpSide, NoTlsReason, ResponseEnd, Selection, Tls,
};

use crate::scrape::{Groups, scrape, text, traffic};
use crate::text::{SUCCESS, end, one_worker};

#[test]
fn a_latency_on_a_bound_is_within_it() {
    let (telemetry, recorder) = one_worker();
    let series = recorder.http(&Groups::new().inbound("web"));
    series.latency(Some(200), Duration::from_nanos(0));
    series.latency(Some(200), Duration::from_millis(1));
    series.latency(Some(200), Duration::from_nanos(1_000_001));
    series.latency(Some(200), Duration::from_millis(50_000));
    series.latency(Some(200), Duration::MAX);
    series.latency(None, Duration::from_micros(1_500));
    let scrape = scrape(&telemetry, &traffic("response_latency_ms"));
    let of = |name: &str, labels: &str| {
        let mut found = scrape
            .iter()
            .filter(|(s, _)| s.starts_with(name) && s.contains(labels));
        let value = *found.next().expect(labels).1;
        assert!(found.next().is_none(), "{labels} names one series");
        value
    };
    let bucket = |le: &str| {
        of(
            "response_latency_ms_bucket",
            &format!("status_code=\"200\",le=\"{le}\""),
        )
    };
    let cumulative = ["1", "2", "40000", "50000", "+Inf"].map(bucket);
    assert_eq!(cumulative, [2.0, 3.0, 3.0, 4.0, 5.0]);
    assert_eq!(of("response_latency_ms_count", "status_code=\"200\""), 5.0);
    let unknown = scrape
        .iter()
        .filter(|(s, _)| !s.contains("status_code"))
        .collect::<Vec<_>>();
    assert_eq!(unknown.len(), 26 + 2);
    assert_eq!(
        *unknown.last().unwrap().1,
        1.5,
        "the sum keeps the half millisecond: {unknown:?}"
    );
}

#[test]
fn label_values_are_escaped_and_names_made_valid() {
    let (telemetry, recorder) = one_worker();
    let tls = Tls::NoIdentity(NoTlsReason::PortSkipped);
    let dst = Dst::new([("k8s.io/x", "\u{e9}")]);
    let labels = HttpLabels {
        authority: "a\"b\\c\nd\0",
        target_port: 1,
        tls: &tls,
        side: HttpSide::Outbound { dst: &dst },
    };
    recorder.http(&labels).request();
    let printed = text(&telemetry, &traffic("^request_total$"));
    assert!(
        printed.contains("authority=\"a\\\"b\\\\c\\nd\u{fffd}\","),
        "{printed}"
    );
    assert!(
        printed.ends_with("dst_k8s_io_x=\"\u{e9}\"} 1\n"),
        "{printed}"
    );
}

#[test]
fn known_series_are_printed_at_zero_unless_only_used_ones_are_asked_for() {
    let (telemetry, recorder) = one_worker();
    let groups = Groups::new();
    let known = recorder.transport(&groups.accepted(8080));
    let all = scrape(&telemetry, &Selection::default());
    assert!(all.keys().any(|s| s.starts_with("tcp_open_total{")));
    assert!(
        !all.keys().any(|s| s.starts_with("tcp_close_total")),
        "no close is known yet"
    );
    let used = Selection {
        used_only: true,
        ..Selection::default()
    };
    let before = text(&telemetry, &used);
    assert!(
        !before.contains(" tcp_"),
        "a family without lines has no head: {before}"
    );
    known.opened();
    known.closed(SUCCESS, "", Duration::ZERO);
    let after = scrape(&telemetry, &used);
    let gauge = after
        .iter()
        .find(|(s, _)| s.starts_with("tcp_open_connections"))
        .unwrap();
    assert_eq!(*gauge.1, 0.0, "it has changed, though it is 0 again");
    assert!(!after.keys().any(|s| s.starts_with("tcp_read_bytes_total")));
}

#[test]
fn texts_of_the_peer_are_bounded() {
    let (telemetry, recorder) = one_worker();
    let series = recorder.http(&Groups::new().inbound("web"));
    for n in 0..1_000 {
        let grpc_status = n.to_string();
        series.response(&ResponseEnd {
            grpc_status: &grpc_status,
            ..end(Some(200), "", "")
        });
    }
    let scrape = scrape(&telemetry, &traffic("^response_total$"));
    assert_eq!(scrape.len(), 33);
    assert_eq!(scrape.values().sum::<f64>(), 1_000.0);
    let over = scrape
        .iter()
        .find(|(s, _)| s.contains(telemetry::OVERFLOW))
        .unwrap();
    assert_eq!(*over.1, 968.0);
}

#[test]
fn build_and_process_are_told() {
    let (telemetry, _recorder) = one_worker();
    let first = scrape(&telemetry, &Selection::default());
    let build = first
        .keys()
        .find(|s| s.starts_with("proxy_build_info"))
        .unwrap();
    let version = env!("CARGO_PKG_VERSION");
    assert!(build.starts_with(&format!(
        "proxy_build_info{{version=\"{version}\",git_sha=\""
    )));
    assert!(
        build.contains(",profile=\"") && build.contains(",vendor=\""),
        "{build}"
    );
    assert!(
        !first.contains_key("weir_scrape_duration_seconds"),
        "there was none yet"
    );
    assert!(!first.contains_key("weir_scrape_worker_delay_seconds"));
    let second = scrape(&telemetry, &Selection::default());
    let took = second["weir_scrape_duration_seconds"];
    let held = second["weir_scrape_worker_delay_seconds"];
    assert!(took > held && held > 0.0, "{took} {held}");
    assert!(second["process_cpu_seconds_total"] >= first["process_cpu_seconds_total"]);
}
