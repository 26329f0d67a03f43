//! What scrapers are told by the whole operator: nothing before it knows the pods, then the proxies, by every replica.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::api::Api;
use crate::operator::Running;
use crate::scene::operator;

const PODS: &str = "/api/v1/namespaces/shop/pods";
const DEADLINE: Duration = Duration::from_secs(20);

fn pod(name: &str, address: &str) -> Value {
    let port = json!({"name": "linkerd-admin", "containerPort": 4191});
    json!({
        "metadata": {
            "name": name, "namespace": "shop", "labels": {"app": "web"},
            "annotations": {"kuma.io/sidecar-injected": "true"},
        },
        "spec": {
            "containers": [{"name": "app"}],
            "initContainers": [{"name": "kuma-sidecar", "env": [{"name": "WEIR_SETTINGS"}], "ports": [port]}],
        },
        "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]},
    })
}

/// The list as it is printed, once its targets are those.
async fn listed(running: &Running, targets: &[&str]) -> String {
    let end = Instant::now() + DEADLINE;
    loop {
        let answer = running.monitor("GET", "/targets").await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        if head.starts_with("HTTP/1.0 200") {
            assert!(
                head.contains("content-type: application/json\r\n"),
                "{head}"
            );
            let groups: Vec<Value> = serde_json::from_str(body).unwrap();
            let found = groups.iter().map(|group| group["targets"][0].clone());
            if found.collect::<Vec<_>>() == targets {
                return body.to_owned();
            }
        }
        assert!(Instant::now() < end, "{targets:?} are not listed: {answer}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn scrapers_are_told_once_the_pods_are_known_by_every_replica() {
    let (api, client) = Api::start().await;
    api.put(PODS, pod("web-2", "10.0.0.2"));
    api.fail("GET /api/v1/pods", 500, usize::MAX);
    let leader = Running::start(&client, operator("a")).await;
    let answer = leader.monitor("GET", "/targets").await;
    assert!(answer.starts_with("HTTP/1.0 503"), "{answer}");
    assert!(answer.contains("has not listed the pods yet"), "{answer}");

    api.mend();
    let list = listed(&leader, &["10.0.0.2:4191"]).await;
    let other = Running::start(&client, operator("b")).await;
    assert_eq!(listed(&other, &["10.0.0.2:4191"]).await, list);

    api.put(PODS, pod("web-1", "10.0.0.1"));
    listed(&leader, &["10.0.0.1:4191", "10.0.0.2:4191"]).await;
    api.delete(PODS, "web-2");
    listed(&other, &["10.0.0.1:4191"]).await;
    other.stop().await;

    for (method, path, beginning) in [
        ("GET", "/", "HTTP/1.0 404"),
        ("GET", "/targets/", "HTTP/1.0 404"),
        ("GET", "/metrics", "HTTP/1.0 404"),
        ("POST", "/targets", "HTTP/1.0 405"),
        ("DELETE", "/targets", "HTTP/1.0 405"),
        ("GET", "/targets?namespace=shop", "HTTP/1.0 200"),
    ] {
        let answer = leader.monitor(method, path).await;
        assert!(answer.starts_with(beginning), "{method} {path}: {answer}");
    }
    let metrics = leader.get("/metrics").await;
    for outcome in ["unavailable", "refused", "listed"] {
        let series = format!("weir_operator_monitoring_requests_total{{outcome=\"{outcome}\"}} ");
        assert!(metrics.contains(&series), "{series} is not in {metrics}");
    }
    leader.stop().await;
}
