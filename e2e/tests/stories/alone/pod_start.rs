//! What injection adds to the start of a pod. A container that another one waits for costs what the kubelet takes to
//! see that it has started, or ended, whatever is in it. A pod with two that do nothing, in the place of `kuma-init` and
//! the proxy, shows that part. A pod that the CNI plugin redirects has one container less to wait for.

use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail, ensure};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, DeleteParams, ListParams};
use kube::runtime::wait::await_condition;
use tokio::time::{sleep, timeout};
use weir_crds::names;
use weir_e2e::app::started_at;
use weir_e2e::cluster::pod::is_ready;
use weir_e2e::cluster::{Story, Workload};

use super::cni;
use crate::alone;

const PODS: u32 = 9;

/// How often the kubelet looks at all pods. One that is created when the one before became Ready is created at the same point
/// of that second every time, and the medians would compare nothing but those points: each kind of pod is created
/// at points that are spread over it.
const LOOK: Duration = Duration::from_secs(1);

/// How much longer a pod with the proxy may take than one with the two idle containers, the medians
/// compared: pulling nothing, starting one process, waiting for its listeners.
const MOST_ADDED: Duration = Duration::from_millis(750);

/// How much longer a pod may take than one without the proxy, until its application listens.
const MOST_ADDED_IN_ALL: Duration = Duration::from_millis(1500);

/// The first kubelet that looks for what it has started when it has started it (PLEGOnDemandRelist is on by default). One
/// before looks once a second, and two containers take longer by themselves than a pod may take longer in all: there the
/// CNI plugin alone holds it.
const LOOKS_AT_ONCE: (u32, u32) = (1, 36);

/// From the pod's creation until its application listens, and until the pod is Ready.
#[derive(Debug)]
struct Start {
    application: Duration,
    ready: Duration,
}

#[tokio::test]
async fn injection_adds_what_the_kubelet_needs_for_two_more_containers() -> anyhow::Result<()> {
    alone("pod-start", async |story| {
        cni::install(story).await?;
        let (mut plain, mut idle, mut injected) = (Vec::new(), Vec::new(), Vec::new());
        let mut by_plugin = Vec::new();
        for number in 0..PODS {
            let pod = |name: &str| Workload::web(&format!("{name}-{number}"));
            let later = LOOK * number / PODS;
            plain.push(start(story, &pod("plain"), "disabled", later).await?);
            idle.push(start(story, &pod("idle").idle_companions(), "disabled", later).await?);
            injected.push(start(story, &pod("injected"), "enabled", later).await?);
            let chosen = pod("by-plugin").annotation(names::REDIRECTION, "cni");
            by_plugin.push(start(story, &chosen, "enabled", later).await?);
        }
        cni::remove(story).await?;
        let [plain, idle, injected, by_plugin] =
            [plain, idle, injected, by_plugin].map(Start::median);
        println!("pod start, medians of {PODS}, until the application listens and until Ready:");
        println!("  {plain:?} alone\n  {idle:?} with two idle containers\n  {injected:?} injected");
        println!("  {by_plugin:?} injected, and redirected by the CNI plugin");
        let (version, is_before) = kubelet(story).await?;
        let [added, added_by_plugin] = [&injected, &by_plugin]
            .map(|start| start.application.saturating_sub(plain.application));
        println!(
            "  {added:?} added by injection, {added_by_plugin:?} with the plugin; kubelet {version}"
        );
        let most = if is_before {
            MOST_ADDED_IN_ALL
        } else {
            MOST_ADDED
        };
        ensure!(
            added_by_plugin <= most,
            "with the plugin, injection adds {added_by_plugin:?} (kubelet {version})"
        );
        ensure!(
            added <= MOST_ADDED_IN_ALL || is_before,
            "injection adds {added:?} (kubelet {version})"
        );

        let added = injected.application.saturating_sub(idle.application);
        ensure!(added <= MOST_ADDED, "the proxy adds {added:?}");
        let added = injected.ready.saturating_sub(idle.ready);
        ensure!(added <= MOST_ADDED, "the proxy adds {added:?} until Ready");
        Ok(())
    })
    .await
}

/// The kubelet's version, and whether it is one before those that look at once.
async fn kubelet(story: &Story) -> anyhow::Result<(String, bool)> {
    let nodes = Api::<Node>::all(story.cluster.client.clone());
    let nodes = nodes.list(&ListParams::default()).await?;
    let node = nodes.items.into_iter().next().context("there is no node")?;
    let info = node.status.and_then(|status| status.node_info);
    let version = info.context("it tells no version")?.kubelet_version;
    let numbers: Vec<u32> = version
        .trim_start_matches('v')
        .split('.')
        .map_while(|number| number.parse().ok())
        .collect();
    match numbers[..] {
        [major, minor, ..] => Ok((version, (major, minor) < LOOKS_AT_ONCE)),
        _ => bail!("{version} is no version"),
    }
}

async fn start(
    story: &Story,
    pod: &Workload,
    injection: &str,
    later: Duration,
) -> anyhow::Result<Start> {
    sleep(later).await;
    let pod = pod.clone().label("kuma.io/sidecar-injection", injection);
    let pods = story.api::<Pod>();
    let created = SystemTime::now();
    let pod = story.create(&pod.pod()).await?;
    let name = pod.metadata.name.context("the pod has no name")?;
    let ready = await_condition(pods.clone(), &name, |pod: Option<&Pod>| {
        pod.is_some_and(is_ready)
    });
    timeout(Duration::from_secs(60), ready).await??;
    let ready = created.elapsed()?;
    let listening = started_at(&story.log(&name, "app").await?).context("its log has no start")?;
    let created = created.duration_since(SystemTime::UNIX_EPOCH)?.as_millis();
    let application = u64::try_from(listening.saturating_sub(created))?;
    pods.delete(&name, &DeleteParams::default()).await?;
    Ok(Start {
        application: Duration::from_millis(application),
        ready,
    })
}

impl Start {
    fn median(starts: Vec<Self>) -> Self {
        Self {
            application: median(starts.iter().map(|start| start.application)),
            ready: median(starts.iter().map(|start| start.ready)),
        }
    }
}

fn median(times: impl Iterator<Item = Duration>) -> Duration {
    let mut times: Vec<_> = times.collect();
    times.sort_unstable();
    times[times.len() / 2]
}
