//! A pod that closes its routes: what its Service has a route for reaches the application, anything else is answered 404
//! at the pod, whatever HTTP it is.

use anyhow::ensure;
use serde_json::json;
use weir_crds::names::CLOSED_ROUTES;
use weir_e2e::cluster::{Story, Workload, eventually, pod};

use crate::beside_others;
use crate::routes::{KNOWN, REPORTED, apply_profile};

const REQUESTS: usize = 20;
const REFUSED: &str = "inbound_http_route_not_found_total";

#[tokio::test]
async fn a_pod_answers_404_where_its_service_has_no_route() -> anyhow::Result<()> {
    beside_others("closed-routes", async |story| {
        let routes = json!([{"name": "ok", "condition": {"method": "GET", "pathRegex": "/ok"}}]);
        apply_profile(story, "shut", json!({"routes": routes})).await?;
        let web = Workload::web("shut").annotation(CLOSED_ROUTES, "true");
        story.create(&web.deployment()).await?;
        story.create(&web.service(8080)).await?;
        let server = story.ready_by_app("shut").await?;
        become_known(story, pod::name(&server)).await?;
        for (bot, path, how) in [
            ("lost-http1", "/bytes/1", "--keep-alive"),
            ("lost-http2", "/bytes/1", "--http2"),
            ("found-http1", "/ok", "--keep-alive"),
            ("found-http2", "/ok", "--http2"),
        ] {
            let url = format!("http://shut{path}");
            let requests = REQUESTS.to_string();
            let args = ["bot", &url, "--requests", &requests, how];
            story.create(&Workload::new(bot, &args).pod()).await?;
            let report = story.report(bot, REPORTED).await?;
            let succeeded = if path == "/ok" { REQUESTS } else { 0 };
            ensure!(report.succeeded == succeeded, "{bot}: {report:?}");
            let is_lost = report.first_failure.as_ref();
            let is_lost = is_lost.is_none_or(|failure| failure.contains("404"));
            ensure!(is_lost, "{bot}: {report:?}");
        }
        is_counted(story, pod::name(&server)).await
    })
    .await
}

/// Waits until the proxy has been told which routes there are: until then it lets every request in.
async fn become_known(story: &Story, server: &str) -> anyhow::Result<()> {
    let args = [
        "bot",
        "http://shut/bytes/1",
        "--requests",
        "100000",
        "--rate",
        "5",
    ];
    story.create(&Workload::new("early", &args).pod()).await?;
    story.ready("early").await?;
    eventually("the routes are known", KNOWN, async || {
        let refused = sum(story, server, REFUSED, &[]).await?;
        ensure!(refused > 0.0, "every request is let in");
        Ok(())
    })
    .await
}

/// Each refusal once, as a response and as what it is.
async fn is_counted(story: &Story, server: &str) -> anyhow::Result<()> {
    let lost = [("direction", "inbound"), ("status_code", "404")];
    eventually("the refusals are counted", REPORTED, async || {
        let refused = sum(story, server, REFUSED, &[]).await?;
        let answered = sum(story, server, "response_total", &lost).await?;
        let at_least = 2.0 * REQUESTS as f64;
        ensure!(
            refused >= at_least && refused == answered,
            "{refused} refused, {answered} answered 404"
        );
        Ok(())
    })
    .await
}

async fn sum(
    story: &Story,
    server: &str,
    family: &str,
    of: &[(&str, &str)],
) -> anyhow::Result<f64> {
    let scrape = story.scrape(server).await?;
    Ok(scrape.select(family, of).map(|one| one.value).sum())
}
