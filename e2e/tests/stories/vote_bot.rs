//! The page's own example: a Deployment `vote-bot` sends requests to a Service `web`, and two real
//! Prometheus with the shipped scrape configuration answer with the page's labels and right counts: one that discovers the
//! pods itself, and Debian's, which the operator tells of them.

mod described;

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::Pod;
use weir_e2e::cluster::pod::{ip, name};
use weir_e2e::cluster::{Prometheus, Story, Workload, eventually};
use weir_e2e::exposition::Series;

use crate::beside_others;

const REQUESTS: u16 = 60;

/// How long Prometheus may take to know a pod and to have scraped its last request.
const SCRAPED: Duration = Duration::from_secs(30);

/// What the operator's list does not say of a pod.
const LEFT_OUT: [&str; 4] = [
    "_pod_annotation",
    "_pod_host_ip",
    "_pod_container_id",
    "_pod_container_image",
];

/// What the collector adds to every sample, as the page prints it.
const PAGE: [&str; 9] = [
    "pod",
    "namespace",
    "app",
    "control_plane_ns",
    "deployment",
    "pod_template_hash",
    "test",
    "instance",
    "job",
];

/// The labels of the metrics themselves that are not empty where there is no mesh TLS, no route and no zone.
const OUTBOUND_REQUEST: &str = "authority direction no_tls_reason target_port tls";
const INBOUND_REQUEST: &str = "authority authz_kind authz_name direction no_tls_reason route_kind route_name \
     srv_group srv_kind srv_name srv_port target_port tls";
const CONNECTION: &str = "direction no_tls_reason peer target_port tls";
const SERVER: &str = "srv_group srv_kind srv_name srv_port";
const DESTINATION: &str = "dst_control_plane_ns dst_deployment dst_namespace dst_pod dst_pod_template_hash \
     dst_service dst_serviceaccount dst_zone_locality";

#[tokio::test]
async fn prometheus_answers_with_the_labels_of_the_page() -> anyhow::Result<()> {
    beside_others("vote-bot", async |story| {
        let (web, bot) = start_both(story).await?;
        let described = described::pods();
        let (discovering, debian) = tokio::try_join!(
            Prometheus::discovering(story),
            Prometheus::debian(story, &described),
        )?;
        let version = discovering.version().await?;
        println!("Prometheus {version}, by kubernetes_sd");
        println!(
            "Debian's Prometheus {}, by http_sd",
            debian.version().await?
        );
        let report = story.report(name(&bot), Duration::from_secs(30)).await?;
        let requests = usize::from(REQUESTS);
        ensure!(
            (report.sent, report.succeeded) == (requests, requests),
            "{report:?}"
        );

        let (discovered, listed, described, same) = tokio::join!(
            prometheus_agrees(&discovering, &web, &bot),
            prometheus_agrees(&debian, &web, &bot),
            described::are_named_as_on_the_page(&debian, SCRAPED),
            the_operator_says_what_discovery_says(&discovering, &debian, [&web, &bot]),
        );
        discovering.stop().await?;
        debian.stop().await?;
        discovered.context("by kubernetes_sd")?;
        listed.context("Debian's, by http_sd")?;
        described.and(same)
    })
    .await
}

async fn start_both(story: &Story) -> anyhow::Result<(Pod, Pod)> {
    let web = Workload::web("web").label("test", "web-test");
    story.create(&web.deployment()).await?;
    story.create(&web.service(8080)).await?;
    let web = story.ready_by_app("web").await?;
    let requests = REQUESTS.to_string();
    let args = [
        "bot",
        "http://web/ok",
        "--requests",
        &requests,
        "--linger-seconds",
        "600",
    ];
    let bot = Workload::new("vote-bot", &args).label("test", "vote-bot-test");
    story.create(&bot.deployment()).await?;
    Ok((web, story.ready_by_app("vote-bot").await?))
}

async fn prometheus_agrees(
    prometheus: &Prometheus<'_>,
    web: &Pod,
    bot: &Pod,
) -> anyhow::Result<()> {
    for (pod, metric, own) in [
        (
            bot,
            "request_total{direction=\"outbound\"",
            vec![OUTBOUND_REQUEST, DESTINATION],
        ),
        (
            web,
            "request_total{direction=\"inbound\"",
            vec![INBOUND_REQUEST],
        ),
        (
            bot,
            "tcp_open_total{direction=\"outbound\",peer=\"src\"",
            vec![CONNECTION],
        ),
        (
            bot,
            "tcp_open_total{direction=\"outbound\",peer=\"dst\"",
            vec![CONNECTION, "authority", DESTINATION],
        ),
        (
            web,
            "tcp_open_total{direction=\"inbound\",peer=\"src\"",
            vec![CONNECTION, SERVER],
        ),
        (
            web,
            "tcp_open_total{direction=\"inbound\",peer=\"dst\"",
            vec![CONNECTION],
        ),
    ] {
        let query = format!("{metric},instance=\"{}:4191\"}} > 0", ip(pod));
        let series = prometheus
            .eventually(&query, SCRAPED, |series| {
                let values: Vec<f64> = series.iter().map(|series| series.value).collect();
                ensure!(values == [f64::from(REQUESTS)], "the values are {values:?}");
                Ok(())
            })
            .await?;
        has_exactly(&series[0], pod, &own).with_context(|| query)?;
    }
    // The server measured nothing outbound, the client nothing inbound.
    for (pod, direction) in [(web, "outbound"), (bot, "inbound")] {
        let query = format!(
            "request_total{{direction=\"{direction}\",pod=\"{}\"}} > 0",
            name(pod)
        );
        let series = prometheus.query(&query).await?;
        ensure!(series.is_empty(), "{query} answers {series:?}");
    }
    Ok(())
}

/// Label for label, but for what the list leaves out.
async fn the_operator_says_what_discovery_says(
    discovering: &Prometheus<'_>,
    debian: &Prometheus<'_>,
    pods: [&Pod; 2],
) -> anyhow::Result<()> {
    let is_left_out = |label: &str| LEFT_OUT.iter().any(|part| label.contains(part));
    for pod in pods {
        let instance = format!("{}:4191", ip(pod));
        eventually(&instance, SCRAPED, async || {
            let mut discovered = discovering.discovered(&instance).await?;
            discovered.retain(|label, _| !is_left_out(label));
            let listed = debian.discovered(&instance).await?;
            ensure!(listed.len() > 15, "{listed:?}");
            ensure!(listed == discovered, "{listed:?} instead of {discovered:?}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

/// The labels of the page with the pod's values, the metric's own, and no other.
fn has_exactly(series: &Series, pod: &Pod, own: &[&str]) -> anyhow::Result<()> {
    let keys: BTreeSet<&str> = series.labels.keys().map(String::as_str).collect();
    let expected: BTreeSet<&str> = {
        let own = own.iter().flat_map(|labels| labels.split_whitespace());
        PAGE.into_iter().chain(own).collect()
    };
    ensure!(
        keys == expected,
        "the labels are {keys:?} instead of {expected:?}"
    );
    let labels = pod
        .metadata
        .labels
        .as_ref()
        .context("the pod has no labels")?;
    let label = |key: &str| labels.get(key).map_or("", String::as_str);
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let instance = format!("{}:4191", ip(pod));
    let values = [
        ("pod", name(pod)),
        ("namespace", namespace),
        ("app", label("app")),
        ("control_plane_ns", "kuma-system"),
        ("deployment", label("app")),
        ("pod_template_hash", label("pod-template-hash")),
        ("test", label("test")),
        ("instance", &instance),
        ("job", "linkerd-proxy"),
    ];
    ensure!(series.has(&values), "{series:?} instead of {values:?}");
    Ok(())
}

#[tokio::test]
async fn the_metrics_endpoint_is_where_the_mesh_or_the_pod_says() -> anyhow::Result<()> {
    beside_others("endpoint", async |story| {
        story.start(&Workload::web("plain").pod()).await?;
        let annotated = Workload::web("annotated")
            .annotation("prometheus.metrics.kuma.io/port", "1234")
            .annotation("prometheus.metrics.kuma.io/path", "/non-standard-path");
        story.start(&annotated.pod()).await?;
        for (pod, port, path) in [
            ("plain", 5670, "/metrics"),
            ("annotated", 1234, "/non-standard-path"),
        ] {
            let limit = Duration::from_secs(5);
            let scrape = eventually(pod, limit, async || story.scrape_at(pod, port, path).await);
            let builds = scrape.await?.sum("proxy_build_info", &[]);
            ensure!(
                builds == 1.0,
                "{pod}:{port}{path} is not the proxy's: {builds}"
            );
            let (status, _) = story.get(pod, port, "/other").await?;
            ensure!(status == 404, "{pod}:{port}/other answers {status}");
        }
        let elsewhere = story.scrape_at("annotated", 5670, "/metrics").await;
        ensure!(
            elsewhere.is_err(),
            "the annotated pod answers on the Mesh's port too"
        );
        Ok(())
    })
    .await
}
