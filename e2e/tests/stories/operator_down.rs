//! While the operator is away, new pods become Ready and are measured, and what went on goes on: over the certificates
//! and the endpoints that are known, and while a destination is rolled out anew. Once it is back, so is every proxy.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use tokio::time::Instant;
use weir_crds::names::SYSTEM_NAMESPACE;
use weir_crds::ports;
use weir_e2e::app::Report;
use weir_e2e::cluster::pod::{ip, name};
use weir_e2e::cluster::{Cluster, Story, Workload, eventually};
use weir_e2e::exposition::Scrape;

use crate::{alone, story_time};

/// How long the operator is away under load, without another wish.
const AWAY: Duration = Duration::from_secs(45);
/// Requests a second to each of the two destinations.
const RATE: u64 = 50;
/// After the operator's return, every stream is back within this.
const BACK: Duration = Duration::from_secs(10);

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

#[tokio::test]
async fn traffic_outlives_the_operator_and_a_rollout_without_it() -> anyhow::Result<()> {
    alone("operator-killed", async |story| {
        story.mesh("PERMISSIVE", "24h").await?;
        let member = |workload: Workload| workload.mesh(&story.namespace);
        for destination in ["stable", "rolled"] {
            let web = member(Workload::web(destination).ending_slowly(2));
            story.create(&web.service(8080)).await?;
            story.create(&web.deployment()).await?;
        }
        let client = member(Workload::new("client", &["sleep", "1200"]));
        story.start(&client.pod()).await?;
        let stable = story.ready_by_app("stable").await?;
        let rolled = story.ready_by_app("rolled").await?;
        story
            .certified(&["client", name(&stable), name(&rolled)])
            .await?;
        let away = story_time(AWAY);
        // A little longer than the operator is away: its return is under load, too.
        let requests = (RATE * (away + BACK).as_secs()).to_string();
        let (stable, stable_fresh, rolled, took) = tokio::try_join!(
            load(story, "stable", &requests, &["--keep-alive"]),
            load(story, "stable", &requests, &[]),
            load(story, "rolled", &requests, &[]),
            go_and_return(story, away),
        )?;
        println!("every stream was back after {took:?}");
        for report in [stable, stable_fresh] {
            ensure!(report.failed == 0 && report.sent > 0, "{report:?}");
        }
        // What replaces every endpoint that is known is not known before the operator is back.
        let limit = u64::try_from((away + BACK).as_millis())?;
        let outage = rolled.outage_ms.unwrap_or_default();
        let is_back = rolled.failed == 0 || rolled.after_outage > 0;
        ensure!(outage < limit && is_back, "{rolled:?}");
        Ok(())
    })
    .await
}

async fn load(story: &Story, to: &str, requests: &str, more: &[&str]) -> anyhow::Result<Report> {
    let (url, rate) = (format!("http://{to}/ok"), RATE.to_string());
    let bot = ["bot", &url, "--requests", requests, "--rate", &rate];
    let patience = ["--timeout-ms", "5000"];
    let args = [bot.as_slice(), &patience, more].concat();
    let printed = story.run_in("client", &args).await?;
    let report = Report::parse(&printed);
    let report = report.with_context(|| format!("no report in {printed}"))?;
    println!("{to} {more:?}: {report:?}");
    Ok(report)
}

/// Kills the operator, rolls a destination out, and brings it back after that time. Gives how long the
/// streams took to be back.
async fn go_and_return(story: &Story, away: Duration) -> anyhow::Result<Duration> {
    eventually("load", BACK, async || {
        let requests = story.scrape("client").await?.sum("request_total", &[]);
        ensure!(requests > 0.0, "{requests} requests");
        Ok(())
    })
    .await?;
    let open = open_calls(story).await?;
    let until = Instant::now() + away;
    scale_operator(&story.cluster, 0).await?;
    let result = async {
        let own = ["--namespace", &story.namespace, "rollout"];
        let steps: [&[&str]; 2] = [
            &["restart", "deployment/rolled"],
            &["status", "deployment/rolled", "--timeout=60s"],
        ];
        for step in steps {
            let command = [own.as_slice(), step].concat();
            story.cluster.kubectl(&command, "").await?;
        }
        anyhow::Ok(())
    }
    .await;
    tokio::time::sleep_until(until).await;
    scale_operator(&story.cluster, 1).await?;
    let ready = Instant::now();
    result.context("the rollout")?;
    let what = "every stream is back";
    eventually(what, BACK, async || {
        let now = open_calls(story).await?;
        ensure!(now >= open, "{now} calls are open, and {open} were");
        Ok(ready.elapsed())
    })
    .await
}

/// How many watches of proxies the operator serves.
async fn open_calls(story: &Story) -> anyhow::Result<f64> {
    let pods = kube::Api::<Pod>::namespaced(story.cluster.client.clone(), SYSTEM_NAMESPACE);
    let operators = ListParams::default().labels("app.kubernetes.io/name=weir-operator");
    let mut open = 0.0;
    for pod in pods.list(&operators).await? {
        let get = story.cluster.get(
            SYSTEM_NAMESPACE,
            name(&pod),
            ports::OPERATOR_HTTP,
            "/metrics",
        );
        let (status, text) = get.await?;
        ensure!(status.is_success(), "{status}: {text}");
        open += Scrape::parse(&text)?.sum("weir_operator_grpc_open_calls", &[]);
    }
    Ok(open)
}
