//! A Job with the proxy ends when its own container ends, and is measured while it runs.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use futures::{StreamExt as _, pin_mut};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::api::ListParams;
use kube::runtime::{WatchStreamExt as _, watcher};
use tokio::time::{Instant, timeout};
use weir_crds::names;
use weir_e2e::cluster::pod::{container_status, ip, name, phase};
use weir_e2e::cluster::{Story, Workload, eventually};

use crate::alone;

/// How long after its container's end a pod is Completed, as `kubectl get pods` has it: the kubelet's look alone, which
/// no sidecar makes longer.
const COMPLETED: Duration = Duration::from_secs(2);

/// How long the pod's last container may outlive the Job's own, in seconds as the kubelet tells them.
const LATEST_SECONDS: i64 = 2;

/// How much later than one with a sidecar that does nothing an injected pod may have Succeeded. The kubelet
/// looks at containers once a second, and ends sidecars at the look after the one that misses the container: one look more,
/// never two.
const CALLED_SUCCEEDED: Duration = Duration::from_millis(1500);

const REQUESTS: f64 = 100.0;

#[tokio::test]
async fn a_job_completes_when_its_container_does() -> anyhow::Result<()> {
    alone("job", async |story| {
        let web = story.start(&Workload::web("web").pod()).await?;
        let url = format!("http://{}:8080/ok", ip(&web));
        // Ten seconds of requests, in which it can be scraped.
        let args = ["bot", &url, "--requests", "100", "--rate", "10"];
        story.create(&Workload::new("count", &args).job()).await?;
        let pod = pod_of_the_job(story).await?;
        scraped_while_it_runs(story, &pod).await?;
        let (ended, after) = {
            let (shown, ended) = tokio::join!(shows_completed(story, &pod), succeeds(story, &pod));
            let shown = shown?;
            println!("kubectl prints Completed {shown:?} after the container's end");
            ensure!(shown <= COMPLETED, "Completed after {shown:?}");
            ended?
        };
        ends_with_its_container(&ended)?;
        eventually("the Job is complete", Duration::from_secs(20), async || {
            let job = story.api::<Job>().get("count").await?;
            let succeeded = job.status.and_then(|status| status.succeeded);
            ensure!(
                succeeded == Some(1),
                "{succeeded:?} of its pods have succeeded"
            );
            Ok(())
        })
        .await?;
        let idle = Workload::new("idle", &["sleep", "1"]).idle_companions();
        let idle = story
            .create(&idle.label(names::INJECTION, "disabled").task())
            .await?;
        let (_, idle) = succeeds(story, name(&idle)).await?;
        println!(
            "Succeeded {after:?} after the container's end was seen, {idle:?} with an idle sidecar"
        );
        ensure!(
            after <= idle + CALLED_SUCCEEDED,
            "{after:?} after the end, {idle:?} with an idle sidecar"
        );
        let report = story.report(name(&ended), Duration::from_secs(5)).await?;
        ensure!(report.succeeded == report.sent, "{report:?}");
        let served = story
            .scrape("web")
            .await?
            .sum("request_total", &[("direction", "inbound")]);
        ensure!(served == REQUESTS, "the server counted {served} requests");
        Ok(())
    })
    .await
}

async fn pod_of_the_job(story: &Story) -> anyhow::Result<String> {
    let pods = story.api::<Pod>();
    let of_the_job = ListParams::default().labels("job-name=count");
    let limit = Duration::from_secs(20);
    let pod = eventually("the Job's pod", limit, async || {
        let list = pods.list(&of_the_job).await?;
        list.items.into_iter().next().context("none is there")
    })
    .await?;
    let labels = pod.metadata.labels.as_ref().context("it has no labels")?;
    let owner = labels.get(names::PROXY_JOB).map(String::as_str);
    ensure!(owner == Some("count"), "{} is {owner:?}", names::PROXY_JOB);
    Ok(name(&pod).to_owned())
}

async fn scraped_while_it_runs(story: &Story, pod: &str) -> anyhow::Result<()> {
    eventually("a scrape of the Job", Duration::from_secs(30), async || {
        let scrape = story.scrape(pod).await?;
        let requests = scrape.sum("request_total", &[("direction", "outbound")]);
        ensure!(
            requests > 0.0 && requests < REQUESTS,
            "{requests} requests so far"
        );
        Ok(())
    })
    .await
}

/// Asks what `kubectl get pods` prints until that is Completed: how long after the container's last line, which is the
/// last that it does.
async fn shows_completed(story: &Story, pod: &str) -> anyhow::Result<Duration> {
    let limit = Duration::from_secs(60);
    let shown = eventually("Completed", limit, async || {
        let status = story.status_column(pod).await?;
        ensure!(status == "Completed", "kubectl prints {status}");
        Ok(Timestamp::now())
    })
    .await?;
    let ended = story.last_line_at(pod, "app").await?;
    Duration::try_from(shown.duration_since(ended)).context("it ended after it was Completed")
}

/// Watches the pod until it has Succeeded: how long after its container was seen to have ended.
async fn succeeds(story: &Story, pod: &str) -> anyhow::Result<(Pod, Duration)> {
    let only = watcher::Config::default().fields(&format!("metadata.name={pod}"));
    let changes = watcher(story.api::<Pod>(), only).applied_objects();
    pin_mut!(changes);
    let mut seen_ended = None;
    let watch = async {
        while let Some(pod) = changes.next().await {
            let pod = pod?;
            if seen_ended.is_none() && finished(&pod, "app").is_some() {
                seen_ended = Some(Instant::now());
            }
            if phase(&pod) == "Succeeded" {
                return Ok(pod);
            }
        }
        bail!("the watch ended")
    };
    let pod = timeout(Duration::from_secs(60), watch)
        .await
        .context("it never completed")??;
    let after = seen_ended.context("its container never ended")?.elapsed();
    Ok((pod, after))
}

fn ends_with_its_container(pod: &Pod) -> anyhow::Result<()> {
    let app = finished(pod, "app").context("the container has no end")?;
    let proxy = finished(pod, names::SIDECAR).context("the proxy has no end")?;
    let behind = proxy.as_second() - app.as_second();
    ensure!(behind <= LATEST_SECONDS, "the proxy ended {behind} s later");
    Ok(())
}

fn finished(pod: &Pod, container: &str) -> Option<Timestamp> {
    let state = container_status(pod, container)?.state.as_ref()?;
    Some(state.terminated.as_ref()?.finished_at.as_ref()?.0)
}
