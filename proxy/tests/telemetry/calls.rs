//! What a spent budget and a policy do to the series of gRPC calls and of HTTP/2 connections.

use std::time::{Duration, Instant};

use weir_proxy::telemetry::{
    self, Config, Direction, GrpcLabels, HttpLabels, HttpSide, OVERFLOW, Peer, TransportEnd,
    TransportLabels,
};

use crate::proxy::Proxy;
use crate::scrape::{Groups, Scrape, sum};

fn series(most_series: u64) -> Config {
    Config {
        most_series,
        ..Config::default()
    }
}

fn messages(shown: &Scrape, authority: &str) -> [f64; 2] {
    ["sent", "received"].map(|kind| {
        let labels = format!("authority=\"{authority}\",kind=\"{kind}\"");
        sum(shown, "grpc_messages_total", &labels)
    })
}

/// Whatever the budget is, both kinds of messages of a call are counted under the same labels.
#[test]
fn strangers_calls_become_the_overflow_whole() {
    for most in 0..9u32 {
        let proxy = Proxy::with(series(most.into()), "");
        for n in 0..10 {
            proxy.call(&format!("{n}.example"), (1, 2));
        }
        let shown = proxy.all();
        let own = f64::from(most / 2);
        let of_own = (0..10).map(|n| messages(&shown, &format!("{n}.example")));
        let taken = of_own.filter(|m| *m == [1.0, 2.0]).count();
        assert_eq!(taken as f64, own, "of a budget of {most}");
        let over = messages(&shown, OVERFLOW);
        assert_eq!(
            over,
            [10.0 - own, 2.0 * (10.0 - own)],
            "of a budget of {most}"
        );
        let family = "\"grpc_messages_total\"";
        assert_eq!(sum(&shown, "weir_series", family), own * 2.0 + 2.0);
        let refused = sum(&shown, "weir_series_dropped_total", family);
        assert_eq!(refused, 10.0 - own, "once for each call");
    }
}

/// As above, where it is the bytes that run out, and for every kind of label set.
#[test]
fn no_label_set_is_split_where_the_bytes_run_out() {
    let groups = Groups::new();
    for most_bytes in (4_000..24_000).step_by(100) {
        let config = Config {
            most_bytes,
            ..Config::default()
        };
        let proxy = Proxy::with(config, "");
        for n in 0..12 {
            let name = format!("{n}.example");
            proxy.call(&name, (1, 1));
            proxy.recorder.http(&groups.outbound(&name)).request();
            let tcp = proxy.recorder.transport(&TransportLabels {
                target_port: 80,
                tls: &groups.mutual,
                end: TransportEnd::OutboundDst {
                    authority: &name,
                    dst: &groups.dst,
                },
            });
            tcp.opened();
            tcp.read(1);
            tcp.written(1);
        }
        let shown = proxy.all();
        for n in 0..12 {
            let name = format!("authority=\"{n}.example\"");
            let of = |family: &str| sum(&shown, family, &name);
            let [sent, received] = messages(&shown, &format!("{n}.example"));
            assert_eq!(sent, received, "{name} of {most_bytes}");
            let tcp = [
                "open_total",
                "open_connections",
                "read_bytes_total",
                "write_bytes_total",
            ];
            let tcp = tcp.map(|family| of(&format!("tcp_{family}")));
            assert!(
                tcp.iter().all(|n| *n == tcp[0]),
                "{name} of {most_bytes}: {tcp:?}"
            );
        }
        for family in ["tcp_open_total", "tcp_read_bytes_total", "request_total"] {
            assert_eq!(sum(&shown, family, ""), 12.0, "{family} of {most_bytes}");
        }
        assert_eq!(sum(&shown, "grpc_messages_total", ""), 24.0);
    }
}

#[test]
fn calls_to_a_known_service_are_never_refused() {
    let config = Config {
        most_bytes: 64 * 1024,
        ..series(1)
    };
    let mut proxy = Proxy::with(config, "");
    proxy.telemetry.known().set(["web".to_owned()]);
    proxy.run(1);
    for n in 0..500 {
        proxy.call(&format!("{n}.example"), (1, 1));
    }
    for authority in ["web", "web:8080", "web:8081"] {
        proxy.call(authority, (3, 4));
    }
    let shown = proxy.all();
    assert_eq!(messages(&shown, "web"), [3.0, 4.0]);
    assert_eq!(messages(&shown, "web:8080"), [3.0, 4.0]);
    assert_eq!(
        messages(&shown, "web:8081"),
        [0.0; 2],
        "there is no service on that port"
    );
    assert_eq!(messages(&shown, OVERFLOW), [503.0, 504.0]);
}

#[test]
fn workers_share_calls_and_whoever_was_refused_is_taken_once_there_is_room() {
    let (telemetry, seats) = telemetry::new(series(4), 2);
    let recorders: Vec<_> = seats.into_iter().map(|seat| seat.take()).collect();
    let labels = |authority| GrpcLabels {
        direction: Direction::Outbound,
        authority,
        target_port: 80,
    };
    for authority in ["a", "b", "c"] {
        for recorder in &recorders {
            recorder.grpc(&labels(authority)).sent(1);
        }
    }
    let all = || crate::scrape::scrape(&telemetry, &telemetry::Selection::default());
    for authority in ["a", "b", OVERFLOW] {
        assert_eq!(messages(&all(), authority), [2.0, 0.0], "{authority}");
    }
    let refused = recorders[0].grpc(&labels("c"));
    let cached = refused.downgrade();
    assert!(cached.pin().is_some(), "nothing better is to be had");
    let mut now = Instant::now();
    for _ in 0..800 {
        now += Duration::from_secs(1);
        recorders.iter().for_each(|recorder| recorder.tick(now));
        telemetry.sweep(now);
        all();
    }
    assert!(cached.pin().is_none(), "it could be had under its own name");
    assert_eq!(messages(&all(), "a"), [0.0; 2], "idle for long");
    let evicted = sum(
        &all(),
        "weir_series_evicted_total",
        "\"grpc_messages_total\"",
    );
    assert_eq!(evicted, 4.0);
    recorders[0].grpc(&labels("c")).sent(5);
    assert_eq!(messages(&all(), "c"), [5.0, 0.0]);
    refused.sent(1);
    assert_eq!(
        messages(&all(), OVERFLOW),
        [3.0, 0.0],
        "pinned, it goes on from its count"
    );
}

#[test]
fn labels_of_calls_can_be_left_out() {
    let proxy = Proxy::new("dropLabels: [authority]");
    proxy.call("a", (1, 2));
    let bytes = proxy.telemetry.bytes();
    proxy.call("b", (1, 2));
    assert_eq!(proxy.telemetry.bytes(), bytes, "nothing tells them apart");
    let shown = proxy.of("grpc_messages_total");
    assert_eq!(shown.len(), 2);
    assert_eq!(sum(&shown, "grpc_messages_total", "kind=\"received\""), 4.0);
    // Of one series a call the budget has room for more calls.
    let proxy = Proxy::with(series(3), "dropLabels: [kind]");
    for authority in ["a", "b", "c", "d"] {
        proxy.call(authority, (1, 2));
    }
    let shown = proxy.of("grpc_messages_total");
    assert_eq!(shown.len(), 3 + 1, "{shown:?}");
    assert!(shown.values().all(|n| *n == 3.0), "{shown:?}");
}

#[test]
fn calls_that_are_left_out_come_back_with_their_counts() {
    let mut proxy = Proxy::new("");
    proxy.call("a", (1, 2));
    let cached = proxy.calls("a").downgrade();
    proxy.change("families: {grpc_messages_total: {drop: true}}");
    assert!(
        cached.pin().is_none(),
        "it would be counted under former rules"
    );
    proxy.call("a", (1, 2));
    assert!(proxy.of("grpc_messages_total").is_empty());
    proxy.change("");
    proxy.call("a", (1, 2));
    assert_eq!(
        messages(&proxy.all(), "a"),
        [2.0, 4.0],
        "but for what was not recorded"
    );
}

#[test]
fn gauges_of_http2_are_never_refused_and_follow_a_policy() {
    let config = Config {
        most_bytes: 1,
        ..series(0)
    };
    let mut proxy = Proxy::with(config, "");
    let open = |proxy: &Proxy, peer| {
        let series = proxy.recorder.http2(Direction::Inbound, peer);
        series.connection_opened();
        (0..3).for_each(|_| series.stream_opened());
        series
    };
    let of = |proxy: &Proxy, labels: &str| {
        let shown = proxy.all();
        ["connections", "streams"].map(|what| sum(&shown, &format!("http2_active_{what}"), labels))
    };
    let former = [Peer::Src, Peer::Dst].map(|peer| open(&proxy, peer));
    assert_eq!(of(&proxy, "direction=\"inbound\",peer=\"src\""), [1.0, 3.0]);
    proxy.change("families: {http2_active_streams: {drop: true}}");
    assert_eq!(of(&proxy, ""), [2.0, 0.0]);
    let unmeasured = [open(&proxy, Peer::Src)];
    proxy.change("dropLabels: [peer]");
    assert_eq!(of(&proxy, ""), [3.0, 6.0], "what is open stays as it began");
    let merged = [Peer::Src, Peer::Dst].map(|peer| open(&proxy, peer));
    assert_eq!(of(&proxy, "{direction=\"inbound\"}"), [2.0, 6.0]);
    for series in former.iter().chain(&unmeasured).chain(&merged) {
        (0..3).for_each(|_| series.stream_closed());
        series.connection_closed();
    }
    assert_eq!(of(&proxy, ""), [0.0, 0.0]);
    drop((former, unmeasured, merged));
    proxy.run(90);
    let shown = proxy.of("http2_active_streams");
    assert!(shown.keys().all(|s| !s.contains("peer=")), "{shown:?}");
    assert_eq!(shown.len(), 2, "both directions, at 0: {shown:?}");
}

/// A reset stream has no status, or an error that a server made up: both are bounded.
#[test]
fn reset_streams_keep_their_reason_within_bounds() {
    let proxy = Proxy::with(series(20), "");
    let labels = HttpLabels {
        side: HttpSide::Outbound {
            dst: &proxy.groups.dst,
        },
        ..proxy.groups.outbound("web")
    };
    let series = proxy.recorder.http(&labels);
    let reasons = (0..100).map(|n| format!("h2(REASON {n})"));
    for error in reasons.chain(["canceled".to_owned(), "reset".to_owned()]) {
        series.request();
        series.response(&telemetry::ResponseEnd {
            status: (error != "canceled").then_some(200),
            classification: telemetry::Classification::Failure,
            grpc_status: "",
            error: &error,
        });
    }
    let shown = proxy.all();
    assert_eq!(sum(&shown, "response_total", ""), 102.0);
    let by_status = sum(
        &shown,
        "response_total",
        "status_code=\"200\",classification=\"failure\"",
    );
    assert_eq!(by_status, 101.0);
    assert_eq!(sum(&shown, "response_total", "error=\"h2(REASON 0)\""), 1.0);
    assert!(sum(&shown, "weir_series", "\"response_total\"") < 40.0);
}
