//! Probes tell of the application, not of the proxy, and are no traffic.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::ListParams;
use serde_json::{Value, json};
use weir_e2e::cluster::pod::is_ready;
use weir_e2e::cluster::{Story, Workload, eventually};

use crate::beside_others;

/// The port on which the application is told to listen or not; not redirected, so never counted.
const GATE: u16 = 8081;

const LIMIT: Duration = Duration::from_secs(30);

#[tokio::test]
async fn an_http_probe_passes_only_while_the_application_listens() -> anyhow::Result<()> {
    let probe = json!({"httpGet": {"path": "/ok", "port": 8080}, "periodSeconds": 1});
    follow("probe-http", probe).await
}

#[tokio::test]
async fn a_tcp_probe_passes_only_while_the_application_listens() -> anyhow::Result<()> {
    follow(
        "probe-tcp",
        json!({"tcpSocket": {"port": 8080}, "periodSeconds": 1}),
    )
    .await
}

async fn follow(title: &str, mut probe: Value) -> anyhow::Result<()> {
    probe["failureThreshold"] = json!(1);
    beside_others(title, async |story| {
        let pod = Workload::new("app", &["web", "--gate", "8081"])
            .annotation("traffic.kuma.io/exclude-inbound-ports", "8081")
            .probe("readinessProbe", probe);
        story.create(&pod.pod()).await?;
        failures(story, 2).await?;
        turns(story, false).await?;
        order(story, "/open").await?;
        turns(story, true).await?;
        order(story, "/close").await?;
        turns(story, false).await?;
        nothing_was_counted(story).await
    })
    .await
}

async fn order(story: &Story, path: &str) -> anyhow::Result<()> {
    let (status, text) = story.get("app", GATE, path).await?;
    ensure!(status.is_success(), "{path} answers {status}: {text}");
    Ok(())
}

/// Waits until the pod is Ready, or is not.
async fn turns(story: &Story, ready: bool) -> anyhow::Result<()> {
    let pods = story.api::<Pod>();
    eventually(&format!("Ready {ready}"), LIMIT, async || {
        let pod = pods.get("app").await?;
        ensure!(is_ready(&pod) == ready, "its status is {:?}", pod.status);
        Ok(())
    })
    .await
}

/// Waits until the kubelet has told of that many failures of the application's probe.
async fn failures(story: &Story, least: i32) -> anyhow::Result<()> {
    let events = story.api::<Event>();
    let unhealthy = ListParams::default().fields("reason=Unhealthy,involvedObject.name=app");
    eventually("failed probes", LIMIT, async || {
        let list = events.list(&unhealthy).await?;
        let of_app = list.items.iter().filter(|event| {
            let path = event.involved_object.field_path.as_deref();
            path == Some("spec.containers{app}")
        });
        let count: i32 = of_app.map(|event| event.count.unwrap_or(1)).sum();
        ensure!(count >= least, "{count} failures of {least}");
        Ok(())
    })
    .await
}

async fn nothing_was_counted(story: &Story) -> anyhow::Result<()> {
    let scrape = story.scrape("app").await?;
    scrape
        .select("proxy_build_info", &[])
        .next()
        .context("these are not the proxy's metrics")?;
    for family in [
        "request_total",
        "response_total",
        "tcp_open_total",
        "inbound_tcp_errors_total",
    ] {
        let count = scrape.sum(family, &[]);
        ensure!(count == 0.0, "{family} counted {count} probes");
    }
    Ok(())
}
