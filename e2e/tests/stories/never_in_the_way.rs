//! A proxy that is stopped, killed or not there yet costs connections for at most 3 s, and a connection
//! to its own ports never goes round in circles.

use std::time::Duration;

use anyhow::ensure;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use weir_crds::names;
use weir_e2e::app::Report;
use weir_e2e::cluster::pod::{container_status, ip, name};
use weir_e2e::cluster::{Story, Workload, eventually};

use crate::altered::injected_with;
use crate::beside_others;

/// What a lost proxy may cost: from the first connection that fails to the last one.
const LONGEST_OUTAGE_MS: u64 = 3000;

/// Requests a second, each over a new connection, and all of them: 12 s of load.
const RATE: u16 = 50;
const REQUESTS: u16 = 600;

/// Which of the two proxies on a request's way is lost.
#[derive(Clone, Copy, PartialEq)]
enum Side {
    Server,
    Client,
}

#[tokio::test]
async fn a_stopped_proxy_of_the_server_is_passed_by() -> anyhow::Result<()> {
    lose_the_proxy("stop-server", "SIGSTOP", Side::Server).await
}

#[tokio::test]
async fn a_stopped_proxy_of_the_client_is_passed_by() -> anyhow::Result<()> {
    lose_the_proxy("stop-client", "SIGSTOP", Side::Client).await
}

#[tokio::test]
async fn a_killed_proxy_of_the_server_is_passed_by() -> anyhow::Result<()> {
    lose_the_proxy("kill-server", "SIGKILL", Side::Server).await
}

#[tokio::test]
async fn a_killed_proxy_of_the_client_is_passed_by() -> anyhow::Result<()> {
    lose_the_proxy("kill-client", "SIGKILL", Side::Client).await
}

async fn lose_the_proxy(title: &str, signal: &str, side: Side) -> anyhow::Result<()> {
    beside_others(title, async |story| {
        let web = start_web(story).await?;
        // A container that ended takes its pod out of a Service until it runs again, whatever it is for.
        let to = match signal {
            "SIGKILL" => format!("{}:8080", ip(&web)),
            _ => "web".to_owned(),
        };
        let bot = start_bot(story, &to).await?;
        let loses = if side == Side::Server { &web } else { &bot };
        load_flows(story, name(&bot)).await?;
        story.signal_proxy(name(loses), signal).await?;
        let report = story.report(name(&bot), Duration::from_secs(60)).await?;
        println!("{title}: {report:?}");
        judge(&report)?;
        is_back(story, name(loses)).await
    })
    .await
}

/// With a probe as most have it: every 10 s, and three times before it counts.
async fn start_web(story: &Story) -> anyhow::Result<Pod> {
    let probe = json!({"httpGet": {"path": "/ok", "port": 8080}});
    let web = Workload::new("web", &["web"]).probe("readinessProbe", probe);
    story.create(&web.service(8080)).await?;
    story.start(&web.pod()).await
}

async fn start_bot(story: &Story, to: &str) -> anyhow::Result<Pod> {
    let (url, requests, rate) = (
        format!("http://{to}/ok"),
        REQUESTS.to_string(),
        RATE.to_string(),
    );
    let args = [
        "bot",
        &url,
        "--requests",
        &requests,
        "--rate",
        &rate,
        "--linger-seconds",
        "600",
    ];
    story.start(&Workload::new("bot", &args).pod()).await
}

/// Waits until the proxies have measured some of the load.
async fn load_flows(story: &Story, bot: &str) -> anyhow::Result<()> {
    eventually("load", Duration::from_secs(20), async || {
        let requests = story.scrape(bot).await?.sum("request_total", &[]);
        ensure!(requests >= f64::from(RATE), "{requests} requests so far");
        Ok(())
    })
    .await
}

/// Waits until the kubelet has started the proxy again, and it answers.
async fn is_back(story: &Story, pod: &str) -> anyhow::Result<()> {
    eventually("the proxy again", Duration::from_secs(60), async || {
        let restarts = story.api::<Pod>().get(pod).await?;
        let restarts = container_status(&restarts, names::SIDECAR).map(|s| s.restart_count);
        ensure!(
            restarts == Some(1),
            "it was started again {restarts:?} times"
        );
        let scrape = story.scrape(pod).await?;
        let found = scrape.select("proxy_build_info", &[]).count();
        ensure!(found == 1, "it tells nothing of itself");
        Ok(())
    })
    .await
}

fn judge(report: &Report) -> anyhow::Result<()> {
    ensure!(
        report.sent == usize::from(REQUESTS),
        "not all were sent: {report:?}"
    );
    let outage = report.outage_ms.unwrap_or_default();
    ensure!(
        outage <= LONGEST_OUTAGE_MS,
        "the outage took {outage} ms: {report:?}"
    );
    // Without an outage at all there is nothing after it.
    let after = if report.failed == 0 {
        report.succeeded
    } else {
        report.after_outage
    };
    ensure!(
        after >= usize::from(2 * RATE),
        "only {after} requests passed after it: {report:?}"
    );
    Ok(())
}

#[tokio::test]
async fn an_init_container_reaches_the_network() -> anyhow::Result<()> {
    beside_others("init", async |story| {
        let web = story.start(&Workload::web("web").pod()).await?;
        let url = format!("http://{}:8080/ok", ip(&web));
        let pod = Workload::new("late", &["sleep", "600"]).init("fetch", &["get", &url]);
        story.start(&pod.pod()).await?;
        let log = story.log("late", "fetch").await?;
        ensure!(log.trim() == "200 ok", "it printed '{log}'");
        Ok(())
    })
    .await
}

/// As on a cluster without native sidecars: redirection is there, and the proxy comes later.
#[tokio::test]
async fn an_init_container_reaches_the_network_before_the_proxy_starts() -> anyhow::Result<()> {
    beside_others("init-early", async |story| {
        let web = story.start(&Workload::web("web").pod()).await?;
        let url = format!("http://{}:8080/ok", ip(&web));
        let pod = Workload::new("early", &["get", &url]).init("fetch", &["get", &url]);
        let pod = without_native_sidecar(story, &pod.task()).await?;
        let created = story.create(&pod).await?;
        eventually(
            "the application's answer",
            Duration::from_secs(60),
            async || {
                for container in ["fetch", "app"] {
                    let log = story.log(name(&created), container).await?;
                    ensure!(log.trim() == "200 ok", "{container} printed '{log}'");
                }
                Ok(())
            },
        )
        .await
    })
    .await
}

/// The pod as the webhook makes it, with the proxy moved behind the init containers.
async fn without_native_sidecar(story: &Story, pod: &Pod) -> anyhow::Result<Pod> {
    injected_with(story, pod, |spec, mut sidecar| {
        sidecar.restart_policy = None;
        spec.containers.push(sidecar);
    })
    .await
}

#[tokio::test]
async fn connections_to_the_proxys_own_ports_make_no_loop() -> anyhow::Result<()> {
    beside_others("own-ports", async |story| {
        let web = story.start(&Workload::web("web").pod()).await?;
        let addresses = ["4143", "4140"]
            .map(|port| [format!("{}:{port}", ip(&web)), format!("$(POD_IP):{port}")]);
        for (number, address) in addresses.as_flattened().iter().enumerate() {
            let pod = format!("client-{number}");
            let args = ["tcp-connect", address, "--linger-seconds", "600"];
            story.start(&Workload::new(&pod, &args).pod()).await?;
            let outcome = eventually("an outcome", Duration::from_secs(20), async || {
                let log = story.log(&pod, "app").await?;
                ensure!(!log.is_empty(), "nothing printed yet");
                Ok(log)
            });
            println!("{address}: {}", outcome.await?.trim());
            is_calm(story, &pod).await?;
        }
        is_calm(story, "web").await
    })
    .await
}

/// A loop would open connections until something runs out, and burn a core meanwhile.
async fn is_calm(story: &Story, pod: &str) -> anyhow::Result<()> {
    let scrape = story.scrape(pod).await?;
    for (family, most) in [
        ("tcp_open_total", 10.0),
        ("process_open_fds", 100.0),
        ("process_cpu_seconds_total", 2.0),
    ] {
        let found = scrape.sum(family, &[]);
        ensure!(found <= most, "{family} of {pod} is {found}");
    }
    Ok(())
}
