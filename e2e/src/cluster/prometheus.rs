//! A real Prometheus in a story's namespace, with the shipped scrape configuration, and its query API
//! through the API server. Used by the story of the vote-bot.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, ServiceAccount};
use serde_json::{Value, json};
use weir_crds::names;

use super::{Story, eventually};
use crate::exposition::Series;

const NAME: &str = "prometheus";
const PORT: u16 = 9090;

/// The configuration that ships: its file, and what is replaced in it for pods that a file describes.
const SHIPPED: &str = "linkerd-proxy.yaml";
const SHIPPED_JOB: &str = "job_name: linkerd-proxy";
const SHIPPED_DISCOVERY: &str = "kubernetes_sd_configs";
const SHIPPED_ROLE: &str = "- role: pod";
const SHIPPED_PATH: &str = "metrics_path: /metrics";

/// What is around the shipped job: scraped every second, so that a story does not wait.
const CONFIGURATION: &str = "\
global: {scrape_interval: 1s, scrape_timeout: 1s}
scrape_config_files: [/etc/prometheus/linkerd-proxy.yaml, /etc/prometheus/described.yaml]
";

/// The port of the container beside Prometheus that answers for the pods that only a file describes.
const STAND_IN: u16 = 9100;

/// A running Prometheus.
pub struct Prometheus<'a> {
    story: &'a Story,
}

impl<'a> Prometheus<'a> {
    /// Starts it: it discovers the cluster's pods, and those that are described as a discovery would
    /// (targets of a `file_sd` file). The latter are never dialed: one answer is given for all.
    pub async fn start(story: &'a Story, described: &Value) -> anyhow::Result<Self> {
        let shipped = story.cluster.checkout().join("manifests/prometheus");
        let role = std::fs::read_to_string(shipped.join("discovery.yaml"))?;
        let apply = ["apply", "--filename", "-"];
        story.cluster.kubectl(&apply, &role).await?;
        let job = std::fs::read_to_string(shipped.join(SHIPPED))?;
        let configuration: ConfigMap = serde_json::from_value(json!({
            "metadata": {"name": NAME},
            "data": {
                "prometheus.yaml": CONFIGURATION,
                SHIPPED: job,
                "described.yaml": described_job(&job)?,
                "described.json": described.to_string(),
            },
        }))?;
        story.create(&configuration).await?;
        let account: ServiceAccount = serde_json::from_value(json!({"metadata": {"name": NAME}}))?;
        story.create(&account).await?;
        let account = format!("--serviceaccount={}:{NAME}", story.namespace);
        let role = "--clusterrole=weir-prometheus-discovery";
        let bind = [
            "create",
            "clusterrolebinding",
            &story.namespace,
            role,
            &account,
        ];
        story.cluster.kubectl(&bind, "").await?;
        story.start(&pod()?).await?;
        Ok(Self { story })
    }

    /// Takes away what is outside of the story's namespace.
    pub async fn stop(self) -> anyhow::Result<()> {
        let unbind = ["delete", "clusterrolebinding", &self.story.namespace];
        self.story.cluster.kubectl(&unbind, "").await?;
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
        let (status, text) = self.story.get(NAME, PORT, path).await?;
        ensure!(
            status.is_success(),
            "Prometheus answers {status} to {path}: {text}"
        );
        Ok(serde_json::from_str::<Value>(&text)?["data"].take())
    }
}

/// The shipped job with another discovery, and with every scrape answered beside Prometheus.
fn described_job(shipped: &str) -> anyhow::Result<String> {
    for part in [SHIPPED_JOB, SHIPPED_DISCOVERY, SHIPPED_ROLE, SHIPPED_PATH] {
        let count = shipped.matches(part).count();
        ensure!(count == 1, "{SHIPPED} holds '{part}' {count} times");
    }
    let path = format!("proxy_url: http://127.0.0.1:{STAND_IN}\n    {SHIPPED_PATH}/request_total");
    Ok(shipped
        .replace(SHIPPED_JOB, "job_name: described")
        .replace(SHIPPED_DISCOVERY, "file_sd_configs")
        .replace(SHIPPED_ROLE, "- files: [/etc/prometheus/described.json]")
        .replace(SHIPPED_PATH, &path))
}

fn pod() -> anyhow::Result<Pod> {
    Ok(serde_json::from_value(json!({
        "metadata": {"name": NAME, "labels": {"app": NAME, names::INJECTION: "disabled"}},
        "spec": {
            "serviceAccountName": NAME,
            "terminationGracePeriodSeconds": 1,
            "containers": [
                {
                    "name": NAME, "image": "weir-prometheus:dev", "imagePullPolicy": "Never",
                    "args": ["--config.file=/etc/prometheus/prometheus.yaml", "--storage.tsdb.path=/tmp/data"],
                    "readinessProbe": {"httpGet": {"path": "/-/ready", "port": PORT}, "periodSeconds": 1},
                    "volumeMounts": [{"name": "configuration", "mountPath": "/etc/prometheus"}],
                },
                {
                    "name": "stand-in", "image": "weir-app:dev", "imagePullPolicy": "Never",
                    "args": ["web", "--port", STAND_IN.to_string()],
                },
            ],
            "volumes": [{"name": "configuration", "configMap": {"name": NAME}}],
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
