//! While the operator is away, new pods become Ready and are measured.

use std::time::Duration;

use anyhow::ensure;
use weir_e2e::cluster::pod::{ip, name};
use weir_e2e::cluster::{Cluster, Story, Workload, eventually};

use crate::alone;

#[tokio::test]
async fn without_the_operator_new_pods_are_ready_and_measured() -> anyhow::Result<()> {
    alone("operator-down", async |story| {
        scale_operator(&story.cluster, 0).await?;
        let result = new_pods_are_measured(story).await;
        scale_operator(&story.cluster, 1).await?;
        result
    })
    .await
}

async fn scale_operator(cluster: &Cluster, replicas: u8) -> anyhow::Result<()> {
    let system = ["--namespace", "kuma-system"];
    let scale = format!("--replicas={replicas}");
    let scale = ["scale", "deployment/weir-operator", &scale];
    cluster
        .kubectl(&[system.as_slice(), &scale].concat(), "")
        .await?;
    let wait: &[&str] = if replicas == 0 {
        let operator = "app.kubernetes.io/name=weir-operator";
        &[
            "wait",
            "pod",
            "--for=delete",
            "--timeout=60s",
            "--selector",
            operator,
        ]
    } else {
        &[
            "rollout",
            "status",
            "deployment/weir-operator",
            "--timeout=60s",
        ]
    };
    cluster
        .kubectl(&[system.as_slice(), wait].concat(), "")
        .await?;
    Ok(())
}

async fn new_pods_are_measured(story: &Story) -> anyhow::Result<()> {
    let web = story.start(&Workload::web("web").pod()).await?;
    let url = format!("http://{}:8080/ok", ip(&web));
    let args = ["bot", &url, "--requests", "20", "--linger-seconds", "600"];
    let bot = story.start(&Workload::new("bot", &args).pod()).await?;
    let report = story.report(name(&bot), Duration::from_secs(30)).await?;
    ensure!(report.succeeded == 20, "{report:?}");
    for (pod, direction) in [("web", "inbound"), ("bot", "outbound")] {
        eventually(pod, Duration::from_secs(5), async || {
            let scrape = story.scrape(pod).await?;
            let requests = scrape.sum("request_total", &[("direction", direction)]);
            ensure!(
                requests == 20.0,
                "{requests} requests were measured {direction}"
            );
            Ok(())
        })
        .await?;
    }
    Ok(())
}
