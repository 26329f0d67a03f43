//! 200,000 distinct authorities: what they cost is measured from outside, in a process of its own, and is within the
//! budget. That process is this test binary again.

use std::process::Command;
use std::time::{Duration, Instant};

use weir_proxy::telemetry::{
    self, Classification, Config, OVERFLOW, Recorder, ResponseEnd, Selection,
};

use crate::scrape::{Groups, scrape, sum};

const AUTHORITIES: usize = 200_000;
const WORKERS: usize = 2;
/// The variable that tells the process of its own from the one that starts it.
const INSIDE: &str = "WEIR_TEST_FLOOD";
/// What the allocator may keep beside what is in use: the rest of its pages, and what tables grow over.
const SLACK: usize = 3 * 1024 * 1024;

fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * rustix::param::page_size()
}

fn record(recorder: &Recorder, groups: &Groups, authority: &str) {
    let series = recorder.http(&groups.inbound(authority));
    recorder.authz(&groups.let_in(authority));
    series.request();
    series.latency(Some(200), Duration::from_millis(3));
    series.response(&ResponseEnd {
        status: Some(200),
        classification: Classification::Success,
        grpc_status: "",
        error: "",
    });
}

fn flood(config: Config) {
    let most_bytes = config.most_bytes;
    let (telemetry, seats) = telemetry::new(config, WORKERS);
    telemetry.known().set(["web".to_owned()]);
    let recorders: Vec<_> = seats.into_iter().map(|seat| seat.take()).collect();
    let groups = Groups::new();
    let mut now = Instant::now();
    let run = |now: &mut Instant, seconds: u32| {
        for second in 0..seconds {
            *now += Duration::from_secs(1);
            recorders.iter().for_each(|recorder| recorder.tick(*now));
            telemetry.sweep(*now);
            if second % 15 == 0 {
                let selection = Selection::default();
                telemetry.expose(&selection, &mut std::io::sink()).unwrap();
            }
        }
    };
    run(&mut now, 1);
    let before = resident();
    for n in 0..AUTHORITIES {
        // Every worker sees every authority.
        let authority = format!("{n}.tenant.example.com");
        for recorder in &recorders {
            record(recorder, &groups, &authority);
        }
    }
    let grown = resident().saturating_sub(before);
    let counted = telemetry.bytes();
    println!("{most_bytes} bytes allowed, {counted} counted, {grown} resident");
    assert!(counted <= most_bytes);
    assert!(grown <= most_bytes + SLACK, "more than the budget");
    assert!(grown <= counted + SLACK, "more than was counted");
    assert!(grown >= counted / 2, "much less than was counted");

    record(&recorders[0], &groups, "web");
    let shown = scrape(&telemetry, &Selection::default());
    let requests = (AUTHORITIES * WORKERS + 1) as f64;
    for family in [
        "request_total",
        "response_total",
        "response_latency_ms_count",
        "inbound_http_authz_allow_total",
    ] {
        assert_eq!(sum(&shown, family, "direction=\"inbound\""), requests);
    }
    assert_eq!(sum(&shown, "request_total", "authority=\"web\""), 1.0);
    let over = sum(&shown, "request_total", OVERFLOW);
    assert_eq!(
        sum(&shown, "weir_series_dropped_total", "\"request_total\""),
        over
    );
    assert!(over > requests / 2.0);

    run(&mut now, 900);
    assert!(telemetry.bytes() < counted / 50, "all were forgotten");
    record(&recorders[1], &groups, "new.example.com");
    let shown = scrape(&telemetry, &Selection::default());
    assert_eq!(
        sum(&shown, "request_total", "authority=\"new.example.com\""),
        1.0
    );
    println!("passed");
}

fn in_its_own_process(test: &str, config: Config) {
    if std::env::var_os(INSIDE).is_some() {
        return flood(config);
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(
        output.status.success() && said.contains("passed\n"),
        "{said}"
    );
    println!("{said}");
}

#[test]
fn within_the_number_of_series() {
    let config = Config {
        most_bytes: 64 * 1024 * 1024,
        ..Config::default()
    };
    in_its_own_process("flood::within_the_number_of_series", config);
}

#[test]
fn within_the_bytes() {
    let config = Config {
        most_series: u64::MAX,
        most_bytes: 8 * 1024 * 1024,
        ..Config::default()
    };
    in_its_own_process("flood::within_the_bytes", config);
}
