//! What a policy leaves out, and what its change does to what was counted before.

use std::collections::BTreeSet;
use std::time::Duration;

use weir_proxy::telemetry::{self, Classification};

use crate::lint::everything_counted;
use crate::proxy::Proxy;
use crate::scrape::{Scrape, sum};

#[test]
fn the_policy_in_the_documentation_is_one() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
    let page = std::fs::read_to_string(page).unwrap();
    let (_, block) = page.split_once("```yaml policy\n").unwrap();
    let (block, _) = block.split_once("```").unwrap();
    let policy = telemetry::policy(block).unwrap();
    assert_eq!(policy.families["response_latency_ms"].max_series, Some(500));
}

#[test]
fn a_label_that_is_left_out_tells_nothing_apart() {
    let proxy = Proxy::new("dropLabels: [authority, srv_port, status_code]");
    for authority in ["a", "b"] {
        proxy.request(authority, 3);
    }
    let shown = proxy.all();
    assert!(
        !shown
            .keys()
            .any(|s| s.contains("authority=") || s.contains("srv_port="))
    );
    assert_eq!(
        proxy.of("request_total").into_values().collect::<Vec<_>>(),
        [2.0]
    );
    let latency = proxy.of("response_latency_ms");
    assert_eq!(latency.len(), 26 + 2);
    assert_eq!(
        sum(
            &latency,
            "response_latency_ms_count",
            "authz_name=\"all-unauthenticated\"}"
        ),
        2.0
    );
}

#[test]
fn a_label_can_be_left_out_of_one_family_of_a_label_set() {
    let proxy = Proxy::new("families: {response_latency_ms: {dropLabels: [authority]}}");
    for authority in ["a", "b", "c"] {
        proxy.request(authority, 3);
    }
    let shown = proxy.all();
    assert_eq!(proxy.of("request_total").len(), 3);
    assert_eq!(proxy.of("response_total").len(), 3);
    assert_eq!(proxy.of("response_latency_ms").len(), 26 + 2);
    assert_eq!(
        sum(&shown, "response_latency_ms_count", "status_code=\"200\""),
        3.0
    );
    assert_eq!(sum(&shown, "weir_series", "\"response_latency_ms\""), 1.0);
}

#[test]
fn what_nothing_is_recorded_under_takes_no_memory() {
    let proxy = Proxy::new("dropLabels: [authority]");
    proxy.request("first", 3);
    let bytes = proxy.telemetry.bytes();
    for n in 0..10_000 {
        proxy.request(&format!("{n}.example"), 3);
    }
    assert_eq!(proxy.telemetry.bytes(), bytes);
    assert_eq!(sum(&proxy.all(), "request_total", ""), 10_001.0);
    assert_eq!(sum(&proxy.all(), "weir_series_dropped_total", ""), 0.0);
}

#[test]
fn a_family_that_is_left_out_is_gone_at_once_and_comes_back_with_its_counts() {
    let mut proxy = Proxy::new("");
    proxy.request("a", 3);
    let tcp = proxy.recorder.transport(&proxy.groups.accepted(80));
    tcp.opened();
    let policy = "families: {request_total: {drop: true}, tcp_open_connections: {drop: true}}";
    proxy.change(policy);
    proxy.request("a", 3);
    assert!(proxy.of("request_total|tcp_open_connections").is_empty());
    assert_eq!(sum(&proxy.all(), "response_total", "authority=\"a\""), 2.0);
    let unmeasured = proxy.recorder.transport(&proxy.groups.accepted(80));
    unmeasured.opened();
    proxy.change("");
    proxy.request("a", 3);
    assert_eq!(
        sum(&proxy.all(), "request_total", "authority=\"a\""),
        2.0,
        "but for what was not recorded"
    );
    assert_eq!(sum(&proxy.all(), "tcp_open_connections", ""), 1.0);
    for series in [tcp, unmeasured] {
        series.closed(Classification::Success, "", Duration::ZERO);
    }
    assert_eq!(sum(&proxy.all(), "tcp_open_connections", ""), 0.0);
}

#[test]
fn a_whole_kind_can_be_left_out_and_others_stay() {
    let families = [
        "request_total",
        "response_total",
        "response_latency_ms",
        "tcp_connection_duration_ms",
    ];
    let drop: Vec<_> = families
        .iter()
        .map(|f| format!("{f}: {{drop: true}}"))
        .collect();
    let proxy = Proxy::new(&format!("families: {{{}}}", drop.join(",")));
    let before = proxy.telemetry.label_sets();
    proxy.request("a", 3);
    assert_eq!(proxy.telemetry.label_sets(), before);
    let tcp = proxy.recorder.transport(&proxy.groups.accepted(80));
    tcp.opened();
    tcp.closed(Classification::Success, "", Duration::ZERO);
    assert!(
        proxy
            .of("request_total|response_.*|tcp_connection_duration_ms")
            .is_empty()
    );
    assert_eq!(sum(&proxy.all(), "tcp_close_total", ""), 1.0);
}

#[test]
fn everything_can_be_left_out() {
    let exposed = everything_counted("");
    let types = exposed.lines().filter_map(|l| l.strip_prefix("# TYPE "));
    let names: BTreeSet<_> = types.filter_map(|line| line.split(' ').next()).collect();
    let unknown = telemetry::policy("families: {x: {}}").unwrap_err();
    let told = unknown[0].to_string();
    let (_, known) = told.split_once("those are ").unwrap();
    assert_eq!(names, known.split(", ").collect(), "no other can be named");
    let drop: Vec<_> = names
        .iter()
        .map(|f| format!("{f}: {{drop: true}}"))
        .collect();
    let policy = format!("families: {{{}}}", drop.join(","));
    assert_eq!(everything_counted(&policy), "");
    let proxy = Proxy::new(&policy);
    let before = proxy.telemetry.label_sets();
    proxy.request("a", 3);
    let tcp = proxy.recorder.transport(&proxy.groups.accepted(80));
    tcp.opened();
    tcp.closed(Classification::Success, "", Duration::ZERO);
    assert_eq!(proxy.telemetry.label_sets(), before);
}

#[test]
fn buckets_change_and_nothing_goes_back() {
    let mut proxy = Proxy::new("");
    for took in [1, 4, 7, 60_000] {
        proxy.request("a", took);
    }
    let before = proxy.of("response_latency_ms");
    proxy.change("families: {response_latency_ms: {buckets: [2, 5, 7, 500]}}");
    let at = |shown: &Scrape, le: &str| {
        sum(shown, "response_latency_ms_bucket", &format!("le=\"{le}\""))
    };
    let after = proxy.of("response_latency_ms");
    assert_eq!(after.len(), 5 + 2);
    for le in ["2", "5", "500", "+Inf"] {
        assert_eq!(at(&after, le), at(&before, le), "le={le}, which both have");
    }
    assert_eq!(
        at(&after, "7"),
        2.0,
        "7 ms were up to 10, not certainly up to 7"
    );
    proxy.request("a", 7);
    let after = proxy.of("response_latency_ms");
    assert_eq!(
        ["5", "7", "500", "+Inf"].map(|le| at(&after, le)),
        [2.0, 3.0, 4.0, 5.0]
    );
    assert_eq!(sum(&after, "response_latency_ms_count", ""), 5.0);
    assert_eq!(sum(&after, "response_latency_ms_sum", ""), 60_019.0);
    proxy.change("");
    let back = proxy.of("response_latency_ms");
    for (le, expected) in [("5", 2.0), ("10", 4.0), ("50000", 4.0), ("+Inf", 5.0)] {
        assert_eq!(at(&back, le), expected, "le={le}");
    }
    assert!(at(&back, "10") >= at(&before, "10"));
}

#[test]
fn relabelled_series_start_anew_and_the_old_ones_retire() {
    let mut proxy = Proxy::new("");
    proxy.request("a", 3);
    let open = proxy.recorder.transport(&proxy.groups.accepted(80));
    open.opened();
    let cached = proxy.recorder.http(&proxy.groups.inbound("a")).downgrade();
    assert!(cached.pin().is_some());
    proxy.change("dropLabels: [authority, target_port]");
    assert!(
        cached.pin().is_none(),
        "it would be counted under former rules"
    );
    proxy.request("a", 3);
    open.read(5);
    let shown = proxy.all();
    assert_eq!(sum(&shown, "request_total", "authority=\"a\""), 1.0);
    assert_eq!(sum(&shown, "request_total", ""), 2.0);
    proxy.run(90);
    let shown = proxy.all();
    assert_eq!(
        sum(&shown, "request_total", ""),
        1.0,
        "no 10 minutes are waited for"
    );
    let old = "srv_port=\"8080\",target_port=\"80\"";
    assert_eq!(
        sum(&shown, "tcp_read_bytes_total", old),
        5.0,
        "a connection stays as it began"
    );
    assert_eq!(sum(&shown, "tcp_open_connections", old), 1.0);
    open.closed(Classification::Success, "", Duration::ZERO);
    drop(open);
    proxy.run(90);
    assert!(!proxy.all().keys().any(|s| s.contains("target_port=\"80\"")));
}

/// Those are the families' own: a policy of which no label survives.
#[test]
fn a_family_without_labels_has_one_series() {
    let proxy = Proxy::new("dropLabels: [direction, error]");
    proxy.recorder.detect_timeout(telemetry::Direction::Inbound);
    proxy
        .recorder
        .detect_timeout(telemetry::Direction::Outbound);
    let shown = proxy.of("weir_http_detect_timeout_total");
    assert_eq!(shown.values().sum::<f64>(), 2.0);
    assert_eq!(shown.len(), 1, "{shown:?}");
}

#[test]
fn a_family_has_the_budget_that_its_policy_gives_it() {
    let proxy = Proxy::new("families: {response_total: {maxSeries: 2}}");
    for authority in ["a", "b", "c", "d"] {
        proxy.request(authority, 3);
    }
    let shown = proxy.all();
    assert_eq!(proxy.of("response_total").len(), 2 + 1);
    assert_eq!(sum(&shown, "response_total", ""), 4.0);
}
