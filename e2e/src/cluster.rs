//! The cluster that `e2e/up` started, seen from a test: its API, its node, and the pods' HTTP ports
//! through the API server. Used by the stories; `Story` is what each of them holds. Knows nothing of
//! how the cluster was made.

pub mod mesh;
pub mod pod;
mod prometheus;
mod story;
mod wait;
mod workload;

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, ensure};
use http_body_util::BodyExt as _;
use hyper::{Request, StatusCode};
use kube::Client;
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

pub use prometheus::Prometheus;
pub use story::{Injection, Story, tell};
pub use wait::eventually;
pub use workload::Workload;

/// A client of the running cluster and the scripts beside it.
#[derive(Clone)]
pub struct Cluster {
    pub client: Client,
    scripts: PathBuf,
}

impl Cluster {
    /// Reads the kubeconfig that `e2e/up` wrote.
    pub async fn connect() -> anyhow::Result<Self> {
        let state = std::env::var("WEIR_E2E_DIR").unwrap_or_else(|_| "/tmp/weir-e2e".into());
        let path = Path::new(&state).join("kubeconfig");
        let kubeconfig = Kubeconfig::read_from(&path)
            .with_context(|| format!("no cluster is up ({}): run e2e/up", path.display()))?;
        let mut config =
            Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        config.proxy_url = None; // the cluster is on this machine
        Ok(Self {
            client: Client::try_from(config)?,
            scripts: PathBuf::from(env!("CARGO_MANIFEST_DIR")),
        })
    }

    /// The root of the checkout.
    pub fn checkout(&self) -> PathBuf {
        self.scripts.join("..")
    }

    /// Runs kubectl with that input: what it prints, on both outputs, or an error with it.
    pub async fn kubectl(&self, arguments: &[&str], input: &str) -> anyhow::Result<String> {
        self.script("kubectl", arguments, input).await
    }

    /// Runs a command on the node, as root.
    pub async fn node(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.script("node", arguments, "").await
    }

    /// The key that the API server signs tokens with, as PEM (PKCS#8).
    pub async fn token_key(&self) -> anyhow::Result<String> {
        self.script("token-key", &[], "").await
    }

    async fn script(&self, name: &str, arguments: &[&str], input: &str) -> anyhow::Result<String> {
        let mut child = Command::new(self.scripts.join(name))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot run e2e/{name}"))?;
        let mut stdin = child.stdin.take().context("the child has no input")?;
        stdin.write_all(input.as_bytes()).await?;
        drop(stdin);
        let output = child.wait_with_output().await?;
        let text = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        ensure!(output.status.success(), "e2e/{name} {arguments:?}: {text}");
        Ok(text)
    }

    /// GETs a path of a pod's port through the API server.
    pub async fn get(
        &self,
        namespace: &str,
        pod: &str,
        port: u16,
        path: &str,
    ) -> anyhow::Result<(StatusCode, String)> {
        let url = format!("/api/v1/namespaces/{namespace}/pods/{pod}:{port}/proxy{path}");
        let request = Request::get(&url).body(kube::client::Body::empty())?;
        let response = self.client.send(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        Ok((status, String::from_utf8(body.to_vec())?))
    }
}
