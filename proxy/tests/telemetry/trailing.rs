//! A policy that changes labels which follow those of the label set: there the set stays in use, and the series in it that
//! nothing asks for any more have to go by themselves.

use std::io::{self, Write};
use std::time::Duration;

use weir_proxy::telemetry::{self, Classification, ResponseEnd, Selection, Telemetry};

use crate::proxy::Proxy;
use crate::scrape::{Scrape, parse, scrape, sum, text};

/// Longer than a series is at least hidden for, with scrapes in between.
const WHILE: u32 = 90;

fn traffic(proxy: &Proxy) {
    proxy.request("a", 3);
    proxy.call("a", (1, 2));
    let tcp = proxy.recorder.transport(&proxy.groups.accepted(8080));
    tcp.opened();
    tcp.closed(Classification::Failure, "ECONNRESET", Duration::ZERO);
}

fn counters(shown: &Scrape) -> impl Iterator<Item = (&String, &f64)> {
    shown.iter().filter(|(s, _)| s.contains("_total{"))
}

#[test]
fn series_that_lose_a_label_go_once_they_were_scraped() {
    for (label, family) in [
        ("status_code", "response_total"),
        ("status_code", "response_latency_ms_count"),
        ("classification", "response_total"),
        ("classification", "tcp_close_total"),
        ("grpc_status_code", "response_total"),
        ("error", "response_total"),
        ("errno", "tcp_close_total"),
        ("kind", "grpc_messages_total"),
    ] {
        let mut proxy = Proxy::new("");
        proxy.run_with(10, traffic);
        let has = |proxy: &Proxy| {
            let shown = proxy.all();
            let of = |s: &&String| s.starts_with(&format!("{family}{{"));
            let label = [",", "{"].map(|before| format!("{before}{label}=\""));
            let with = |s: &&String| label.iter().any(|label| s.contains(label));
            let (old, new): (Vec<_>, Vec<_>) = shown.keys().filter(of).partition(with);
            (old.len(), new.len())
        };
        let before = has(&proxy);
        assert!(
            before.0 > 0 && before.1 == 0,
            "{family} {label}: {before:?}"
        );
        proxy.change(&format!("dropLabels: [{label}]"));
        proxy.run_with(WHILE, traffic);
        assert_eq!(has(&proxy), (0, 1), "{family} {label}");
        let messages = f64::from(WHILE) * if label == "kind" { 3.0 } else { 1.0 };
        assert_eq!(sum(&proxy.all(), family, ""), messages, "{family} {label}");
        proxy.change("");
        proxy.run_with(WHILE, traffic);
        assert_eq!(has(&proxy), before, "{family} {label}: and back");
    }
}

#[test]
fn what_they_took_is_given_back() {
    let mut proxy = Proxy::new("");
    traffic(&proxy);
    // As much as there ever is of the rest.
    proxy.change("dropLabels: [status_code, errno, kind]");
    proxy.run_with(WHILE, traffic);
    let (bytes, series) = (
        proxy.telemetry.bytes(),
        sum(&proxy.all(), "weir_series", ""),
    );
    for policy in ["", "dropLabels: [status_code, errno, kind]"] {
        proxy.change(policy);
        proxy.run_with(WHILE, traffic);
    }
    assert_eq!(proxy.telemetry.bytes(), bytes);
    assert_eq!(sum(&proxy.all(), "weir_series", ""), series);
    let evicted = |family: &str| {
        let family = format!("\"{family}\"");
        sum(&proxy.all(), "weir_series_evicted_total", &family)
    };
    assert_eq!(evicted("response_total"), 3.0);
    assert_eq!(evicted("grpc_messages_total"), 2.0 + 1.0 + 2.0);
    assert_eq!(evicted("request_total"), 0.0);
}

#[test]
fn they_are_waited_for_as_long_as_nobody_scrapes() {
    let mut proxy = Proxy::new("");
    traffic(&proxy);
    let policy = telemetry::policy("dropLabels: [status_code]");
    proxy.telemetry.set_policy(&policy.unwrap());
    proxy.wait(1);
    for _ in 0..300 {
        traffic(&proxy);
        proxy.wait(1);
    }
    let old = |proxy: &Proxy| sum(&proxy.all(), "response_total", ",status_code=\"200\"");
    assert_eq!(old(&proxy), 1.0, "scraped for the first time");
    proxy.run_with(WHILE, traffic);
    assert_eq!(old(&proxy), 0.0);
}

#[test]
fn what_is_open_ends_under_its_old_labels_and_is_shown() {
    let mut proxy = Proxy::new("");
    let open = proxy.recorder.http(&proxy.groups.inbound("a"));
    open.request();
    proxy.change("dropLabels: [status_code]");
    proxy.run_with(WHILE, traffic);
    open.response(&ResponseEnd {
        status: Some(404),
        classification: Classification::Success,
        grpc_status: "",
        error: "",
    });
    let old = |shown: &Scrape| sum(shown, "response_total", "status_code=\"404\"");
    proxy.run_with(WHILE, traffic);
    assert_eq!(old(&proxy.all()), 1.0, "it may still be written to");
    drop(open);
    proxy.wait(30);
    assert_eq!(old(&proxy.all()), 1.0, "nobody has seen its end");
    proxy.run_with(WHILE, traffic);
    assert_eq!(old(&proxy.all()), 0.0);
}

/// At any second after the change, it is taken back: no counter may then have gone backwards.
#[test]
fn a_policy_that_is_taken_back_resets_nothing_that_is_still_known() {
    for seconds in (0..WHILE).step_by(4) {
        let mut proxy = Proxy::new("");
        proxy.run_with(3, traffic);
        let mut last = proxy.all();
        for (policy, seconds) in [("dropLabels: [status_code, kind]", seconds), ("", 5)] {
            proxy.change(policy);
            proxy.run_with(seconds, |proxy| {
                traffic(proxy);
                let shown = proxy.all();
                for (series, value) in counters(&last) {
                    let now = shown.get(series).unwrap_or(value);
                    assert!(
                        now >= value,
                        "{series}: {value}, then {now}, after {seconds} s"
                    );
                }
                last = shown;
            });
        }
    }
}

/// Has the sweep forget series while an exposition is on its way.
struct Sweeping<'a>(&'a Telemetry, std::time::Instant, Vec<u8>);

impl Write for Sweeping<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.1 += Duration::from_secs(120);
        self.0.sweep(self.1);
        self.2.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn an_exposition_under_way_leaves_no_series_out() {
    let mut proxy = Proxy::new("");
    let statuses = 100..400;
    statuses
        .clone()
        .for_each(|status| proxy.answer("a", status, 1));
    proxy.change("families: {response_total: {dropLabels: [error]}}");
    statuses.for_each(|status| proxy.answer("a", status, 1));
    let now = std::time::Instant::now() + Duration::from_secs(10);
    for second in 0..3 {
        proxy.telemetry.sweep(now + Duration::from_secs(second));
        text(&proxy.telemetry, &Selection::default());
    }
    let before = sum(&proxy.all(), "weir_series", "\"response_total\"");
    let mut out = Sweeping(&proxy.telemetry, now, Vec::new());
    proxy
        .telemetry
        .expose(&Selection::default(), &mut out)
        .unwrap();
    let shown = parse(&String::from_utf8(out.2).unwrap());
    // What is being read is forgotten only after that.
    proxy.telemetry.sweep(out.1 + Duration::from_secs(120));
    let after = scrape(&proxy.telemetry, &Selection::default());
    assert_eq!(sum(&shown, "response_total", ""), 300.0);
    assert_eq!(
        before - sum(&after, "weir_series", "\"response_total\""),
        300.0
    );
}
