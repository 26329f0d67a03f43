//! What is printed of routes, to the letter; what becomes of it past the budget, and under a policy.

use std::time::Duration;

use weir_proxy::telemetry::{self, Config, Direction, Recorder, RouteLabels, Telemetry};

use crate::scrape::{Scrape, scrape, sum, text, traffic};
use crate::text::{end, one_worker};

fn labels<'a>(dst: &'a str, route: Option<&'a str>) -> RouteLabels<'a> {
    RouteLabels {
        direction: Direction::Outbound,
        dst,
        route,
    }
}

fn answer(recorder: &Recorder, dst: &str, route: Option<&str>) {
    let series = recorder.route(&labels(dst, route));
    series.request();
    series.latency(Some(200), Duration::from_millis(2));
    series.response(&end(Some(200), "0", ""));
}

#[test]
fn route_families() {
    let (telemetry, recorder) = one_worker();
    let series = recorder.route(&labels("web.a.svc.cluster.local:80", Some("GET /books")));
    series.request();
    series.retried(&end(Some(503), "", "x"));
    series.response(&end(Some(504), "4", "timeout"));
    answer(&recorder, "web.a.svc.cluster.local:80", None);
    let web = "direction=\"outbound\",dst=\"web.a.svc.cluster.local:80\"";
    let books = format!("{web},rt_route=\"GET /books\"");
    let late = "status_code=\"504\",classification=\"failure\",error=\"timeout\"";
    let well = "status_code=\"200\",classification=\"success\",error=\"\"";
    let expected = format!(
        "\
# HELP route_request_total Requests to destinations with routes, by the route that they are of.
# TYPE route_request_total counter
route_request_total{{{books}}} 1
route_request_total{{{web}}} 1
# HELP route_response_total Responses from destinations with routes whose stream has ended, however it ended.
# TYPE route_response_total counter
route_response_total{{{books},{late}}} 1
route_response_total{{{web},{well}}} 1
# HELP route_actual_request_total Attempts at requests to destinations with routes: one more for each retry.
# TYPE route_actual_request_total counter
route_actual_request_total{{{books}}} 2
route_actual_request_total{{{web}}} 1
# HELP route_actual_response_total Responses that attempts at requests to destinations with routes have come to.
# TYPE route_actual_response_total counter
route_actual_response_total{{{books},status_code=\"503\",classification=\"failure\",error=\"x\"}} 1
route_actual_response_total{{{books},{late}}} 1
route_actual_response_total{{{web},{well}}} 1
"
    );
    let shown = text(&telemetry, &traffic("^route_.*total$"));
    assert_eq!(shown, expected);
    let shown = scrape(&telemetry, &traffic("^route_.*_ms$"));
    let bucket = format!("route_response_latency_ms_bucket{{{web},status_code=\"200\",le=\"2\"}}");
    assert_eq!((shown[&bucket], shown.len()), (1.0, 28));
}

/// Where Linkerd tells them apart by their short names, it merges them (`linkerd-metrics.md`, section 11).
#[test]
fn services_that_share_a_name_are_told_apart() {
    let (telemetry, recorder) = one_worker();
    let services = [
        "web.a.svc.cluster.local:80",
        "web.b.svc.cluster.local:80",
        "web.a.svc.cluster.local:81",
    ];
    let mut expected = Scrape::new();
    for (n, dst) in (1..).zip(services) {
        for _ in 0..n {
            answer(&recorder, dst, Some("r"));
        }
        let of = format!("direction=\"outbound\",dst=\"{dst}\",rt_route=\"r\"");
        let end = "status_code=\"200\",classification=\"success\",error=\"\"";
        for series in [
            format!("route_request_total{{{of}}}"),
            format!("route_response_total{{{of},{end}}}"),
            format!("route_response_latency_ms_count{{{of},status_code=\"200\"}}"),
            format!("route_actual_request_total{{{of}}}"),
            format!("route_actual_response_total{{{of},{end}}}"),
        ] {
            expected.insert(series, f64::from(n));
        }
    }
    let mut shown = scrape(&telemetry, &traffic("^route_"));
    shown.retain(|series, _| !series.contains("_bucket{") && !series.contains("_sum{"));
    assert_eq!(shown, expected);
}

fn refused(telemetry: &Telemetry, family: &str) -> f64 {
    let shown = scrape(telemetry, &traffic("^weir_series_dropped_total$"));
    sum(
        &shown,
        "weir_series_dropped_total",
        &format!("\"{family}\""),
    )
}

#[test]
fn past_the_budget_the_destination_and_the_route_have_no_name() {
    let config = Config {
        most_series: 4,
        ..Config::default()
    };
    let (telemetry, mut seats) = telemetry::new(config, 1);
    let recorder = seats.remove(0).take();
    telemetry.known().set(["web.a.svc".to_owned()]);
    recorder.tick(std::time::Instant::now());
    for n in 0..10 {
        answer(&recorder, &format!("{n}.example:80"), Some("r"));
    }
    answer(&recorder, "other.example:80", None);
    answer(&recorder, "web.a.svc:80", Some("r"));
    let shown = scrape(&telemetry, &traffic("^route_"));
    for family in ["route_request_total", "route_actual_request_total"] {
        let count = |labels: &str| {
            let series = format!("{family}{{direction=\"outbound\",dst={labels}}}");
            shown.get(&series).copied().unwrap_or_default()
        };
        assert_eq!(count("\"0.example:80\",rt_route=\"r\""), 1.0);
        assert_eq!(count("\"__overflow__\",rt_route=\"__overflow__\""), 6.0);
        assert_eq!(
            count("\"__overflow__\""),
            1.0,
            "what is of no route stays so"
        );
        assert_eq!(
            count("\"web.a.svc:80\",rt_route=\"r\""),
            1.0,
            "it is a known Service's"
        );
        assert_eq!(sum(&shown, family, "direction"), 12.0);
        assert_eq!(refused(&telemetry, family), 7.0);
    }
    let ok = "status_code=\"200\",classification=\"success\",error=\"\"";
    assert_eq!(sum(&shown, "route_response_total", ok), 12.0);
}

#[test]
fn a_policy_leaves_routes_out() {
    let (telemetry, recorder) = one_worker();
    let policy = "dropLabels: [rt_route]\nfamilies: {route_actual_request_total: {drop: true}}";
    telemetry.set_policy(&telemetry::policy(policy).expect("a policy"));
    recorder.tick(std::time::Instant::now());
    for route in [Some("a"), Some("b"), None] {
        answer(&recorder, "web:80", route);
    }
    let shown = scrape(&telemetry, &traffic("^route_.*request_total$"));
    let all = "route_request_total{direction=\"outbound\",dst=\"web:80\"}";
    assert_eq!(
        shown.into_iter().collect::<Vec<_>>(),
        [(all.to_owned(), 3.0)]
    );
}

#[test]
fn routes_retire_when_they_are_idle_and_not_before() {
    let (telemetry, recorder) = one_worker();
    let pinned = recorder.route(&labels("web:80", Some("open")));
    pinned.request();
    answer(&recorder, "web:80", Some("idle"));
    let mut now = std::time::Instant::now();
    for _ in 0..1_500 {
        now += Duration::from_secs(1);
        recorder.tick(now);
        telemetry.sweep(now);
        scrape(&telemetry, &traffic("^route_"));
    }
    let shown = scrape(&telemetry, &traffic("^route_"));
    assert!(
        shown
            .keys()
            .all(|series| series.contains("rt_route=\"open\"")),
        "{shown:#?}"
    );
    assert_eq!(sum(&shown, "route_request_total", "open"), 1.0);
    assert!(pinned.downgrade().pin().is_some());
}
