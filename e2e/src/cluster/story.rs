//! A story: a namespace of its own on the cluster, what it creates there and what it asks its pods.
//! When it fails, what the cluster knows about it is printed. Used by every story.

use std::fmt::Debug;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, anyhow, ensure};
use futures::FutureExt as _;
use hyper::Request;
use hyper::header::ACCEPT;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, DeleteParams, ListParams, LogParams, PostParams};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use weir_crds::{names, ports};

use super::pod::{container_status, is_ready, name, phase};
use super::{Cluster, eventually};
use crate::app::Report;
use crate::exposition::Scrape;

/// How long a pod may take to become Ready on a busy machine.
const READY_LIMIT: Duration = Duration::from_secs(60);

/// Whether the pods of a story's namespace get the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Injection {
    Enabled,
    Disabled,
}

/// A story's own namespace.
pub struct Story {
    pub cluster: Cluster,
    pub namespace: String,
}

/// Tells a story in a namespace of its own, which is deleted afterwards. When the story fails, its
/// pods, events and logs are printed first.
pub async fn tell(
    name: &str,
    injection: Injection,
    story: impl AsyncFnOnce(&Story) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let begun = Instant::now();
    let told = Story::begin(name, injection).await?;
    let result = AssertUnwindSafe(story(&told)).catch_unwind().await;
    let result = result.unwrap_or_else(|_| Err(anyhow!("it panicked")));
    if let Err(error) = &result {
        eprintln!("the story {name} fails: {error:#}");
        told.dump().await;
    }
    println!(
        "the story {name} took {:.1} s",
        begun.elapsed().as_secs_f64()
    );
    let namespaces = Api::<Namespace>::all(told.cluster.client.clone());
    namespaces
        .delete(&told.namespace, &DeleteParams::default())
        .await?;
    result
}

impl Story {
    async fn begin(name: &str, injection: Injection) -> anyhow::Result<Self> {
        let cluster = Cluster::connect().await?;
        // Namespaces end slowly: a name that no earlier run has used.
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        let namespace = format!("{name}-{:x}", now.as_millis());
        let label = match injection {
            Injection::Enabled => "enabled",
            Injection::Disabled => "disabled",
        };
        let object: Namespace = serde_json::from_value(json!({
            "metadata": {"name": namespace, "labels": {names::INJECTION: label}},
        }))?;
        let namespaces = Api::<Namespace>::all(cluster.client.clone());
        namespaces.create(&PostParams::default(), &object).await?;
        Ok(Self { cluster, namespace })
    }

    /// The namespace's objects of a kind.
    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.cluster.client.clone(), &self.namespace)
    }

    /// Creates an object in the namespace.
    pub async fn create<K>(&self, object: &K) -> anyhow::Result<K>
    where
        K: kube::Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + Debug
            + DeserializeOwned
            + Serialize,
    {
        Ok(self.api().create(&PostParams::default(), object).await?)
    }

    /// What the API server would make of a pod, which is not created.
    pub async fn would_create(&self, pod: &Pod) -> anyhow::Result<Pod> {
        let dry = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        Ok(self.api::<Pod>().create(&dry, pod).await?)
    }

    /// Creates a pod and waits until it is Ready.
    pub async fn start(&self, pod: &Pod) -> anyhow::Result<Pod> {
        let pod = self.create(pod).await?;
        self.ready(name(&pod)).await
    }

    /// The pod, once it is Ready.
    pub async fn ready(&self, name: &str) -> anyhow::Result<Pod> {
        let pods = self.api::<Pod>();
        eventually(&format!("pod {name} Ready"), READY_LIMIT, async || {
            let pod = pods.get(name).await?;
            ensure!(is_ready(&pod), "its status is {:?}", pod.status);
            Ok(pod)
        })
        .await
    }

    /// The one pod with the label `app`, once it is there and Ready.
    pub async fn ready_by_app(&self, app: &str) -> anyhow::Result<Pod> {
        let pods = self.api::<Pod>();
        let parameters = ListParams::default().labels(&format!("app={app}"));
        let name = eventually(&format!("a pod of {app}"), READY_LIMIT, async || {
            let list = pods.list(&parameters).await?;
            let pod = list.items.into_iter().next().context("none is there")?;
            pod.metadata.name.context("it has no name")
        })
        .await?;
        self.ready(&name).await
    }

    /// The pod once it has ended, well or not.
    pub async fn ended(&self, name: &str, limit: Duration) -> anyhow::Result<Pod> {
        let pods = self.api::<Pod>();
        eventually(&format!("pod {name} ended"), limit, async || {
            let pod = pods.get(name).await?;
            let phase = phase(&pod);
            ensure!(["Succeeded", "Failed"].contains(&phase), "it is {phase}");
            Ok(pod)
        })
        .await
    }

    /// Runs a pod to its end and gives what its container `app` printed; an error when it failed.
    pub async fn output_of(&self, pod: &Pod, limit: Duration) -> anyhow::Result<String> {
        let created = self.create(pod).await?;
        let pod = self.ended(name(&created), limit).await?;
        let log = self.log(name(&pod), "app").await?;
        ensure!(
            phase(&pod) == "Succeeded",
            "pod {} failed: {log}",
            name(&pod)
        );
        Ok(log)
    }

    pub async fn log(&self, pod: &str, container: &str) -> anyhow::Result<String> {
        let parameters = LogParams {
            container: Some(container.to_owned()),
            ..LogParams::default()
        };
        Ok(self.api::<Pod>().logs(pod, &parameters).await?)
    }

    /// When the container printed its last line, as its runtime tells.
    pub async fn last_line_at(&self, pod: &str, container: &str) -> anyhow::Result<Timestamp> {
        let parameters = LogParams {
            container: Some(container.to_owned()),
            timestamps: true,
            tail_lines: Some(1),
            ..LogParams::default()
        };
        let line = self.api::<Pod>().logs(pod, &parameters).await?;
        let time = line
            .split_whitespace()
            .next()
            .context("it printed nothing")?;
        Ok(time.parse()?)
    }

    /// What `kubectl get pods` prints of the pod under STATUS. The API server makes that table.
    pub async fn status_column(&self, pod: &str) -> anyhow::Result<String> {
        let url = format!("/api/v1/namespaces/{}/pods/{pod}", self.namespace);
        let accept = "application/json;as=Table;v=v1;g=meta.k8s.io";
        let request = Request::get(&url).header(ACCEPT, accept).body(Vec::new())?;
        let table: Value = self.cluster.client.request(request).await?;
        let columns = table["columnDefinitions"].as_array().context("no table")?;
        let at = columns.iter().position(|column| column["name"] == "Status");
        let cell = &table["rows"][0]["cells"][at.context("no column Status")?];
        Ok(cell.as_str().context("no text")?.to_owned())
    }

    /// The report of a bot, once it has printed it.
    pub async fn report(&self, pod: &str, limit: Duration) -> anyhow::Result<Report> {
        eventually(&format!("the report of {pod}"), limit, async || {
            let log = self.log(pod, "app").await?;
            Report::parse(&log).with_context(|| format!("its log is '{log}'"))
        })
        .await
    }

    /// GETs a path of a pod's port.
    pub async fn get(
        &self,
        pod: &str,
        port: u16,
        path: &str,
    ) -> anyhow::Result<(hyper::StatusCode, String)> {
        self.cluster.get(&self.namespace, pod, port, path).await
    }

    /// The proxy's metrics of a pod.
    pub async fn scrape(&self, pod: &str) -> anyhow::Result<Scrape> {
        self.scrape_at(pod, ports::ADMIN, "/metrics").await
    }

    /// The metrics at some port and path of a pod.
    pub async fn scrape_at(&self, pod: &str, port: u16, path: &str) -> anyhow::Result<Scrape> {
        let (status, text) = self.get(pod, port, path).await?;
        ensure!(
            status.is_success(),
            "{pod}:{port}{path} answers {status}: {text}"
        );
        Scrape::parse(&text)
    }

    /// Sends a signal to the processes of a pod's proxy without asking Kubernetes.
    pub async fn signal_proxy(&self, pod: &str, signal: &str) -> anyhow::Result<()> {
        let pod = self.api::<Pod>().get(pod).await?;
        let status = container_status(&pod, names::SIDECAR).context("it has no proxy")?;
        let id = status.container_id.as_deref().context("it does not run")?;
        let id = id.trim_start_matches("containerd://");
        let kill = ["ctr", "--namespace", "k8s.io", "tasks", "kill", "--signal"];
        let command = [kill.as_slice(), &[signal, id]].concat();
        self.cluster.node(&command).await?;
        Ok(())
    }

    /// Prints what helps to see why the story failed; what cannot be had is left out.
    async fn dump(&self) {
        let own = ["--namespace", &self.namespace];
        let system = ["--namespace", names::SYSTEM_NAMESPACE];
        let logs = [
            "logs",
            "--all-containers",
            "--prefix",
            "--tail=40",
            "--selector",
        ];
        let commands = [
            [own.as_slice(), &["get", "pods", "--output", "wide"]].concat(),
            [own.as_slice(), &["get", "events"]].concat(),
            [own.as_slice(), &logs, &["app"]].concat(),
            [system.as_slice(), &["get", "pods", "--output", "wide"]].concat(),
            [
                system.as_slice(),
                &logs,
                &["app.kubernetes.io/part-of=weir"],
            ]
            .concat(),
        ];
        for command in commands {
            let answer = self.cluster.kubectl(&command, "").await;
            let text = answer.unwrap_or_else(|error| format!("{error:#}"));
            eprintln!("--- kubectl {}\n{text}", command.join(" "));
        }
    }
}
