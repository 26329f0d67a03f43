//! What is wrong is refused with its place and the remedy, and what is merely odd passes.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::Pod;
use weir_e2e::cluster::pod::{ip, name};
use weir_e2e::cluster::{Story, Workload, eventually};

use crate::beside_others;

const MESH: &str = "
apiVersion: kuma.io/v1alpha1
kind: Mesh
metadata: {name: bad}
spec:
  metrics:
    enabledBackend: prometheus-2
    backends:
    - name: prometheus-1
      type: prometheus
      conf: {port: 70000, path: metrics}
";

#[tokio::test]
async fn an_invalid_mesh_is_refused_with_fields_and_messages() -> anyhow::Result<()> {
    beside_others("bad-mesh", async |story| {
        let applied = story
            .cluster
            .kubectl(&["apply", "--filename", "-"], MESH)
            .await;
        let refusal = applied.err().context("the Mesh was accepted")?.to_string();
        for expected in [
            "spec.metrics.enabledBackend: has to be set to one of the backends in the mesh",
            "spec.metrics.backends[0].conf.port: port must be in the range [1, 65535]",
            "spec.metrics.backends[0].conf.path: path has to start with '/'",
        ] {
            ensure!(
                refusal.contains(expected),
                "'{expected}' is not in: {refusal}"
            );
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_malformed_annotation_is_refused_with_its_name() -> anyhow::Result<()> {
    beside_others("bad-annotation", async |story| {
        for (annotation, value) in [
            ("prometheus.metrics.kuma.io/port", "http"),
            ("prometheus.metrics.kuma.io/path", "metrics"),
            ("prometheus.metrics.kuma.io/aggregate-app-port", "0"),
            ("prometheus.metrics.kuma.io/aggregate-app-enabled", "maybe"),
        ] {
            let pod = Workload::web("bad").annotation(annotation, value).pod();
            let refused = story.create(&pod).await.err();
            let refused = refused.with_context(|| format!("{annotation}: {value} was accepted"))?;
            let message = format!("{refused:#}");
            ensure!(
                message.contains(annotation),
                "{annotation} is not in: {message}"
            );
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_pod_of_a_mesh_that_is_not_there_is_refused_with_its_name() -> anyhow::Result<()> {
    beside_others("no-mesh", async |story| {
        let pod = Workload::web("lost").annotation("kuma.io/mesh", "atlantis");
        let refused = story
            .create(&pod.pod())
            .await
            .err()
            .context("it was accepted")?;
        ensure!(
            format!("{refused:#}").contains("\"atlantis\""),
            "{refused:#}"
        );
        Ok(())
    })
    .await
}

/// Sends bytes (and how) to an address from a pod without a proxy: what came back.
async fn send(story: &Story, pod: &str, address: &str, bytes: &[&str]) -> anyhow::Result<String> {
    let args = [["raw", address].as_slice(), bytes].concat();
    let client = Workload::new(pod, &args).label("kuma.io/sidecar-injection", "disabled");
    story
        .output_of(&client.task(), Duration::from_secs(30))
        .await
}

/// Waits until a family of the pod has this sum.
async fn counts(
    story: &Story,
    pod: &str,
    (family, labels): (&str, &[(&str, &str)]),
    expected: f64,
) -> anyhow::Result<()> {
    eventually(family, Duration::from_secs(5), async || {
        let found = story.scrape(pod).await?.sum(family, labels);
        ensure!(found == expected, "{family}{labels:?} of {pod} is {found}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn ambiguous_framing_gets_400_and_never_reaches_the_application() -> anyhow::Result<()> {
    const AMBIGUOUS: &str = "POST /smuggled HTTP/1.1\\r\\nHost: web\\r\\nContent-Length: 4\\r\\n\
         Transfer-Encoding: chunked\\r\\n\\r\\n0\\r\\n\\r\\n";
    beside_others("bad-framing", async |story| {
        let web = story.start(&Workload::web("web").pod()).await?;
        let address = format!("{}:8080", ip(&web));
        let answer = send(story, "client", &address, &[AMBIGUOUS]).await?;
        ensure!(
            answer.starts_with("HTTP/1.1 400 "),
            "the answer is {answer}"
        );
        let errors = [("error", "bad request")];
        counts(
            story,
            name(&web),
            ("inbound_http_errors_total", &errors),
            1.0,
        )
        .await?;
        counts(story, name(&web), ("request_total", &[]), 0.0).await?;
        // A later request shows that the application's log is there to be read.
        send(story, "later", &address, &["GET /ok HTTP/1.0\\r\\n\\r\\n"]).await?;
        let log = story.log(name(&web), "app").await?;
        ensure!(log.contains("GET /ok"), "the log is {log}");
        ensure!(
            !log.contains("smuggled"),
            "it reached the application: {log}"
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_odd_request_passes_and_is_counted_as_unparsed() -> anyhow::Result<()> {
    const ODD: &str = "GET / HTTP/1.1\\r\\nHost: web\\r\\nodd name: x\\r\\n\\r\\n";
    beside_others("odd", async |story| {
        let echo = story
            .start(&Workload::new("echo", &["tcp-echo"]).pod())
            .await?;
        let answer = send(
            story,
            "client",
            &format!("{}:9000", ip(&echo)),
            &[ODD, "--half-close"],
        )
        .await?;
        let sent = ODD.replace("\\r\\n", "\r\n");
        // A container's log loses the CR of a line's end; that bytes are identical is another story.
        ensure!(
            answer.trim_end().lines().eq(sent.trim_end().lines()),
            "what came back is {answer}"
        );
        let inbound = [("direction", "inbound")];
        counts(
            story,
            name(&echo),
            ("weir_http_unparsed_total", &inbound),
            1.0,
        )
        .await?;
        counts(story, name(&echo), ("request_total", &[]), 0.0).await
    })
    .await
}

#[tokio::test]
async fn an_application_that_is_down_gives_502_and_the_metrics_say_so() -> anyhow::Result<()> {
    beside_others("down", async |story| {
        let pod = Workload::new("app", &["web", "--gate", "8081"]).pod();
        let app: Pod = story.start(&pod).await?;
        let request = "GET /ok HTTP/1.1\\r\\nHost: app\\r\\nConnection: close\\r\\n\\r\\n";
        let answer = send(story, "client", &format!("{}:8080", ip(&app)), &[request]).await?;
        ensure!(
            answer.starts_with("HTTP/1.1 502 "),
            "the answer is {answer}"
        );
        let ended = [
            ("status_code", "502"),
            ("classification", "failure"),
            ("error", "connect"),
        ];
        counts(story, "app", ("response_total", &ended), 1.0).await?;
        counts(
            story,
            "app",
            ("request_total", &[("target_port", "8080")]),
            1.0,
        )
        .await?;
        let errors = [("error", "connect")];
        counts(story, "app", ("inbound_http_errors_total", &errors), 1.0).await?;
        counts(story, "app", ("inbound_tcp_errors_total", &errors), 1.0).await
    })
    .await
}
