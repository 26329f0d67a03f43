//! What injection adds to the start of a pod. The kubelet looks once a second for containers that have
//! started or ended, so each container that another one waits for costs up to a second, whatever is
//! in it: here `kuma-init` and the proxy, and the proxy's startup probe costs one more.

use std::time::Duration;

use anyhow::ensure;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::wait::await_condition;
use tokio::time::{Instant, timeout};
use weir_e2e::cluster::pod::is_ready;
use weir_e2e::cluster::{Story, Workload};

use crate::alone;

const PODS: usize = 7;

/// How much longer an injected pod may take to be Ready, the medians compared.
const MOST_ADDED: Duration = Duration::from_millis(3500);

#[tokio::test]
async fn injection_adds_what_the_kubelet_needs_for_two_more_containers() -> anyhow::Result<()> {
    alone("pod-start", async |story| {
        let (mut with, mut without) = (Vec::new(), Vec::new());
        for number in 0..PODS {
            without.push(start(story, number, "disabled").await?);
            with.push(start(story, number, "enabled").await?);
        }
        let (with, without) = (median(with), median(without));
        println!("pod start, median of {PODS}: {without:?} without the proxy, {with:?} with it");
        let added = with.saturating_sub(without);
        ensure!(added <= MOST_ADDED, "injection adds {added:?}");
        Ok(())
    })
    .await
}

/// From the pod's creation until it is Ready.
async fn start(story: &Story, number: usize, injection: &str) -> anyhow::Result<Duration> {
    let name = format!("{injection}-{number}");
    let pod = Workload::web(&name).label("kuma.io/sidecar-injection", injection);
    let pods = story.api::<Pod>();
    let started = Instant::now();
    story.create(&pod.pod()).await?;
    let ready = await_condition(pods.clone(), &name, |pod: Option<&Pod>| {
        pod.is_some_and(is_ready)
    });
    timeout(Duration::from_secs(60), ready).await??;
    let took = started.elapsed();
    pods.delete(&name, &kube::api::DeleteParams::default())
        .await?;
    Ok(took)
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
