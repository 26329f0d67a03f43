//! Pods that the CNI plugin redirects: nothing in them needs a capability, and they are measured as others are. The
//! plugin works without the DaemonSet that brought it, and can be taken away again; then pods start unmeasured.

use std::time::Duration;

use anyhow::ensure;
use k8s_openapi::api::core::v1::Pod;
use weir_crds::names;
use weir_e2e::cluster::pod::name;
use weir_e2e::cluster::{Story, Workload, eventually};

use crate::alone;

/// Where a node has the plugin, and what names it there.
const PLUGIN: &str = "/opt/cni/bin/weir-cni";
const CONFIGURATION: &str = "/etc/cni/net.d";

/// How long the DaemonSet may take to be as it should be on the node.
const ROLLOUT: &str = "--timeout=60s";
const KNOWN: Duration = Duration::from_secs(20);

const REQUESTS: u16 = 200;

#[tokio::test]
async fn restricted_pods_are_redirected_by_the_plugin() -> anyhow::Result<()> {
    alone("cni", async |story| {
        install(story).await?;
        restrict_namespace(story).await?;
        let web = Workload::web("web").restricted();
        story.create(&web.service(8080)).await?;
        let server = story.start(&web.pod()).await?;
        ensure!(
            init_containers(&server) == [names::SIDECAR],
            "its init containers are {:?}",
            init_containers(&server)
        );
        measured(story, "first", name(&server), 1).await?;

        // What is installed needs nobody: new pods are redirected while the DaemonSet is away.
        take_away_the_daemonset(story).await?;
        measured(story, "second", name(&server), 2).await?;

        remove(story).await?;
        let unmeasured = Workload::web("unmeasured").restricted();
        let unmeasured = story.start(&unmeasured.pod()).await?;
        redirected(story, name(&unmeasured), 0.0).await
    })
    .await
}

/// Puts the plugin on every node, and waits until it is there.
pub(super) async fn install(story: &Story) -> anyhow::Result<()> {
    overlay(story, &["apply", "--server-side"]).await?;
    rolled_out(story).await?;
    story.cluster.node(&["test", "-x", PLUGIN]).await?;
    Ok(())
}

/// Takes the plugin off every node, as docs/operations.md says it, and the DaemonSet away.
pub(super) async fn remove(story: &Story) -> anyhow::Result<()> {
    overlay(story, &["apply", "--server-side"]).await?;
    let set = [
        "set",
        "env",
        "--namespace=weir-cni",
        "daemonset/weir-cni",
        "WEIR_CNI_REMOVE=true",
    ];
    story.cluster.kubectl(&set, "").await?;
    rolled_out(story).await?;
    story.cluster.node(&["test", "!", "-e", PLUGIN]).await?;
    let named = ["grep", "--recursive", "weir-cni", CONFIGURATION];
    let found = story.cluster.node(&named).await;
    ensure!(found.is_err(), "it is still configured: {found:?}");
    overlay(story, &["delete"]).await
}

async fn overlay(story: &Story, verb: &[&str]) -> anyhow::Result<()> {
    let overlay = story.cluster.checkout().join("manifests/cni");
    let overlay = overlay.to_string_lossy().into_owned();
    let command = [verb, &["--kustomize", &overlay]].concat();
    story.cluster.kubectl(&command, "").await?;
    Ok(())
}

async fn rolled_out(story: &Story) -> anyhow::Result<()> {
    let status = ["rollout", "status", ROLLOUT, "--namespace=weir-cni"];
    let command = [status.as_slice(), &["daemonset/weir-cni"]].concat();
    story.cluster.kubectl(&command, "").await?;
    Ok(())
}

async fn take_away_the_daemonset(story: &Story) -> anyhow::Result<()> {
    let delete = ["delete", "--namespace=weir-cni", "daemonset/weir-cni"];
    story.cluster.kubectl(&delete, "").await?;
    Ok(())
}

/// The level that allows least, and the choice of the plugin for all pods of the story.
async fn restrict_namespace(story: &Story) -> anyhow::Result<()> {
    let namespace = format!("namespace/{}", story.namespace);
    let level = "pod-security.kubernetes.io/enforce=restricted";
    let choice = format!("{}=cni", names::REDIRECTION);
    for command in [
        ["label", &namespace, level],
        ["annotate", &namespace, &choice],
    ] {
        story.cluster.kubectl(&command, "").await?;
    }
    // The webhook looks at its own copy of the namespace.
    eventually("the webhook knows the choice", KNOWN, async || {
        let pod = Workload::web("none").restricted().pod();
        let pod = story.would_create(&pod).await?;
        ensure!(init_containers(&pod) == [names::SIDECAR], "not yet");
        Ok(())
    })
    .await
}

fn init_containers(pod: &Pod) -> Vec<&str> {
    let spec = pod.spec.iter();
    spec.flat_map(|spec| spec.init_containers.iter().flatten())
        .map(|container| container.name.as_str())
        .collect()
}

/// Sends requests from a new pod: both proxies count them, the server's for the `nth` time.
async fn measured(story: &Story, bot: &str, server: &str, nth: u16) -> anyhow::Result<()> {
    let requests = REQUESTS.to_string();
    let args = [
        "bot",
        "http://web/ok",
        "--requests",
        &requests,
        "--rate",
        "100",
        "--linger-seconds",
        "120",
    ];
    let client = story
        .start(&Workload::new(bot, &args).restricted().pod())
        .await?;
    let client = name(&client);
    let report = story.report(client, Duration::from_secs(30)).await?;
    ensure!(report.failed == 0, "{report:?}");
    for (pod, direction, expected) in [
        (client, "outbound", REQUESTS),
        (server, "inbound", REQUESTS * nth),
    ] {
        redirected(story, pod, 1.0).await?;
        eventually("the requests are counted", KNOWN, async || {
            let scrape = story.scrape(pod).await?;
            let counted: f64 = scrape
                .select("request_total", &[("direction", direction)])
                .map(|series| series.value)
                .sum();
            ensure!(
                counted == f64::from(expected),
                "{pod}: {counted} of {expected}"
            );
            Ok(())
        })
        .await?;
    }
    Ok(())
}

/// Waits until the pod's proxy says whether its traffic is redirected.
async fn redirected(story: &Story, pod: &str, expected: f64) -> anyhow::Result<()> {
    eventually(
        "the proxy knows whether it is redirected",
        KNOWN,
        async || {
            let scrape = story.scrape(pod).await?;
            let values: Vec<f64> = scrape
                .select("weir_redirected", &[])
                .map(|series| series.value)
                .collect();
            ensure!(values == [expected], "{pod}: weir_redirected is {values:?}");
            Ok(())
        },
    )
    .await
}
