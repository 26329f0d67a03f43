//! What of the flags and variables is in force and who gave it, for `/config`. Used by `config` once everything has its
//! type. It tells where a document came from, never what is in it.

use super::{Config, RunArgs};
use crate::admin::{Entry, Source};
use serde_json::{Value, json};
use std::time::Duration;
use weir_crds::env;

/// One entry for every flag of `weir-proxy run` and every variable of a pod.
pub(super) fn entries(
    args: &RunArgs,
    config: &Config,
    variable: &impl Fn(&str) -> Option<String>,
) -> Vec<Entry> {
    let mut entries = vec![
        args.entry(
            "--dataplane-file",
            &args.dataplane_file,
            json!(args.dataplane_file),
        ),
        args.entry("--dataplane", &args.dataplane, hidden(&args.dataplane)),
        args.entry("--mesh-file", &args.mesh_file, json!(args.mesh_file)),
        args.entry("--name", &args.name, json!(args.name)),
        args.entry("--mesh", &args.mesh, json!(args.mesh)),
        args.entry(
            "--identity-cert-file",
            &args.identity_cert_file,
            json!(args.identity_cert_file),
        ),
        args.entry(
            "--identity-key-file",
            &args.identity_key_file,
            json!(args.identity_key_file),
        ),
        args.entry(
            "--identity-ca-file",
            &args.identity_ca_file,
            json!(args.identity_ca_file),
        ),
    ];
    entries.extend(of_operator(args));
    entries.extend(listeners(args, config));
    entries.extend(forwarding(args, config));
    entries.extend(behaviour(args, config));
    entries.extend(pod(config, variable));
    entries
}

/// The operator as it is given outside Kubernetes; what a pod has of it is among the variables.
fn of_operator(args: &RunArgs) -> [Entry; 3] {
    [
        ("--control-plane-url", &args.control_plane_url),
        ("--control-plane-ca-file", &args.control_plane_ca_file),
        ("--dataplane-token-file", &args.dataplane_token_file),
    ]
    .map(|(name, text)| args.entry(name, text, json!(text)))
}

fn listeners(args: &RunArgs, config: &Config) -> [Entry; 4] {
    let redirected = &config.redirected;
    let outbound: Vec<_> = redirected
        .outbound
        .iter()
        .map(ToString::to_string)
        .collect();
    let metrics_ip = args.entry(
        "--metrics-ip",
        &args.metrics_ip,
        json!(config.admin.metrics_ip),
    );
    let of_dataplane = config.sources.universal.is_some() && metrics_ip.source == Source::Default;
    [
        args.entry(
            "--inbound-addr",
            &args.inbound_addr,
            json!(redirected.inbound),
        ),
        args.entry("--outbound-addr", &args.outbound_addr, json!(outbound)),
        args.entry("--admin-addr", &args.admin_addr, json!(config.admin.addr)),
        match of_dataplane {
            true => Entry {
                source: Source::Dataplane,
                ..metrics_ip
            },
            false => metrics_ip,
        },
    ]
}

fn duration(duration: Duration) -> Value {
    json!(format!("{duration:?}"))
}

fn forwarding(args: &RunArgs, config: &Config) -> [Entry; 7] {
    let (detect, forward) = (&config.worker.detect, &config.worker.forward);
    let endpoints = &config.worker.endpoints;
    [
        ("--detect-timeout", &args.detect_timeout, detect.timeout),
        (
            "--connect-timeout",
            &args.connect_timeout,
            forward.connect_timeout,
        ),
        (
            "--attempt-timeout",
            &args.attempt_timeout,
            forward.attempt_timeout,
        ),
        (
            "--endpoint-rest-min",
            &args.endpoint_rest_min,
            endpoints.rest_min,
        ),
        (
            "--endpoint-rest-max",
            &args.endpoint_rest_max,
            endpoints.rest_max,
        ),
        ("--balance-decay", &args.balance_decay, endpoints.decay),
        ("--keepalive", &args.keepalive, forward.keepalive),
    ]
    .map(|(name, text, value)| args.entry(name, text, duration(value)))
}

fn behaviour(args: &RunArgs, config: &Config) -> [Entry; 10] {
    let operator = config.operator.as_ref();
    let drain = duration(config.drain.longest);
    let stay = duration(config.drain.shortest);
    let retain = duration(config.telemetry.retain_idle);
    [
        args.entry("--concurrency", &args.concurrency, json!(config.workers)),
        args.entry("--drain-time", &args.drain_time, drain),
        args.entry("--drain-time-min", &args.drain_time_min, stay),
        args.entry("--retain-idle", &args.retain_idle, retain),
        args.entry(
            "--metrics-policy-file",
            &args.metrics_policy_file,
            json!(args.metrics_policy_file),
        ),
        args.entry(
            "--max-destinations",
            &args.max_destinations,
            json!(operator.map(|operator| operator.discovery.most)),
        ),
        args.entry(
            "--metrics-max-series",
            &args.metrics_max_series,
            json!(config.telemetry.most_series),
        ),
        args.entry(
            "--metrics-max-bytes",
            &args.metrics_max_bytes,
            json!(config.telemetry.most_bytes),
        ),
        args.entry("--log-level", &args.log_level, json!(config.log)),
        args.entry(
            "--best-effort",
            &args.best_effort.then(|| "true".to_owned()),
            json!(config.best_effort),
        ),
    ]
}

/// What the webhook gives a pod: there are no flags for it.
fn pod(config: &Config, variable: &impl Fn(&str) -> Option<String>) -> [Entry; 5] {
    let given = |name: &'static str| variable(name).filter(|value| !value.is_empty());
    let entry = |name: &'static str, value: Value| Entry {
        name,
        value,
        source: match given(name) {
            Some(_) => Source::Variable(name.to_owned()),
            None => Source::Default,
        },
    };
    let connection = config.operator.as_ref().map(|of| &of.connection);
    let operator = connection.map(|connection| connection.target.addr());
    let token = connection.and_then(|connection| connection.token.as_ref());
    [
        entry(env::POD_IPS, json!(config.worker.guard.pod_ips)),
        entry(env::PROBES, json!(config.admin.probes.len())),
        entry(env::SETTINGS, hidden(&given(env::SETTINGS))),
        entry(env::CONTROL_PLANE_URL, json!(operator)),
        entry(env::TOKEN_PATH, json!(token)),
    ]
}

/// Says of a document that there is one.
fn hidden(document: &Option<String>) -> Value {
    match document.as_deref().filter(|text| !text.is_empty()) {
        Some(text) => json!(format!("({} bytes)", text.len())),
        None => Value::Null,
    }
}
