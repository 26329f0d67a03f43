//! While the operator is away, new pods become Ready and are measured, and what went on goes on: over the certificates
//! and the endpoints that are known, and while a destination is rolled out anew. Once it is back, so is every proxy.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use tokio::time::Instant;
use weir_e2e::app::Report;
use weir_e2e::cluster::pod::{ip, name};
use weir_e2e::cluster::{Cluster, Story, Workload, eventually};

use crate::{alone, story_time};

const OPERATOR: &str = "weir-operator";
/// How long the operator is away under load, without another wish.
const AWAY: Duration = Duration::from_secs(45);
/// Of the requests to a destination that is rolled out meanwhile so many may fail: the one that its application had when
/// it ended. Whether it has seen that nobody can tell.
const UNDER_WAY: usize = 1;
/// Requests a second to each of the two destinations.
const RATE: u64 = 50;
/// After the operator's return, every stream is back within this.
const BACK: Duration = Duration::from_secs(10);

#[tokio::test]
async fn without_the_operator_new_pods_are_ready_and_measured() -> anyhow::Result<()> {
    alone("operator-down", async |story| {
        scale(&story.cluster, OPERATOR, 0).await?;
        let result = new_pods_are_measured(story).await;
        scale(&story.cluster, OPERATOR, 1).await?;
        result
    })
    .await
}

/// Gives one of our deployments so many replicas, and waits until there are as many.
pub(super) async fn scale(cluster: &Cluster, name: &str, replicas: u8) -> anyhow::Result<()> {
    let system = ["--namespace", "kuma-system"];
    let (deployment, of_it) = (
        format!("deployment/{name}"),
        format!("app.kubernetes.io/name={name}"),
    );
    let scale = format!("--replicas={replicas}");
    let scale = ["scale", &deployment, &scale];
    cluster
        .kubectl(&[system.as_slice(), &scale].concat(), "")
        .await?;
    let wait: &[&str] = if replicas == 0 {
        &[
            "wait",
            "pod",
            "--for=delete",
            "--timeout=60s",
            "--selector",
            &of_it,
        ]
    } else {
        &["rollout", "status", &deployment, "--timeout=60s"]
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
        let (steady, fresh, rolled, took) = tokio::try_join!(
            load(story, "stable", &requests, &["--keep-alive"]),
            load(story, "stable", &requests, &[]),
            load(story, "rolled", &requests, &[]),
            go_and_return(story, away, name(&stable)),
        )?;
        println!("every stream was back after {took:?}");
        for report in [steady, fresh] {
            ensure!(report.failed == 0 && report.sent > 0, "{report:?}");
        }
        // Nobody tells that the old pod ends, and between its application's end and its own its proxy answers 502: what is
        // answered so goes to the Service's address.
        let is_back = rolled.failed == 0 || rolled.after_outage > 0;
        ensure!(is_back && rolled.failed <= UNDER_WAY, "{rolled:?}");
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
async fn go_and_return(story: &Story, away: Duration, stable: &str) -> anyhow::Result<Duration> {
    let pods = ["client", stable];
    eventually("load", BACK, async || {
        let requests = story.scrape("client").await?.sum("request_total", &[]);
        ensure!(requests > 0.0, "{requests} requests");
        Ok(())
    })
    .await?;
    let open = open_calls(story, &pods).await?;
    let until = Instant::now() + away;
    scale(&story.cluster, OPERATOR, 0).await?;
    let result = async {
        eventually("no stream is left", BACK, async || {
            let left = open_calls(story, &pods).await?;
            ensure!(left == 0.0 && open > 2.0, "{left} of {open} are open");
            Ok(())
        })
        .await?;
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
    scale(&story.cluster, OPERATOR, 1).await?;
    let ready = Instant::now();
    result.context("without the operator")?;
    let rolled = story.ready_by_app("rolled").await?;
    eventually("every stream is back", BACK, async || {
        let now = open_calls(story, &pods).await?;
        let new = open_calls(story, &[name(&rolled)]).await?;
        ensure!(
            now >= open && new >= 1.0,
            "{now} calls are open, and {open} were; of the new pod {new}"
        );
        Ok(ready.elapsed())
    })
    .await
}

/// How many calls to the operator these pods' proxies have open: begun and not ended.
async fn open_calls(story: &Story, pods: &[&str]) -> anyhow::Result<f64> {
    let mut open = 0.0;
    for pod in pods {
        let scrape = story.scrape(pod).await?;
        open += scrape.sum("control_request_total", &[]);
        open -= scrape.sum("control_response_total", &[]);
    }
    Ok(open)
}
