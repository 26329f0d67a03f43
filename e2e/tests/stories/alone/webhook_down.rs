//! While the webhook is away, a pod starts without the proxy. Measuring keeps nobody from starting.

use std::time::Duration;

use anyhow::ensure;
use weir_crds::names;
use weir_e2e::cluster::{Workload, eventually};

use super::operator_down::scale;
use crate::alone;

const WEBHOOK: &str = "weir-webhook";
/// As its manifest has it.
const REPLICAS: u8 = 2;
/// Longest until its Service leads there again.
const ASKED: Duration = Duration::from_secs(15);

#[tokio::test]
async fn without_the_webhook_a_pod_starts_as_it_is() -> anyhow::Result<()> {
    alone("webhook-down", async |story| {
        scale(&story.cluster, WEBHOOK, 0).await?;
        let started = story.start(&Workload::web("web").pod()).await;
        scale(&story.cluster, WEBHOOK, REPLICAS).await?;
        let pod = started?;
        let spec = pod.spec.unwrap_or_default();
        let injected = spec.init_containers.unwrap_or_default();
        ensure!(injected.is_empty(), "it has {injected:?}");
        let annotations = pod.metadata.annotations.unwrap_or_default();
        let decided = annotations.get(names::DECISION);
        ensure!(decided.is_none(), "it is told {decided:?}");

        // Ready pods are not asked before kube-proxy has their addresses.
        eventually("the webhook is asked again", ASKED, async || {
            let pod = story.would_create(&Workload::web("later").pod()).await?;
            let annotations = pod.metadata.annotations.unwrap_or_default();
            let decided = annotations.get(names::DECISION).map(String::as_str);
            ensure!(
                decided.is_some_and(|decided| decided.starts_with("injected: enabled by ")),
                "a pod is told {decided:?}"
            );
            Ok(())
        })
        .await
    })
    .await
}
