//! Flags and variables as they are given, and the configuration or the problems they make.

use super::values::default_workers;
use super::*;
use clap::Parser;
use std::net::IpAddr;
use std::time::Duration;
use weir_crds::settings::Settings;

mod operator;

#[derive(Debug, Parser)]
#[command(name = "weir-proxy run")]
struct Cli {
    #[command(flatten)]
    args: RunArgs,
}

const DATAPLANE: &str = "
type: Dataplane
name: a
networking: {address: 127.0.0.5, inbound: [{port: 1, servicePort: 2, tags: {kuma.io/service: a}}]}
";

fn parse(flags: &[&str]) -> RunArgs {
    let flags = ["run"].iter().chain(flags);
    Cli::try_parse_from(flags).unwrap().args
}

/// The variables of a pod.
fn pod(name: &str) -> Option<String> {
    let value = match name {
        "WEIR_SETTINGS" => r#"{"version":1,"mesh":"default"}"#,
        "WEIR_PROBES" => r#"[{"action":{"tcp":{"port":5432}},"timeoutSeconds":1}]"#,
        "WEIR_POD_IPS" => "10.1.2.3,fd00::3",
        "INSTANCE_IP" => "10.1.2.3",
        _ => return None,
    };
    Some(value.into())
}

fn none(_: &str) -> Option<String> {
    None
}

fn problems(flags: &[&str], variable: impl Fn(&str) -> Option<String>) -> String {
    load(noted(flags), variable)
        .map(|config| config.log)
        .unwrap_err()
        .to_string()
}

#[test]
fn a_pod_needs_no_flag() {
    let config = load(parse(&[]), pod).unwrap();
    assert!(config.workers >= 1);
    assert_eq!(config.log, "info");
    assert_eq!(config.redirected.inbound.port(), 4143);
    assert_eq!(config.redirected.outbound[0].to_string(), "127.0.0.1:4140");
    assert_eq!(config.worker.guard.own_ports, [4140, 4143, 4191]);
    assert_eq!(config.worker.guard.pod_ips.len(), 2);
    assert_eq!(config.admin.addr.to_string(), "[::]:4191");
    assert_eq!(config.admin.pod_ip.to_string(), "10.1.2.3");
    assert_eq!(config.admin.metrics_ip, IpAddr::from(Ipv6Addr::UNSPECIFIED));
    assert_eq!(config.admin.probes.len(), 1);
    assert_eq!(config.drain.longest, Duration::from_secs(30));
    assert_eq!(config.telemetry.retain_idle, Duration::from_secs(600));
    assert_eq!(config.telemetry.most_series, 10_000);
    assert_eq!(config.telemetry.most_bytes, 32 << 20);
    assert!(config.sources.metrics_policy().borrow().families.is_empty());
    assert!(config.sources.universal.is_none());
}

#[test]
fn every_flag_has_its_effect() {
    let config = load(
        parse(&[
            "--dataplane",
            DATAPLANE,
            "--inbound-addr=10.0.0.1:1",
            "--outbound-addr=127.0.0.1:2,[::1]:3",
            "--admin-addr=127.0.0.1:4",
            "--concurrency=7",
            "--detect-timeout=1s",
            "--connect-timeout=2s",
            "--attempt-timeout=200ms",
            "--endpoint-rest-min=3s",
            "--endpoint-rest-max=4m",
            "--balance-decay=5s",
            "--keepalive=6s",
            "--drain-time=0",
            "--drain-time-min=8s",
            "--retain-idle=1m30s",
            "--metrics-max-series=500",
            "--metrics-max-bytes=8MiB",
            "--log-level=warn,weir_proxy=debug",
        ]),
        none,
    )
    .unwrap();
    assert_eq!(config.redirected.inbound.to_string(), "10.0.0.1:1");
    assert_eq!(config.redirected.outbound.len(), 2);
    assert_eq!(config.worker.guard.own_ports, [1, 2, 3, 4]);
    assert_eq!(config.admin.addr.to_string(), "127.0.0.1:4");
    assert_eq!(config.workers, 7);
    assert_eq!(config.worker.detect.timeout, Duration::from_secs(1));
    assert_eq!(
        config.worker.forward.connect_timeout,
        Duration::from_secs(2)
    );
    let (forward, endpoints) = (config.worker.forward, config.worker.endpoints);
    assert_eq!(forward.attempt_timeout, Duration::from_millis(200));
    assert_eq!(endpoints.rest_min, Duration::from_secs(3));
    assert_eq!(endpoints.rest_max, Duration::from_secs(240));
    assert_eq!(endpoints.decay, Duration::from_secs(5));
    assert_eq!(forward.keepalive, Duration::from_secs(6));
    assert_eq!(config.drain.longest, Duration::ZERO);
    assert_eq!(config.drain.shortest, Duration::from_secs(8));
    assert_eq!(config.telemetry.retain_idle, Duration::from_secs(90));
    assert_eq!(config.telemetry.most_series, 500);
    assert_eq!(config.telemetry.most_bytes, 8 << 20);
    assert_eq!(config.log, "warn,weir_proxy=debug");
    assert_eq!(config.sources.universal.unwrap().name, "a");
}

#[test]
fn the_metrics_endpoint_is_at_the_dataplane_unless_told_otherwise() {
    let config = load(parse(&["--dataplane", DATAPLANE]), none).unwrap();
    assert_eq!(config.admin.metrics_ip.to_string(), "127.0.0.5");
    let flags = ["--dataplane", DATAPLANE, "--metrics-ip=127.0.0.6"];
    let config = load(parse(&flags), none).unwrap();
    assert_eq!(config.admin.metrics_ip.to_string(), "127.0.0.6");
}

#[test]
fn an_address_that_is_given_twice_is_told() {
    let told = problems(&["--outbound-addr=127.0.0.1:2,127.0.0.1:2"], none);
    assert!(
        told.contains("--outbound-addr: 127.0.0.1:2 is listened on already"),
        "{told}"
    );
    let flags = ["--inbound-addr=127.0.0.1:2", "--outbound-addr=127.0.0.1:2"];
    let told = problems(&flags, none);
    assert!(
        told.contains("--outbound-addr: 127.0.0.1:2 is listened on already"),
        "{told}"
    );
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let flags = [
        "--inbound-addr=4143",
        "--outbound-addr=x",
        "--admin-addr=localhost:1",
        "--metrics-ip=host",
        "--concurrency=many",
        "--detect-timeout=10",
        "--connect-timeout=0",
        "--attempt-timeout=0s",
        "--endpoint-rest-min=1m",
        "--endpoint-rest-max=0",
        "--balance-decay=-1s",
        "--keepalive=10ms",
        "--drain-time=-1s",
        "--drain-time-min=-2s",
        "--retain-idle=soon",
        "--metrics-max-series=-1",
        "--metrics-max-bytes=1KiB",
        "--log-level=a=b=c",
        "--dataplane-file=/nonexistent/dataplane.yaml",
        "--mesh-file=/nonexistent/mesh.yaml",
    ];
    let variable = |name: &str| match name {
        "WEIR_PROBES" => Some("[1]".into()),
        "WEIR_POD_IPS" => Some("10.0.0.1,pod".into()),
        _ => None,
    };
    let told = problems(&flags, variable);
    for flag in &flags[..18] {
        let name = flag.split('=').next().unwrap();
        assert_eq!(
            told.matches(&format!("{name}: ")).count(),
            1,
            "{name} in:\n{told}"
        );
    }
    for name in [
        "WEIR_PROBES: ",
        "WEIR_POD_IPS: ",
        "dataplane.yaml",
        "mesh.yaml",
    ] {
        assert_eq!(told.matches(name).count(), 1, "{name} in:\n{told}");
    }
    assert_eq!(told.lines().count(), 22, "{told}");
}

#[test]
fn probes_need_the_pods_address() {
    let homeless =
        |name: &str| pod(name).filter(|_| !name.ends_with("IPS") && !name.ends_with("IP"));
    let told = problems(&[], homeless);
    assert!(
        told.contains("WEIR_POD_IPS") && told.contains("INSTANCE_IP"),
        "{told}"
    );
}

#[test]
fn a_dataplane_is_given_once() {
    let told = problems(&["--dataplane", DATAPLANE, "--dataplane-file=a.yaml"], none);
    assert!(told.contains("keep one of them"), "{told}");
    // An empty variable is none.
    let flags = [
        "--dataplane",
        DATAPLANE,
        "--dataplane-file=",
        "--concurrency=",
    ];
    assert!(load(parse(&flags), none).is_ok());
}

#[test]
fn there_is_a_limit_to_workers() {
    let flags = ["--dataplane", DATAPLANE, "--concurrency=100000"];
    assert!(problems(&flags, none).contains("at most 256"));
    assert_eq!(default_workers(None), 1);
    assert_eq!(default_workers(Some(0.2)), 1);
    assert_eq!(default_workers(Some(1.9)), 1);
    let available = std::thread::available_parallelism().unwrap().get();
    assert_eq!(default_workers(Some(1e9)), available);
}

#[test]
fn the_help_teaches() {
    let help = Cli::try_parse_from(["run", "--help"])
        .unwrap_err()
        .to_string();
    for part in [
        "Outside Kubernetes:",
        "Listeners:",
        "Behaviour:",
        "Examples:",
        "KUMA_DATAPLANE_RUNTIME_RESOURCE_PATH",
        "KUMA_DATAPLANE_DRAIN_TIME",
        "WEIR_DRAIN_TIME_MIN",
        "[default: 30s]",
        "kuma.io/service: web",
    ] {
        assert!(help.contains(part), "{part} in:\n{help}");
    }
}

/// Flags as `main` reads them.
fn noted(flags: &[&str]) -> RunArgs {
    use clap::{CommandFactory, FromArgMatches};
    let flags = ["run"].iter().chain(flags);
    let matches = Cli::command().try_get_matches_from(flags).unwrap();
    let mut args = Cli::from_arg_matches(&matches).unwrap().args;
    args.note_flags(Some(&matches));
    args
}

fn reported(args: RunArgs, variable: impl Fn(&str) -> Option<String>) -> Vec<(String, String)> {
    let report = load(args, variable).unwrap().admin.report;
    let entries = report.into_iter();
    entries
        .map(|entry| {
            (
                entry.name.to_owned(),
                format!("{} {:?}", entry.value, entry.source),
            )
        })
        .collect()
}

#[test]
fn every_flag_is_reported_with_its_source() {
    use clap::CommandFactory;
    let entries = reported(noted(&["--drain-time=1m", "--log-level="]), pod);
    let of = |name: &str| {
        let mut found = entries.iter().filter(|(n, _)| n == name);
        let value = found
            .next()
            .unwrap_or_else(|| panic!("{name} is not reported: add it to report.rs"));
        assert!(found.next().is_none(), "{name} is reported twice");
        value.1.clone()
    };
    let command = Cli::command();
    let flags = command.get_arguments().filter_map(|arg| arg.get_long());
    for flag in flags.filter(|flag| *flag != "help") {
        of(&format!("--{flag}"));
    }
    assert_eq!(of("--drain-time"), "\"60s\" Flag");
    assert_eq!(
        of("--log-level"),
        "\"info\" Default",
        "empty is the same as none"
    );
    assert_eq!(of("--admin-addr"), "\"[::]:4191\" Default");
    assert_eq!(
        of("WEIR_POD_IPS"),
        "[\"10.1.2.3\",\"fd00::3\"] Variable(\"WEIR_POD_IPS\")"
    );
    assert_eq!(of("WEIR_PROBES"), "1 Variable(\"WEIR_PROBES\")");
    assert_eq!(
        of("WEIR_SETTINGS"),
        "\"(30 bytes)\" Variable(\"WEIR_SETTINGS\")"
    );
}

#[test]
fn what_is_given_and_no_flag_was_a_variable() {
    let mut args = noted(&["--dataplane", DATAPLANE]);
    args.connect_timeout = Some("3s".into());
    let entries = reported(args, none);
    for (name, expected) in [
        (
            "--connect-timeout",
            "\"3s\" Variable(\"WEIR_CONNECT_TIMEOUT\")",
        ),
        ("--metrics-ip", "\"127.0.0.5\" Dataplane"),
        (
            "--dataplane",
            &format!("\"({} bytes)\" Flag", DATAPLANE.len()),
        ),
    ] {
        let found = entries.iter().find(|(n, _)| n == name).unwrap();
        assert_eq!(found.1, expected, "{name}");
    }
}

#[test]
fn what_is_wrong_in_a_pod_is_ignored_where_the_pod_must_not_wait() {
    let wrong = |name: &str| match name {
        "WEIR_SETTINGS" => Some("{}".to_owned()),
        "WEIR_PROBES" => Some("[".to_owned()),
        name => pod(name),
    };
    let flags = ["--log-level", "loud", "--drain-time", "soon", "--mesh", "m"];
    let told = problems(&flags, wrong);
    let config = load(noted(&[&flags[..], &["--best-effort"]].concat()), wrong).unwrap();
    assert_eq!(Problems(config.ignored).to_string(), told);
    assert_eq!(told.lines().count(), 4, "{told}");
    assert_eq!(config.log, "info");
    assert_eq!(config.drain.longest, Duration::from_secs(30));
    assert!(config.admin.probes.is_empty());
    let settings = config.sources.settings();
    assert_eq!(**settings.borrow(), Settings::without_metrics("m"));
}

#[test]
fn a_best_effort_ignores_nothing_where_all_is_well_and_needs_a_dataplane_outside_a_pod() {
    let flags = ["--best-effort", "--dataplane", DATAPLANE];
    assert!(load(parse(&flags), none).unwrap().ignored.is_empty());
    let flags = ["--best-effort", "--dataplane", "type: Dataplane"];
    assert!(load(parse(&flags), none).is_err());
}

#[test]
fn what_is_wrong_is_named_as_it_was_given() {
    let mut args = noted(&["--drain-time", "soon"]);
    args.log_level = Some("loud".into());
    let told = load(args, pod)
        .map(|config| config.log)
        .unwrap_err()
        .to_string();
    assert!(told.starts_with("--drain-time: "), "{told}");
    assert!(told.contains("\nWEIR_LOG: "), "{told}");
}
