//! What a spent budget does to labels, and what it leaves alone.

use std::time::{Duration, Instant};

use weir_proxy::telemetry::{
    self, Classification, Config, Dst, HttpLabels, HttpSeries, HttpSide, NotFoundLabels, OVERFLOW,
    Peer, Recorder, ResponseEnd, Selection, Server, TcpErrorLabels, Telemetry, TransportEnd,
    TransportLabels,
};

use crate::scrape::{Groups, Scrape, scrape, sum};

pub(crate) fn proxy(workers: usize, config: Config) -> (Telemetry, Vec<Recorder>) {
    let (telemetry, seats) = telemetry::new(config, workers);
    (
        telemetry,
        seats.into_iter().map(|seat| seat.take()).collect(),
    )
}

pub(crate) fn series(most_series: u64) -> Config {
    Config {
        most_series,
        ..Config::default()
    }
}

pub(crate) fn all(telemetry: &Telemetry) -> Scrape {
    scrape(telemetry, &Selection::default())
}

pub(crate) fn answer(series: &HttpSeries, status: u16) {
    series.request();
    series.latency(Some(status), Duration::from_millis(3));
    series.response(&ResponseEnd {
        status: Some(status),
        classification: if status < 500 {
            Classification::Success
        } else {
            Classification::Failure
        },
        grpc_status: "",
        error: "",
    });
}

/// Seconds of ticks, sweeps and scrapes.
pub(crate) fn run(telemetry: &Telemetry, recorders: &[Recorder], now: &mut Instant, seconds: u32) {
    for second in 0..seconds {
        *now += Duration::from_secs(1);
        for recorder in recorders {
            recorder.tick(*now);
        }
        telemetry.sweep(*now);
        if second % 15 == 0 {
            all(telemetry);
        }
    }
}

#[test]
fn strangers_become_the_overflow_and_totals_stay_right() {
    let (telemetry, recorders) = proxy(1, series(10));
    let groups = Groups::new();
    for n in 0..30 {
        let authority = format!("{n}.example");
        let series = recorders[0].http(&groups.inbound(&authority));
        answer(&series, if n % 3 == 0 { 503 } else { 200 });
    }
    let shown = all(&telemetry);
    let requests: Vec<_> = shown
        .keys()
        .filter(|s| s.starts_with("request_total"))
        .collect();
    assert_eq!(requests.len(), 10 + 1);
    let over = format!(
        "request_total{{direction=\"inbound\",authority=\"{OVERFLOW}\",target_port=\"8080\",tls=\"no_identity\",\
         no_tls_reason=\"no_tls_from_remote\",srv_group=\"kuma.io\",srv_kind=\"dataplane\",srv_name=\"web\",\
         srv_port=\"8080\",route_group=\"\",route_kind=\"default\",route_name=\"default\",authz_group=\"\",\
         authz_kind=\"default\",authz_name=\"all-unauthenticated\"}}"
    );
    assert_eq!(shown[&over], 20.0);
    for (labels, expected) in [
        ("status_code=\"503\",classification=\"failure\"", 10.0),
        ("status_code=\"200\",classification=\"success\"", 20.0),
    ] {
        assert_eq!(sum(&shown, "response_total", labels), expected);
    }
    for (family, refused) in [
        ("request_total", 20.0),
        ("response_total", 20.0),
        ("response_latency_ms", 20.0),
        ("tcp_open_total", 0.0),
    ] {
        let family = format!("\"{family}\"");
        assert_eq!(
            sum(&shown, "weir_series_dropped_total", &family),
            refused,
            "{family}"
        );
    }
    assert_eq!(sum(&shown, "weir_series", "\"request_total\""), 11.0);
}

/// Whoever asks for what there is no route for may make up any host.
#[test]
fn requests_of_no_route_become_the_overflow_as_well() {
    const MOST: usize = 256 * 1024;
    let config = Config {
        most_bytes: MOST,
        ..Config::default()
    };
    let (telemetry, recorders) = proxy(1, config);
    let groups = Groups::new();
    for n in 0..3000 {
        let authority = format!("{n}.example");
        recorders[0].route_not_found(&NotFoundLabels {
            authority: &authority,
            target_port: 8080,
            server: &groups.server,
            tls: &groups.mutual,
        });
    }
    assert!(
        telemetry.bytes() <= MOST + 8 * 1024,
        "{}",
        telemetry.bytes()
    );
    let (shown, family) = (all(&telemetry), "inbound_http_route_not_found_total");
    assert_eq!(sum(&shown, family, ""), 3000.0);
    let over = format!("authority=\"{OVERFLOW}\",srv_group=\"kuma.io\"");
    let refused = sum(&shown, family, &over);
    assert!(refused > 1000.0, "{refused}");
    let over = format!("srv_port=\"8080\",tls=\"true\",client_id=\"{OVERFLOW}\"");
    assert_eq!(sum(&shown, family, &over), refused);
}

#[test]
fn known_services_are_never_refused() {
    let config = Config {
        most_bytes: 64 * 1024,
        ..series(3)
    };
    let (telemetry, recorders) = proxy(1, config);
    telemetry.known().set(["web".to_owned()]);
    recorders[0].tick(Instant::now());
    let groups = Groups::new();
    for n in 0..500 {
        let authority = format!("{n}.example");
        answer(&recorders[0].http(&groups.inbound(&authority)), 200);
    }
    for authority in ["web", "web:8080", "web:8081"] {
        answer(&recorders[0].http(&groups.inbound(authority)), 200);
    }
    let shown = all(&telemetry);
    let of = |authority: &str| {
        sum(
            &shown,
            "response_total",
            &format!("authority=\"{authority}\""),
        )
    };
    assert_eq!([of("web"), of("web:8080")], [1.0, 1.0]);
    assert_eq!(of("web:8081"), 0.0, "there is no service on that port");
}

/// Services come and go: what is recorded meanwhile stays as it is, whether it is theirs or not.
#[test]
fn a_service_that_becomes_known_is_refused_no_more_and_nothing_else_changes() {
    let (telemetry, recorders) = proxy(1, series(2));
    let groups = Groups::new();
    let mut now = Instant::now();
    for authority in ["a", "b"] {
        answer(&recorders[0].http(&groups.inbound(authority)), 200);
    }
    let refused = recorders[0].http(&groups.inbound("web"));
    answer(&refused, 200);
    let (own, over) = (
        recorders[0].http(&groups.inbound("a")).downgrade(),
        refused.downgrade(),
    );
    drop(refused);
    let known = telemetry.known();
    known.set(["web".to_owned(), "a".to_owned()]);
    run(&telemetry, &recorders, &mut now, 1);
    assert!(own.pin().is_some(), "its labels are what they were");
    assert!(over.pin().is_none(), "it may have its own labels now");
    answer(&recorders[0].http(&groups.inbound("web")), 200);
    // Of a known service every status is told, though the budget is spent.
    answer(&own.pin().unwrap(), 503);
    run(&telemetry, &recorders, &mut now, 300);
    let shown = all(&telemetry);
    for (authority, requests) in [("a", 2.0), ("b", 1.0), ("web", 1.0)] {
        let authority = format!("authority=\"{authority}\"");
        assert_eq!(
            sum(&shown, "request_total", &authority),
            requests,
            "{authority}"
        );
        assert_eq!(
            sum(&shown, "response_total", &authority),
            requests,
            "{authority}"
        );
    }
    known.set([]);
    run(&telemetry, &recorders, &mut now, 1);
    answer(&recorders[0].http(&groups.inbound("a")), 404);
    let shown = all(&telemetry);
    assert_eq!(sum(&shown, "request_total", "authority=\"a\""), 3.0);
    assert_eq!(
        sum(&shown, "response_total", "authority=\"a\""),
        2.0,
        "a stranger's"
    );
    assert_eq!(sum(&shown, "response_total", "status_code=\"404\""), 1.0);
}

/// A stranger's destination is refused, the Service's name is not.
#[test]
fn a_known_authority_stays_where_even_its_destinations_are_too_many() {
    let config = Config {
        most_bytes: 64 * 1024,
        ..series(u64::MAX)
    };
    let (telemetry, recorders) = proxy(1, config);
    telemetry.known().set(["web".to_owned()]);
    recorders[0].tick(Instant::now());
    let groups = Groups::new();
    for n in 0..200 {
        let pod = format!("web-{n}");
        let dst = Dst::new([("pod", pod.as_str()), ("namespace", "a")]);
        let labels = HttpLabels {
            side: HttpSide::Outbound { dst: &dst },
            ..groups.outbound("web")
        };
        answer(&recorders[0].http(&labels), 200);
    }
    let shown = all(&telemetry);
    assert_eq!(sum(&shown, "request_total", "authority=\"web\""), 200.0);
    let over = format!("dst_namespace=\"{OVERFLOW}\",dst_pod=\"{OVERFLOW}\"");
    assert!(sum(&shown, "request_total", &over) > 0.0);
    assert!(
        sum(
            &shown,
            "request_total",
            &format!("server_id=\"{OVERFLOW}\"")
        ) > 0.0
    );
}

/// A label set that was taken in time keeps its requests; what further statuses need and is refused is counted with
/// those of the overflow, status and all.
#[test]
fn statuses_that_come_too_late_keep_their_value() {
    let (telemetry, recorders) = proxy(1, series(4));
    let groups = Groups::new();
    for authority in ["a", "b"] {
        let series = recorders[0].http(&groups.inbound(authority));
        for status in [200, 404, 503] {
            answer(&series, status);
        }
    }
    let shown = all(&telemetry);
    assert_eq!(sum(&shown, "request_total", "authority=\"a\""), 3.0);
    assert_eq!(sum(&shown, "request_total", "authority=\"b\""), 3.0);
    assert_eq!(sum(&shown, "request_total", OVERFLOW), 0.0);
    for status in ["200", "404", "503"] {
        let labels = format!("status_code=\"{status}\"");
        assert_eq!(sum(&shown, "response_total", &labels), 2.0);
        assert_eq!(sum(&shown, "response_latency_ms_count", &labels), 2.0);
    }
    assert_eq!(sum(&shown, "response_total", "authority=\"a\""), 3.0);
    assert_eq!(sum(&shown, "response_total", "authority=\"b\""), 1.0);
    assert_eq!(
        sum(&shown, "weir_series_dropped_total", "\"response_total\""),
        2.0
    );
}

/// Whoever scans the ports of a pod makes a label set of each; past all of the bytes the ports go as well.
#[test]
fn ports_go_last() {
    let config = Config {
        most_bytes: 1024 * 1024,
        ..Config::default()
    };
    let (telemetry, recorders) = proxy(1, config);
    let groups = Groups::new();
    for port in 1..=u16::MAX {
        let server = Server::new("", "default", "all-unauthenticated", port);
        let series = recorders[0].transport(&TransportLabels {
            target_port: port,
            tls: &groups.plain,
            end: TransportEnd::InboundSrc { server: &server },
        });
        series.opened();
        series.closed(Classification::Success, "", Duration::ZERO);
        recorders[0].tcp_error(&TcpErrorLabels {
            direction: telemetry::Direction::Inbound,
            peer: Peer::Dst,
            error: "connect",
            target_port: port,
        });
    }
    assert!(
        telemetry.bytes() <= 1024 * 1024 + 8 * 1024,
        "{}",
        telemetry.bytes()
    );
    let shown = all(&telemetry);
    let scanned = f64::from(u16::MAX);
    assert_eq!(
        sum(
            &shown,
            "tcp_open_total",
            "direction=\"inbound\",peer=\"src\""
        ),
        scanned
    );
    assert_eq!(
        sum(&shown, "tcp_close_total", "classification=\"success\""),
        scanned
    );
    assert_eq!(
        sum(&shown, "inbound_tcp_errors_total", "error=\"connect\""),
        scanned
    );
    assert_eq!(sum(&shown, "tcp_open_connections", ""), 0.0);
    let any = format!(
        "srv_name=\"all-unauthenticated\",srv_port=\"{OVERFLOW}\",target_port=\"{OVERFLOW}\""
    );
    assert!(sum(&shown, "tcp_open_total", &any) > 60_000.0);
    let refused = sum(
        &shown,
        "weir_series_dropped_total",
        "\"inbound_tcp_errors_total\"",
    );
    let any = format!("target_port=\"{OVERFLOW}\"");
    assert_eq!(sum(&shown, "inbound_tcp_errors_total", &any), refused);
}

/// Every status there can be, with every gRPC status a server can think of.
#[test]
fn one_label_set_is_bounded_too() {
    let (telemetry, recorders) = proxy(1, Config::default());
    let series = recorders[0].http(&Groups::new().inbound("web"));
    for status in 100..1_000 {
        for n in 0..20 {
            series.response(&ResponseEnd {
                status: Some(status),
                classification: Classification::Success,
                grpc_status: &format!("{status}{n}"),
                error: "",
            });
        }
    }
    let shown = all(&telemetry);
    assert_eq!(sum(&shown, "response_total", "status_code=\"999\""), 20.0);
    assert_eq!(sum(&shown, "response_total", ""), 18_000.0);
    assert!(sum(&shown, "weir_series", "\"response_total\"") < 1_300.0);
}

#[test]
fn another_worker_finds_what_there_is_though_there_is_no_room() {
    let (telemetry, recorders) = proxy(2, series(2));
    let groups = Groups::new();
    for authority in ["a", "b", "c"] {
        for recorder in &recorders {
            answer(&recorder.http(&groups.inbound(authority)), 200);
        }
    }
    let shown = all(&telemetry);
    for (authority, requests) in [("a", 2.0), ("b", 2.0), (OVERFLOW, 2.0)] {
        let labels = format!("authority=\"{authority}\"");
        assert_eq!(
            sum(&shown, "request_total", &labels),
            requests,
            "{authority}"
        );
    }
}
