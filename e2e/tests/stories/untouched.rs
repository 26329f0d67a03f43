//! Traffic of every shape passes two proxies, the client's and the server's, and not a byte changes.

use std::time::Duration;

use anyhow::ensure;
use weir_e2e::cluster::pod::ip;
use weir_e2e::cluster::{Workload, eventually};

use crate::beside_others;

/// HTTP/1 requests among the shapes: bodies, chunked, 100-continue, one connection, bodiless, upgrade.
const HTTP1_REQUESTS: f64 = (7 + 1 + 1 + 20 + 4 + 1) as f64;

/// HTTP/2 requests among them: streams on one connection, a gRPC call on another.
const HTTP2_REQUESTS: f64 = (10 + 1) as f64;

/// Connections of the shapes to `web`: as many, less those that are reused, and two of HTTP/2.
const WEB_CONNECTIONS: f64 = (7 + 1 + 1 + 1 + 1 + 1 + 2) as f64;

#[tokio::test]
async fn every_shape_of_traffic_is_identical_through_two_proxies() -> anyhow::Result<()> {
    beside_others("untouched", async |story| {
        let web = story.start(&Workload::web("web").pod()).await?;
        let echo = story
            .start(&Workload::new("echo", &["tcp-echo"]).pod())
            .await?;
        let greeter = story
            .start(&Workload::new("greeter", &["server-first"]).pod())
            .await?;
        let (web, echo, greeter) = (
            format!("{}:8080", ip(&web)),
            format!("{}:9000", ip(&echo)),
            format!("{}:9001", ip(&greeter)),
        );
        let client = Workload::new("client", &["identity", &web, &echo, &greeter]);
        let output = story
            .output_of(&client.task(), Duration::from_secs(180))
            .await?;
        println!("{output}");
        let shapes = output
            .lines()
            .filter(|line| line.contains(": identical, "))
            .count();
        ensure!(shapes == 16, "{shapes} shapes were compared");
        eventually("the counts of web", Duration::from_secs(5), async || {
            let scrape = story.scrape("web").await?;
            for (family, labels, expected) in [
                (
                    "request_total",
                    [("direction", "inbound")].as_slice(),
                    HTTP1_REQUESTS + HTTP2_REQUESTS,
                ),
                (
                    "response_total",
                    &[("classification", "success")],
                    HTTP1_REQUESTS + HTTP2_REQUESTS,
                ),
                ("response_total", &[("grpc_status_code", "0")], 1.0),
                ("http2_active_streams", &[], 0.0),
                ("tcp_open_total", &[("peer", "src")], WEB_CONNECTIONS),
                ("tcp_open_connections", &[], 0.0),
            ] {
                let found = scrape.sum(family, labels);
                ensure!(
                    found == expected,
                    "{family}{labels:?} is {found}, not {expected}"
                );
            }
            Ok(())
        })
        .await
    })
    .await
}
