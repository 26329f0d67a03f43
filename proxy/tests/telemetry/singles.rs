//! Decisions on requests and requests of no route are counted one by one, under labels that any client can make up:
//! the budget holds for them as for requests, and does not let them push out anybody else.

use std::time::Instant;

use weir_proxy::telemetry::{Config, NotFoundLabels, OVERFLOW, Recorder, Telemetry, policy};

use crate::budget::{all, answer, proxy, run, series};
use crate::scrape::{Groups, sum};

const NOT_FOUND: &str = "inbound_http_route_not_found_total";
const ALLOW: &str = "inbound_http_authz_allow_total";

fn not_found(recorder: &Recorder, groups: &Groups, authority: &str) {
    recorder.route_not_found(&NotFoundLabels {
        authority,
        target_port: 8080,
        server: &groups.server,
        tls: &groups.plain,
    });
}

fn flood(recorder: &Recorder, groups: &Groups, of: u32) {
    for n in 0..of {
        let authority = format!("{n}.example");
        not_found(recorder, groups, &authority);
        recorder.authz(&groups.let_in(&authority));
    }
}

fn of(telemetry: &Telemetry, family: &str, authority: &str) -> f64 {
    let labels = format!("authority=\"{authority}\"");
    sum(&all(telemetry), family, &labels)
}

#[test]
fn a_flood_of_hosts_does_not_push_out_known_services() {
    let config = Config {
        most_bytes: 256 * 1024,
        ..series(u64::MAX)
    };
    let (telemetry, recorders) = proxy(1, config);
    telemetry.known().set(["web".to_owned()]);
    recorders[0].tick(Instant::now());
    let groups = Groups::new();
    flood(&recorders[0], &groups, 3000);
    assert!(telemetry.bytes() <= 256 * 1024 / 4 * 3 + 8 * 1024);
    for authority in ["web", "web:8080", "web:8081"] {
        answer(&recorders[0].http(&groups.inbound(authority)), 200);
        not_found(&recorders[0], &groups, authority);
        recorders[0].authz(&groups.let_in(authority));
    }
    for family in ["request_total", NOT_FOUND, ALLOW] {
        assert_eq!(of(&telemetry, family, "web"), 1.0, "{family}");
        assert_eq!(of(&telemetry, family, "web:8080"), 1.0, "{family}");
        assert_eq!(of(&telemetry, family, "web:8081"), 0.0, "{family}");
    }
    for family in [NOT_FOUND, ALLOW] {
        let shown = all(&telemetry);
        assert_eq!(sum(&shown, family, ""), 3003.0);
        let name = format!("\"{family}\"");
        let refused = sum(&shown, "weir_series_dropped_total", &name);
        assert!(refused > 1000.0, "{family}: {refused}");
        let over = format!(
            "authority=\"{OVERFLOW}\",srv_group=\"kuma.io\",srv_kind=\"dataplane\",srv_name=\"web\",srv_port=\"8080\""
        );
        assert_eq!(sum(&shown, family, &over), refused, "{family}");
    }
}

#[test]
fn the_number_of_series_holds_for_them_as_well() {
    let own = format!("families: {{{ALLOW}: {{maxSeries: 3}}}}");
    let (telemetry, recorders) = proxy(1, series(10));
    telemetry.set_policy(&policy(&own).unwrap());
    recorders[0].tick(Instant::now());
    let groups = Groups::new();
    flood(&recorders[0], &groups, 30);
    let shown = all(&telemetry);
    for (family, most) in [(NOT_FOUND, 10), (ALLOW, 3)] {
        let own = shown.keys().filter(|name| name.starts_with(family));
        assert_eq!(own.count(), most + 1, "{family}");
        assert_eq!(
            of(&telemetry, family, OVERFLOW),
            (30 - most) as f64,
            "{family}"
        );
    }
}

/// The budget is not asked again for what a connection repeats.
#[test]
fn what_was_refused_counts_again_as_it_did() {
    let (telemetry, recorders) = proxy(1, series(10));
    let groups = Groups::new();
    flood(&recorders[0], &groups, 30);
    let refused = recorders[0].authz(&groups.let_in("late.example"));
    let before = all(&telemetry);
    assert!(refused.count());
    let after = all(&telemetry);
    let counted = |shown| sum(shown, ALLOW, OVERFLOW);
    assert_eq!(counted(&after), counted(&before) + 1.0);
    let dropped = |shown| sum(shown, "weir_series_dropped_total", ALLOW);
    assert_eq!(dropped(&after), dropped(&before));
}

/// Hosts that are not told apart do not take a place each.
#[test]
fn left_out_hosts_take_no_room() {
    let (telemetry, recorders) = proxy(1, series(10));
    telemetry.set_policy(&policy("dropLabels: [authority]").unwrap());
    recorders[0].tick(Instant::now());
    let groups = Groups::new();
    flood(&recorders[0], &groups, 1);
    let before = telemetry.bytes();
    flood(&recorders[0], &groups, 1000);
    assert_eq!(telemetry.bytes(), before);
    let shown = all(&telemetry);
    for family in [NOT_FOUND, ALLOW] {
        assert_eq!(sum(&shown, family, ""), 1001.0);
        assert_eq!(sum(&shown, family, "authority"), 0.0);
    }
    assert_eq!(sum(&shown, "weir_series_dropped_total", ""), 0.0);
}

/// What strangers have filled is not filled again by another policy, and a counter that stays what it was goes on.
#[test]
fn another_policy_does_not_bring_strangers_back() {
    let (telemetry, recorders) = proxy(1, series(u64::MAX));
    let groups = Groups::new();
    let mut now = Instant::now();
    flood(&recorders[0], &groups, 500);
    let flooded = telemetry.bytes();
    telemetry.set_policy(&policy("dropLabels: [route_group]").unwrap());
    run(&telemetry, &recorders, &mut now, 1);
    not_found(&recorders[0], &groups, "0.example");
    assert_eq!(of(&telemetry, NOT_FOUND, "0.example"), 2.0);
    run(&telemetry, &recorders, &mut now, 600);
    assert!(
        telemetry.bytes() < flooded / 10,
        "{flooded} {}",
        telemetry.bytes()
    );
}
