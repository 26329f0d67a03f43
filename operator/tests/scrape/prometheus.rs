//! A real Prometheus for one test: on a free loopback port, with a job of ours whose discovery is
//! replaced by a file or by `http_sd` and whose scrapes are answered by a proxy in this process. Ends with the test.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use crate::pod::Pod;
use crate::ports::free;

/// What every pod's proxy answers.
const EXPOSITION: &str = r#"# TYPE request_total counter
request_total{direction="outbound"} 7
# TYPE response_latency_ms histogram
response_latency_ms_bucket{le="1"} 3
response_latency_ms_bucket{le="+Inf"} 7
response_latency_ms_sum 9
response_latency_ms_count 7
"#;

/// How the pods are found.
pub(crate) enum Found<'a> {
    /// In a file, described as Prometheus' own discovery of pods does.
    File(&'a [Pod]),
    /// By `http_sd`, from this configuration of one server.
    Http(Value),
}

/// The running server.
pub(crate) struct Prometheus {
    address: SocketAddr,
    child: Child,
    directory: PathBuf,
}

impl Prometheus {
    /// Starts it with the one job of `shipped`, for the pods that are found so.
    pub(crate) async fn start(shipped: &str, found: Found<'_>) -> Self {
        let kind = if matches!(found, Found::File(_)) {
            "file"
        } else {
            "http"
        };
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("prometheus-{kind}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let discovery = match found {
            Found::Http(server) => ("http_sd_configs", server),
            Found::File(pods) => {
                let groups: Vec<Value> = pods.iter().map(Pod::described).collect();
                let file = directory.join("pods.json");
                std::fs::write(file, json!(groups).to_string()).unwrap();
                ("file_sd_configs", json!({"files": ["pods.json"]}))
            }
        };
        let config = directory.join("prometheus.yml");
        let text = configuration(shipped, discovery, answer_scrapes().await);
        std::fs::write(&config, text).unwrap();
        check(&config);
        let address = free();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                directory.join("data").display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .arg("--log.level=warn")
            .stdout(Stdio::null())
            .spawn()
            .map_err(missing)
            .unwrap();
        Self {
            address,
            child,
            directory,
        }
    }

    /// The labels of every scraped target by its address, once there are `count`.
    pub(crate) async fn targets(
        &self,
        count: usize,
        deadline: Duration,
    ) -> BTreeMap<String, Value> {
        let found = self
            .poll("/api/v1/targets?state=active", deadline, |data| {
                data["activeTargets"]
                    .as_array()
                    .is_some_and(|list| list.len() >= count)
            })
            .await;
        let targets = found["activeTargets"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        targets
            .into_iter()
            .map(|target| {
                let address = target["discoveredLabels"]["__address__"].as_str().unwrap();
                (address.to_owned(), target["labels"].clone())
            })
            .collect()
    }

    /// The label sets that answer a query, once there are `count`.
    pub(crate) async fn query(&self, query: &str, count: usize, deadline: Duration) -> Vec<Value> {
        let path = format!("/api/v1/query?query={query}");
        let data = self
            .poll(&path, deadline, |data| {
                data["result"]
                    .as_array()
                    .is_some_and(|list| list.len() >= count)
            })
            .await;
        let result = data["result"].as_array().cloned().unwrap_or_default();
        result
            .into_iter()
            .map(|sample| sample["metric"].clone())
            .collect()
    }

    async fn poll(&self, path: &str, deadline: Duration, done: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + deadline;
        loop {
            let data = self.get(path).await.unwrap_or_default();
            if done(&data) {
                return data;
            }
            assert!(Instant::now() < end, "{path} still answers {data}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// The `data` of an answer; HTTP/1.0, so that the body ends with the connection.
    async fn get(&self, path: &str) -> std::io::Result<Value> {
        let mut stream = TcpStream::connect(self.address).await?;
        let request = format!("GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", self.address);
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        let body: Value = serde_json::from_str(body).unwrap_or_default();
        Ok(body["data"].clone())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It ended already where this fails.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// The shipped job with another discovery, in a hurry, and with every scrape through `proxy`.
fn configuration(shipped: &str, (kind, server): (&str, Value), proxy: SocketAddr) -> String {
    let mut config: Value = serde_yaml::from_str(shipped).unwrap();
    let job = config["scrape_configs"][0].as_object_mut().unwrap();
    job.remove("kubernetes_sd_configs").unwrap();
    job.insert(kind.to_owned(), json!([server]));
    job.insert("proxy_url".to_owned(), json!(format!("http://{proxy}")));
    job.insert("scrape_interval".to_owned(), json!("1s"));
    job.insert("scrape_timeout".to_owned(), json!("1s"));
    serde_yaml::to_string(&config).unwrap()
}

fn check(config: &Path) {
    let checked = Command::new("promtool")
        .args(["check", "config"])
        .arg(config)
        .output()
        .map_err(missing)
        .unwrap();
    let text = String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success(), "promtool: {text}");
}

fn missing(error: std::io::Error) -> String {
    if error.kind() == ErrorKind::NotFound {
        "install Debian's package prometheus".to_owned()
    } else {
        error.to_string()
    }
}

/// Answers what is asked of any host, as an HTTP proxy.
async fn answer_scrapes() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().route("/metrics", get(async || EXPOSITION));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    address
}
