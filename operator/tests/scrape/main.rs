//! The shipped scrape configuration in a real Prometheus. Pods are handed to it as a file of the
//! labels that pod discovery gives, or by the operator's own list of them, and every scrape goes through a proxy of ours on
//! loopback, so nothing else is contacted. Needs Debian's package `prometheus`.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod pod;
#[path = "../../../e2e/src/ports.rs"]
mod ports;
mod prometheus;
#[path = "../../../proxy/tests/telemetry/promtool.rs"]
mod promtool;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use pod::Pod;
use prometheus::{Found, Prometheus};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use weir_operator::index::{Discovery, Indexed};
use weir_operator::metrics::{Certificate, Controller, Documents, Metrics, Outcome, Watch};
use weir_operator::monitoring;

const SHIPPED: &str = include_str!("../../../manifests/prometheus/linkerd-proxy.yaml");
const DEADLINE: Duration = Duration::from_secs(60);

/// The pod of the Linkerd page.
fn vote_bot() -> Pod {
    Pod::new("emojivoto", "vote-bot-5b7f5657f6-xbjjw", "10.1.3.93:4191").labels(&[
        ("app", "vote-bot"),
        ("linkerd.io/control-plane-ns", "linkerd"),
        ("linkerd.io/proxy-deployment", "vote-bot"),
        ("pod-template-hash", "3957278789"),
        ("test", "vote-bot-test"),
    ])
}

/// A pod of a Job, still starting, with IPv6 and with labels named to do harm.
fn migration() -> Pod {
    Pod::new("shop", "migrate-x7k2p", "[fd00::7]:4191")
        .labels(&[
            ("linkerd.io/control-plane-ns", "kuma-system"),
            ("linkerd.io/workload-ns", "shop"),
            ("linkerd.io/proxy-job", "migrate"),
            ("batch.kubernetes.io/job-name", "migrate"),
            ("job", "not-the-job"),
            ("pod", "not-the-pod"),
            ("namespace", "not-the-namespace"),
            ("instance", "not-the-instance"),
            ("direction", "north"),
            ("deployment", "a-label-of-the-users"),
            ("9lives", "yes"),
        ])
        .phase("Pending")
}

/// Pods that are none of ours, each by one thing.
fn strangers() -> [Pod; 3] {
    [
        Pod::new("a", "no-control-plane", "10.1.3.1:4191").labels(&[("app", "a")]),
        vote_bot()
            .named("b")
            .at("10.1.3.93:4143")
            .port("linkerd-proxy"),
        vote_bot()
            .named("c")
            .at("10.1.3.94:4191")
            .phase("Succeeded"),
    ]
}

fn page_labels() -> Value {
    json!({
        "pod": "vote-bot-5b7f5657f6-xbjjw",
        "namespace": "emojivoto",
        "app": "vote-bot",
        "control_plane_ns": "linkerd",
        "deployment": "vote-bot",
        "pod_template_hash": "3957278789",
        "test": "vote-bot-test",
        "instance": "10.1.3.93:4191",
        "job": "linkerd-proxy",
    })
}

fn migration_labels() -> Value {
    json!({
        "pod": "migrate-x7k2p",
        "namespace": "shop",
        "control_plane_ns": "kuma-system",
        "k8s_job": "migrate",
        "batch_kubernetes_io_job_name": "migrate",
        "deployment": "a-label-of-the-users",
        "direction": "north",
        "_9lives": "yes",
        "instance": "[fd00::7]:4191",
        "job": "linkerd-proxy",
    })
}

fn pods() -> Vec<Pod> {
    let mut pods = vec![vote_bot(), migration()];
    pods.extend(strangers());
    pods
}

/// Lists the pods as the operator does.
async fn list(pods: &[Pod]) -> SocketAddr {
    let mut index = Discovery::default();
    let objects = pods
        .iter()
        .map(|pod| serde_json::from_value(pod.object()).unwrap());
    let kept: Vec<_> = objects.map(|object| index.keep_pod(object)).collect();
    index.reset(kept);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (metrics, stop) = (Metrics::default().monitoring, CancellationToken::new());
    let known = monitoring::Known {
        index,
        contact: tokio::sync::watch::Sender::new(true).subscribe(),
    };
    let limits = monitoring::Limits::default();
    tokio::spawn(monitoring::serve(listener, known, limits, (metrics, stop)));
    address
}

/// What the shipped file says to put in the place of its discovery.
fn in_its_place() -> Value {
    let lines = SHIPPED
        .lines()
        .skip_while(|line| *line != "    #http_sd_configs:");
    let lines = lines.map_while(|line| line.strip_prefix("    #"));
    serde_yaml::from_str(&lines.collect::<Vec<_>>().join("\n")).unwrap()
}

#[tokio::test]
async fn the_pages_pod_and_a_job_get_exactly_their_labels() {
    let prometheus = Prometheus::start(SHIPPED, Found::File(&pods())).await;
    they_have_exactly_their_labels(&prometheus).await;
}

#[tokio::test]
async fn the_operator_tells_of_them_as_discovery_does() {
    let url = "http://weir-operator.kuma-system.svc:5676/targets";
    let shipped = in_its_place();
    assert_eq!(shipped, json!({"http_sd_configs": [{"url": url}]}));
    let mut server = shipped["http_sd_configs"][0].clone();
    let address = list(&pods()).await;
    server["url"] = json!(url.replace("weir-operator.kuma-system.svc:5676", &address.to_string()));
    server["refresh_interval"] = json!("1s");
    let prometheus = Prometheus::start(SHIPPED, Found::Http(server)).await;
    they_have_exactly_their_labels(&prometheus).await;
}

async fn they_have_exactly_their_labels(prometheus: &Prometheus) {
    let targets = prometheus.targets(2, DEADLINE).await;
    assert_eq!(targets["10.1.3.93:4191"], page_labels());
    assert_eq!(targets["[fd00::7]:4191"], migration_labels());
    assert_eq!(
        targets.len(),
        2,
        "only pods with our admin port: {targets:?}"
    );

    let series = prometheus.query("request_total", 2, DEADLINE).await;
    let mut expected = page_labels();
    expected["__name__"] = json!("request_total");
    expected["direction"] = json!("outbound");
    assert!(series.contains(&expected), "{series:?}");
    // The metric's own label stands against the pod's of the same name.
    let mut expected = migration_labels();
    expected["__name__"] = json!("request_total");
    expected["direction"] = json!("outbound");
    assert!(series.contains(&expected), "{series:?}");

    let buckets = prometheus
        .query("response_latency_ms_bucket", 4, DEADLINE)
        .await;
    assert_eq!(buckets.len(), 4, "classic histograms are kept: {buckets:?}");
}

#[test]
fn the_shipped_file_discovers_every_pod_and_nothing_else() {
    let shipped: Value = serde_yaml::from_str(SHIPPED).unwrap();
    let jobs = shipped["scrape_configs"].as_array().unwrap();
    assert_eq!(jobs.len(), 1);
    assert_eq!(jobs[0]["job_name"], "linkerd-proxy");
    assert_eq!(jobs[0]["kubernetes_sd_configs"], json!([{"role": "pod"}]));
    let named: Vec<&Value> = jobs[0]["relabel_configs"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|rule| {
            let sources = rule["source_labels"].to_string();
            rule["action"] == "replace" && sources.contains("_pod_label_")
        })
        .collect();
    assert!(
        named.is_empty(),
        "labels are mapped, none by name: {named:?}"
    );
}

#[test]
fn promtool_has_nothing_to_say_of_the_operators_own_metrics() {
    let metrics = Metrics::default();
    metrics.count_reconcile(Controller::Mesh, Outcome::from_class("conflict"));
    metrics.count_watch_restart(Watch::Meshes);
    metrics.set_leader(true);
    metrics.set_expiry(Certificate::Webhook, jiff::Timestamp::UNIX_EPOCH);
    metrics.set_documents(Documents::InForce, 3);
    let (_, text) = weir_process::exposition::negotiated(std::iter::empty(), metrics.render());
    assert_eq!(promtool::said_of(&text), [] as [&str; 0], "{text}");
}
