//! What becomes of series with time: those that were refused are taken in, and those of a destination that is gone go sooner.

use std::time::{Duration, Instant};

use weir_proxy::telemetry::{
    Classification, Config, Dst, HttpLabels, HttpSide, OVERFLOW, TransportEnd, TransportLabels,
};

use crate::budget::{all, answer, proxy, run, series};
use crate::scrape::{Groups, scrape, sum, traffic};

#[test]
fn who_was_refused_is_taken_once_there_is_room() {
    let (telemetry, recorders) = proxy(1, series(2));
    let groups = Groups::new();
    let mut now = Instant::now();
    for authority in ["a", "b"] {
        answer(&recorders[0].http(&groups.inbound(authority)), 200);
    }
    let refused = recorders[0].http(&groups.inbound("c"));
    answer(&refused, 200);
    let cached = refused.downgrade();
    assert!(cached.pin().is_some(), "nothing better is to be had");
    run(&telemetry, &recorders, &mut now, 800);
    assert!(cached.pin().is_none(), "it could be had under its own name");
    answer(&recorders[0].http(&groups.inbound("c")), 200);
    let shown = all(&telemetry);
    assert_eq!(sum(&shown, "request_total", "authority=\"c\""), 1.0);
    assert_eq!(
        sum(&shown, "request_total", OVERFLOW),
        1.0,
        "pinned, it goes on from its count"
    );
}

#[test]
fn a_destination_that_is_gone_is_forgotten_sooner() {
    let (telemetry, recorders) = proxy(1, Config::default());
    let groups = Groups::new();
    let mut now = Instant::now();
    let dst = |pod: &str| Dst::new([("pod", pod), ("service", "web")]);
    let [gone, open, stays] = ["gone", "open", "stays"].map(dst);
    let labels = |dst| TransportLabels {
        target_port: 80,
        tls: &groups.mutual,
        end: TransportEnd::OutboundDst {
            authority: "web",
            dst,
        },
    };
    let connection = recorders[0].transport(&labels(&open));
    connection.opened();
    for dst in [&gone, &stays] {
        let series = recorders[0].transport(&labels(dst));
        series.opened();
        series.closed(Classification::Success, "", Duration::ZERO);
        let http = HttpLabels {
            side: HttpSide::Outbound { dst },
            ..groups.outbound("web")
        };
        answer(&recorders[0].http(&http), 200);
    }
    run(&telemetry, &recorders, &mut now, 30);
    telemetry.end(&[gone, open]);
    run(&telemetry, &recorders, &mut now, 90);
    let shown = all(&telemetry);
    let pods = |family: &str| {
        let of = ["gone", "open", "stays"].map(|pod| format!("dst_pod=\"{pod}\""));
        of.map(|pod| {
            shown
                .keys()
                .any(|s| s.starts_with(family) && s.contains(&pod))
        })
    };
    assert_eq!(pods("tcp_open_total"), [false, true, true]);
    assert_eq!(pods("request_total"), [false, false, true]);
    connection.closed(Classification::Success, "", Duration::ZERO);
    drop(connection);
    run(&telemetry, &recorders, &mut now, 90);
    let shown = all(&telemetry);
    assert!(!shown.keys().any(|s| s.contains("dst_pod=\"open\"")));
    assert!(shown.keys().any(|s| s.contains("dst_pod=\"stays\"")));
}

#[test]
fn a_destination_that_comes_back_goes_on_from_its_counts() {
    let (telemetry, recorders) = proxy(1, Config::default());
    let groups = Groups::new();
    let mut now = Instant::now();
    let again = || answer(&recorders[0].http(&groups.outbound("web")), 200);
    again();
    run(&telemetry, &recorders, &mut now, 16);
    telemetry.end(std::slice::from_ref(&groups.dst));
    run(&telemetry, &recorders, &mut now, 40);
    let hidden = sum(&all(&telemetry), "request_total", "dst_service=\"web\"");
    assert_eq!(hidden, 0.0);
    again();
    run(&telemetry, &recorders, &mut now, 300);
    again();
    assert_eq!(
        sum(&all(&telemetry), "request_total", "dst_service=\"web\""),
        3.0
    );
}

/// No exposition is complete where every scraper has a filter: whoever comes next is waited for, and nobody longer.
#[test]
fn who_scrapes_with_a_filter_has_the_last_values_of_what_is_gone() {
    let (telemetry, recorders) = proxy(1, Config::default());
    let groups = Groups::new();
    let mut now = Instant::now();
    let mut run = |seconds: u32, is_scraped: bool| {
        for second in 1..=seconds {
            now += Duration::from_secs(1);
            recorders[0].tick(now);
            telemetry.sweep(now);
            if is_scraped && second % 15 == 0 {
                scrape(&telemetry, &traffic("^request_total$"));
            }
        }
    };
    let shown = || {
        let shown = scrape(&telemetry, &traffic("^request_total$"));
        sum(&shown, "request_total", "dst_service=\"web\"")
    };
    run(750, true);
    answer(&recorders[0].http(&groups.outbound("web")), 200);
    telemetry.end(std::slice::from_ref(&groups.dst));
    run(14, false);
    assert_eq!(shown(), 1.0, "it was told to nobody");
    run(60, true);
    assert_eq!(shown(), 0.0);
    // Where nobody comes any more, nobody is waited for.
    let before = telemetry.label_sets();
    answer(&recorders[0].http(&groups.outbound("web")), 200);
    telemetry.end(std::slice::from_ref(&groups.dst));
    run(900, false);
    assert!(telemetry.label_sets() <= before);
}
