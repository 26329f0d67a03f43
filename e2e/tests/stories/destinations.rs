//! What a client's proxy says of whom it calls: for every kind of owner a pod may have, exactly the labels of that pod,
//! from the operator, and with mutual TLS the names of both sides. Each pod's Dataplane is shown.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use weir_e2e::app::Report;
use weir_e2e::cluster::pod::{is_ready, name};
use weir_e2e::cluster::{Story, Workload, eventually};
use weir_e2e::exposition::Series;

use crate::beside_others;
use crate::mutual_tls::dataplanes_are_shown;

/// Requests to each destination.
const REQUESTS: u16 = 30;
/// Pods of the one that is scaled.
const SCALED: u16 = 3;
/// Pods of a destination that are used at least: requests come one after the other, and a pod of which nothing is known
/// waits until the two that were tried first are busy, or what was measured of them has faded.
const USED: usize = 2;

/// The destinations, each with the label of its owner.
const OWNERS: [(&str, &str); 7] = [
    ("scaled", "dst_deployment"),
    ("single", "dst_deployment"),
    ("stateful", "dst_statefulset"),
    ("daemon", "dst_daemonset"),
    ("batch", "dst_k8s_job"),
    ("bare-set", "dst_replicaset"),
    ("controller", "dst_replicationcontroller"),
];

#[tokio::test]
async fn a_destination_is_named_by_its_pod_and_owner() -> anyhow::Result<()> {
    beside_others("destinations", async |story| {
        story.mesh("PERMISSIVE", "24h").await?;
        start_all(story).await?;
        let identity = story.identity("default");
        for (app, owner) in OWNERS {
            let pods = ready_pods(story, app).await?;
            let names: Vec<&str> = pods.iter().map(name).collect();
            story.certified(&names).await?;
            let client = call(story, app).await?;
            let scrape = story.scrape(&client).await?;
            let outbound = [("direction", "outbound"), ("authority", app)];
            let series: Vec<_> = scrape.select("request_total", &outbound).collect();
            let total: f64 = series.iter().map(|series| series.value).sum();
            ensure!(total == f64::from(REQUESTS), "{app}: {series:?}");
            let expected = pods.len().min(USED)..=pods.len();
            ensure!(
                expected.contains(&series.len()),
                "{app}: {} pods, {series:?}",
                pods.len()
            );
            for series in series {
                is_labelled(series, (app, owner), &pods)?;
                let secured = [("tls", "true"), ("server_id", identity.as_str())];
                ensure!(series.has(&secured), "{app}: {series:?}");
            }
            are_called_by(story, &names, &identity).await?;
            dataplanes_are_shown(story, &names).await?;
        }
        Ok(())
    })
    .await
}

/// These pods' proxies have counted all requests, of that client.
async fn are_called_by(story: &Story, pods: &[&str], client: &str) -> anyhow::Result<()> {
    let mut total = 0.0;
    for pod in pods {
        let scrape = story.scrape(pod).await?;
        for series in scrape.select("request_total", &[("direction", "inbound")]) {
            let secured = [("tls", "true"), ("client_id", client)];
            ensure!(series.has(&secured), "{pod}: {series:?}");
            total += series.value;
        }
    }
    ensure!(
        total == f64::from(REQUESTS),
        "{pods:?}: {total} requests were counted"
    );
    Ok(())
}

async fn start_all(story: &Story) -> anyhow::Result<()> {
    let web = |name: &str| Workload::web(name).mesh(&story.namespace);
    story.create(&web("scaled").scaled(SCALED)).await?;
    story.create(&web("single").deployment()).await?;
    story.create(&web("stateful").stateful_set()).await?;
    story.create(&web("daemon").daemon_set()).await?;
    story.create(&web("batch").job()).await?;
    story.create(&web("bare-set").replica_set()).await?;
    story
        .create(&web("controller").replication_controller())
        .await?;
    for (app, _) in OWNERS {
        story.create(&Workload::web(app).service(8080)).await?;
    }
    Ok(())
}

/// The pods of a destination, once all of them are Ready.
async fn ready_pods(story: &Story, app: &str) -> anyhow::Result<Vec<Pod>> {
    let expected = if app == "scaled" {
        usize::from(SCALED)
    } else {
        1
    };
    let parameters = ListParams::default().labels(&format!("app={app}"));
    let limit = Duration::from_secs(60);
    eventually(&format!("the pods of {app}"), limit, async || {
        let pods = story.api::<Pod>().list(&parameters).await?.items;
        let ready = pods.iter().filter(|pod| is_ready(pod)).count();
        ensure!(
            (pods.len(), ready) == (expected, expected),
            "{ready} of {} are Ready",
            pods.len()
        );
        Ok(pods)
    })
    .await
}

/// Sends the requests from a pod of its own, once that is certified, and gives its name.
async fn call(story: &Story, app: &str) -> anyhow::Result<String> {
    let client = format!("bot-{app}");
    let pod = Workload::new(&client, &["sleep", "600"]).mesh(&story.namespace);
    story.start(&pod.pod()).await?;
    story.certified(&[&client]).await?;
    let (url, requests) = (format!("http://{app}/ok"), REQUESTS.to_string());
    let bot = ["bot", &url, "--requests", &requests];
    let printed = story.run_in(&client, &bot).await?;
    let report = Report::parse(&printed).with_context(|| format!("no report in {printed}"))?;
    ensure!(
        report.succeeded == usize::from(REQUESTS),
        "{app}: {report:?}"
    );
    Ok(client)
}

/// Exactly the `dst_*` labels of one of these pods.
fn is_labelled(series: &Series, (app, owner): (&str, &str), pods: &[Pod]) -> anyhow::Result<()> {
    let found: BTreeMap<&str, &str> = series
        .labels
        .iter()
        .filter(|(key, value)| key.starts_with("dst_") && !value.is_empty())
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect();
    let pod = pods
        .iter()
        .find(|pod| Some(&name(pod)) == found.get("dst_pod"));
    let Some(pod) = pod else {
        anyhow::bail!("{app}: no pod of the destination is named by {found:?}");
    };
    let labels = pod.metadata.labels.clone().unwrap_or_default();
    let mut expected = BTreeMap::from([
        ("dst_control_plane_ns", "kuma-system"),
        (
            "dst_namespace",
            pod.metadata.namespace.as_deref().unwrap_or_default(),
        ),
        ("dst_pod", name(pod)),
        ("dst_service", app),
        ("dst_serviceaccount", "default"),
        ("dst_zone_locality", "unknown"),
        (owner, app),
    ]);
    if let Some(hash) = labels.get("pod-template-hash") {
        expected.insert("dst_pod_template_hash", hash);
    }
    ensure!(
        found == expected,
        "{app}: {found:?} instead of {expected:?}"
    );
    Ok(())
}
