//! Pods that are only described, as a discovery would: the page's own, and one that is different in every way. What the
//! shipped configuration makes of them is what the page prints.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::ensure;
use serde_json::{Value, json};
use weir_e2e::cluster::Prometheus;

/// The page's own pod, and a Job's pod that is different in every way, as discovery describes pods.
pub(super) fn pods() -> Value {
    let described = |address: &str, namespace: &str, pod: &str, labels: &[(&str, &str)]| {
        let mut meta = BTreeMap::from([
            ("__meta_kubernetes_namespace".to_owned(), namespace),
            ("__meta_kubernetes_pod_name".to_owned(), pod),
            ("__meta_kubernetes_pod_phase".to_owned(), "Running"),
            (
                "__meta_kubernetes_pod_container_port_name".to_owned(),
                "linkerd-admin",
            ),
        ]);
        for (label, value) in labels {
            let label = label.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
            meta.insert(format!("__meta_kubernetes_pod_label_{label}"), value);
            meta.insert(
                format!("__meta_kubernetes_pod_labelpresent_{label}"),
                "true",
            );
        }
        json!({"targets": [address], "labels": meta})
    };
    json!([
        described(
            "10.1.3.93:4191",
            "emojivoto",
            "vote-bot-5b7f5657f6-xbjjw",
            &[
                ("app", "vote-bot"),
                ("linkerd.io/control-plane-ns", "linkerd"),
                ("linkerd.io/proxy-deployment", "vote-bot"),
                ("pod-template-hash", "3957278789"),
                ("test", "vote-bot-test"),
            ],
        ),
        described(
            "10.9.8.7:4191",
            "books",
            "count-28x9z",
            &[
                ("job-name", "count"),
                ("linkerd.io/control-plane-ns", "kuma-system"),
                ("linkerd.io/proxy-job", "count"),
                ("linkerd.io/workload-ns", "books"),
            ],
        ),
    ])
}

/// They are answered for with these labels and no others.
pub(super) async fn are_named_as_on_the_page(
    prometheus: &Prometheus<'_>,
    limit: Duration,
) -> anyhow::Result<()> {
    let page = [
        ("pod", "vote-bot-5b7f5657f6-xbjjw"),
        ("namespace", "emojivoto"),
        ("app", "vote-bot"),
        ("control_plane_ns", "linkerd"),
        ("deployment", "vote-bot"),
        ("pod_template_hash", "3957278789"),
        ("test", "vote-bot-test"),
        ("instance", "10.1.3.93:4191"),
        ("job", "linkerd-proxy"),
    ];
    let other = [
        ("pod", "count-28x9z"),
        ("namespace", "books"),
        ("control_plane_ns", "kuma-system"),
        ("job_name", "count"),
        ("k8s_job", "count"),
        ("instance", "10.9.8.7:4191"),
        ("job", "linkerd-proxy"),
    ];
    for expected in [page.as_slice(), &other] {
        let labels: BTreeMap<String, String> = expected
            .iter()
            .map(|(label, value)| ((*label).to_owned(), (*value).to_owned()))
            .collect();
        let query = format!("request_total{{namespace=\"{}\"}}", labels["namespace"]);
        prometheus
            .eventually(&query, limit, |series| {
                let found: Vec<_> = series.iter().map(|series| &series.labels).collect();
                ensure!(found == [&labels], "{found:?} instead of {labels:?}");
                Ok(())
            })
            .await?;
    }
    Ok(())
}
