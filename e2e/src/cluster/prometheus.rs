//! A real Prometheus in a story's namespace, with the shipped scrape configuration, and its query API
//! through the API server: one that discovers the pods itself, or Debian's, which the operator tells of them. Used by the
//! story of the vote-bot.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, ServiceAccount};
use serde_json::{Value, json};
use weir_crds::names;

use super::{Story, eventually};
use crate::exposition::Series;

const PORT: u16 = 9090;

/// The configuration that ships: its file, and what is replaced in it for pods that a file describes.
const SHIPPED: &str = "linkerd-proxy.yaml";
const SHIPPED_HEAD: &str = "scrape_configs:\n";
const SHIPPED_JOB: &str = "job_name: linkerd-proxy";
const SHIPPED_DISCOVERY: &str = "kubernetes_sd_configs";
const SHIPPED_ROLE: &str = "- role: pod";
const SHIPPED_PATH: &str = "metrics_path: /metrics";
/// How a line begins that is there to take the place of the discovery.
const COMMENTED: &str = "    #";
/// The first of them.
const SHIPPED_LIST: &str = "http_sd_configs:";

/// What the names of the labels of a discovered pod begin with.
const DISCOVERED: &str = "__meta_kubernetes_";

/// What is before the shipped jobs: scraped every second, so that a story does not wait.
const GLOBAL: &str = "global: {scrape_interval: 1s, scrape_timeout: 1s}\n";

/// The port of the container beside Prometheus that answers for the pods that only a file describes.
const STAND_IN: u16 = 9100;

/// Which program, and how it finds the pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// With the discovery of Kubernetes, and permission on pods.
    Discovering,
    /// Debian's, which has none; nobody gives it permission.
    Debian,
}

impl Kind {
    /// The name of its pod, its ServiceAccount and its configuration.
    fn name(self) -> &'static str {
        match self {
            Self::Discovering => "prometheus",
            Self::Debian => "prometheus-debian",
        }
    }
}

/// A running Prometheus.
pub struct Prometheus<'a> {
    story: &'a Story,
    kind: Kind,
}

impl<'a> Prometheus<'a> {
    /// Starts one that discovers the pods by the shipped file as it is.
    pub async fn discovering(story: &'a Story) -> anyhow::Result<Self> {
        let kind = Kind::Discovering;
        let apply = ["apply", "--filename", "-"];
        let role = shipped(story, "discovery.yaml")?;
        story.cluster.kubectl(&apply, &role).await?;
        let files = json!({
            "prometheus.yaml": format!("{GLOBAL}scrape_config_files: [/etc/prometheus/{SHIPPED}]\n"),
            SHIPPED: shipped(story, SHIPPED)?,
        });
        let prometheus = Self { story, kind };
        prometheus.configure(files).await?;
        let account = format!("--serviceaccount={}:{}", story.namespace, kind.name());
        let role = "--clusterrole=weir-prometheus-discovery";
        let bind = [
            "create",
            "clusterrolebinding",
            &story.namespace,
            role,
            &account,
        ];
        story.cluster.kubectl(&bind, "").await?;
        story.start(&pod(kind, "weir-prometheus:dev")?).await?;
        Ok(prometheus)
    }

    /// Starts Debian's, with the discovery of the shipped file replaced as that says. It knows those pods too that are
    /// described as a discovery would (targets of a `file_sd` file). The latter are never dialed: one answer is given for
    /// all.
    pub async fn debian(story: &'a Story, described: &Value) -> anyhow::Result<Self> {
        let kind = Kind::Debian;
        let job = shipped(story, SHIPPED)?;
        let (listed, described_job) = (listed_job(&job)?, described_job(&job)?);
        let prometheus = Self { story, kind };
        // It knows no `scrape_config_files`.
        prometheus
            .configure(json!({
                "prometheus.yaml": format!("{GLOBAL}{listed}{described_job}"),
                "described.json": described.to_string(),
            }))
            .await?;
        story
            .start(&pod(kind, "weir-prometheus-debian:dev")?)
            .await?;
        Ok(prometheus)
    }

    async fn configure(&self, files: Value) -> anyhow::Result<()> {
        let metadata = json!({"name": self.kind.name()});
        let configuration: ConfigMap =
            serde_json::from_value(json!({"metadata": metadata, "data": files}))?;
        self.story.create(&configuration).await?;
        let account: ServiceAccount = serde_json::from_value(json!({"metadata": metadata}))?;
        self.story.create(&account).await?;
        Ok(())
    }

    /// Takes away what is outside of the story's namespace.
    pub async fn stop(self) -> anyhow::Result<()> {
        if self.kind == Kind::Discovering {
            let unbind = ["delete", "clusterrolebinding", &self.story.namespace];
            self.story.cluster.kubectl(&unbind, "").await?;
        }
        Ok(())
    }

    /// Its version, as it says.
    pub async fn version(&self) -> anyhow::Result<String> {
        let data = self.ask("/api/v1/status/buildinfo").await?;
        Ok(data["version"].as_str().unwrap_or_default().to_owned())
    }

    /// The series that a query answers now.
    pub async fn query(&self, query: &str) -> anyhow::Result<Vec<Series>> {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let data = self.ask(&format!("/api/v1/query?query={encoded}")).await?;
        let result = data["result"].as_array().context("no result")?;
        result.iter().map(series).collect()
    }

    /// What discovery said of the pod of this target.
    pub async fn discovered(&self, instance: &str) -> anyhow::Result<BTreeMap<String, String>> {
        let data = self.ask("/api/v1/targets?state=active").await?;
        let mut targets = data["activeTargets"].as_array().into_iter().flatten();
        let target = targets.find(|target| target["labels"]["instance"] == instance);
        let target = target.with_context(|| format!("{instance} is no target"))?;
        let labels: BTreeMap<String, String> =
            serde_json::from_value(target["discoveredLabels"].clone())?;
        let labels = labels.into_iter();
        Ok(labels
            .filter(|(label, _)| label.starts_with(DISCOVERED))
            .collect())
    }

    /// What a query answers, once it satisfies the check.
    pub async fn eventually(
        &self,
        query: &str,
        limit: Duration,
        check: impl Fn(&[Series]) -> anyhow::Result<()>,
    ) -> anyhow::Result<Vec<Series>> {
        eventually(query, limit, async || {
            let series = self.query(query).await?;
            check(&series)?;
            Ok(series)
        })
        .await
    }

    async fn ask(&self, path: &str) -> anyhow::Result<Value> {
        let (status, text) = self.story.get(self.kind.name(), PORT, path).await?;
        ensure!(
            status.is_success(),
            "Prometheus answers {status} to {path}: {text}"
        );
        Ok(serde_json::from_str::<Value>(&text)?["data"].take())
    }
}

fn shipped(story: &Story, file: &str) -> anyhow::Result<String> {
    let directory = story.cluster.checkout().join("manifests/prometheus");
    Ok(std::fs::read_to_string(directory.join(file))?)
}

/// The shipped text with the operator's list in the place of its discovery, by the lines that are there as a comment.
fn listed_job(shipped: &str) -> anyhow::Result<String> {
    let list = format!("{COMMENTED}{SHIPPED_LIST}\n");
    let (before, rest) = shipped
        .split_once(&list)
        .with_context(|| format!("{SHIPPED} holds no '{list}'"))?;
    let end = format!("{SHIPPED_ROLE}\n");
    let (replaced, after) = rest
        .split_once(&end)
        .with_context(|| format!("{SHIPPED} holds no '{end}'"))?;
    let url = replaced
        .lines()
        .map_while(|line| line.strip_prefix(COMMENTED))
        .map(|line| format!("    {line}\n"));
    let url: String = url.collect();
    // A story does not wait for a minute.
    Ok(format!(
        "{before}    {SHIPPED_LIST}\n{url}        refresh_interval: 1s\n{after}"
    ))
}

/// The shipped job with another discovery, and with every scrape answered beside Prometheus: an entry more of a list.
fn described_job(shipped: &str) -> anyhow::Result<String> {
    for part in [SHIPPED_JOB, SHIPPED_DISCOVERY, SHIPPED_ROLE, SHIPPED_PATH] {
        let count = shipped.matches(part).count();
        ensure!(count == 1, "{SHIPPED} holds '{part}' {count} times");
    }
    let path = format!("proxy_url: http://127.0.0.1:{STAND_IN}\n    {SHIPPED_PATH}/request_total");
    let (_, job) = shipped
        .split_once(SHIPPED_HEAD)
        .with_context(|| format!("{SHIPPED} holds no '{SHIPPED_HEAD}'"))?;
    Ok(job
        .replace(SHIPPED_JOB, "job_name: described")
        .replace(SHIPPED_DISCOVERY, "file_sd_configs")
        .replace(SHIPPED_ROLE, "- files: [/etc/prometheus/described.json]")
        .replace(SHIPPED_PATH, &path))
}

fn pod(kind: Kind, image: &str) -> anyhow::Result<Pod> {
    let name = kind.name();
    let mut containers = vec![json!({
        "name": "prometheus", "image": image, "imagePullPolicy": "Never",
        "args": ["--config.file=/etc/prometheus/prometheus.yaml", "--storage.tsdb.path=/tmp/data"],
        "readinessProbe": {"httpGet": {"path": "/-/ready", "port": PORT}, "periodSeconds": 1},
        "volumeMounts": [{"name": "configuration", "mountPath": "/etc/prometheus"}],
    })];
    if kind == Kind::Debian {
        containers.push(json!({
            "name": "stand-in", "image": "weir-app:dev", "imagePullPolicy": "Never",
            "args": ["web", "--port", STAND_IN.to_string()],
        }));
    }
    Ok(serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"app": name, names::INJECTION: "disabled"}},
        "spec": {
            "serviceAccountName": name,
            "terminationGracePeriodSeconds": 1,
            "containers": containers,
            "volumes": [{"name": "configuration", "configMap": {"name": name}}],
        },
    }))?)
}

fn series(entry: &Value) -> anyhow::Result<Series> {
    let mut labels: BTreeMap<String, String> = serde_json::from_value(entry["metric"].clone())?;
    let value = entry["value"][1]
        .as_str()
        .context("a series without a value")?;
    Ok(Series {
        name: labels.remove("__name__").unwrap_or_default(),
        order: labels.keys().cloned().collect(),
        labels,
        value: value.parse()?,
    })
}
