//! A ServiceProfile, as Linkerd's users write it: requests are counted under their routes, one route has a response
//! class and one a timeout, what is of no route has none, and a budget limits what is sent again.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::ensure;
use serde_json::json;
use weir_e2e::cluster::{Story, Workload, eventually};
use weir_e2e::exposition::{Scrape, Series};

use crate::beside_others;

/// Requests of each bot.
const REQUESTS: usize = 20;
/// Requests that are answered with a failure, and retried where the budget allows it.
const RETRIED: usize = 50;
/// Retries that their budget allows: a fifth of them, and none besides.
const RETRIES: f64 = 10.0;
/// How long the operator may take to find the kind, the proxy to be told, and the bot to send its next request.
pub(crate) const KNOWN: Duration = Duration::from_secs(90);
pub(crate) const REPORTED: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_service_profile_tells_requests_apart() -> anyhow::Result<()> {
    beside_others("routes", async |story| {
        start(story).await?;
        become_known(story).await?;
        for (bot, path, sent) in [
            ("ok", "/ok", Expected::new(Some("ok"), 200, "success", "")),
            (
                "missing",
                "/status/404",
                Expected::new(Some("missing"), 404, "failure", ""),
            ),
            (
                "late",
                "/slow/5000",
                Expected::new(Some("slow"), 504, "failure", "timeout"),
            ),
            ("other", "/bytes/1", Expected::new(None, 200, "success", "")),
        ] {
            let scrape = call(story, bot, path, &["--requests", &REQUESTS.to_string()]).await?;
            sent.is_counted(story, &scrape)?;
        }
        retries_stay_within_their_budget(story).await
    })
    .await
}

async fn start(story: &Story) -> anyhow::Result<()> {
    let status = |status: u16| json!({"status": {"min": status, "max": status}});
    let spec = json!({
        "routes": [
            {"name": "ok", "condition": {"method": "GET", "pathRegex": "/ok"}},
            {
                "name": "missing",
                "condition": {"pathRegex": "/status/404"},
                "responseClasses": [{"condition": status(404), "isFailure": true}],
            },
            {"name": "slow", "condition": {"pathRegex": "/slow/.*"}, "timeout": "200ms"},
            {"name": "broken", "condition": {"pathRegex": "/status/503"}, "isRetryable": true},
        ],
        "retryBudget": {"retryRatio": 0.2, "minRetriesPerSecond": 0, "ttl": "60s"},
    });
    apply_profile(story, "web", spec).await?;
    let web = Workload::web("web");
    story.create(&web.deployment()).await?;
    story.create(&web.service(8080)).await?;
    story.ready_by_app("web").await?;
    Ok(())
}

/// Installs the kinds of routes, and writes the ServiceProfile of a Service.
pub(crate) async fn apply_profile(
    story: &Story,
    service: &str,
    spec: serde_json::Value,
) -> anyhow::Result<()> {
    let overlay = story.cluster.checkout().join("manifests/crds-routes");
    let overlay = overlay.to_string_lossy().into_owned();
    let apply = ["apply", "--server-side", "--kustomize", &overlay];
    story.cluster.kubectl(&apply, "").await?;
    let profile = json!({
        "apiVersion": "linkerd.io/v1alpha2",
        "kind": "ServiceProfile",
        "metadata": {
            "name": format!("{service}.{}.svc.cluster.local", story.namespace),
            "namespace": story.namespace,
        },
        "spec": spec,
    });
    // The API server may need a moment for a kind that is new.
    eventually("a ServiceProfile", KNOWN, async || {
        let text = profile.to_string();
        story
            .cluster
            .kubectl(&["apply", "--filename", "-"], &text)
            .await
    })
    .await?;
    Ok(())
}

/// Waits until a proxy that has the Service already counts its requests by route: from then on the operator says its
/// routes to whoever asks.
async fn become_known(story: &Story) -> anyhow::Result<()> {
    let args = [
        "bot",
        "http://web/ok",
        "--requests",
        "100000",
        "--rate",
        "5",
    ];
    story.create(&Workload::new("first", &args).pod()).await?;
    story.ready("first").await?;
    eventually("the routes are known", KNOWN, async || {
        let scrape = story.scrape("first").await?;
        let known = scrape
            .select("route_request_total", &[("rt_route", "ok")])
            .any(|series| series.value > 0.0);
        ensure!(known, "no request is counted under a route");
        Ok(())
    })
    .await
}

/// Sends requests from a pod of its own and gives what its proxy counts.
async fn call(story: &Story, bot: &str, path: &str, how: &[&str]) -> anyhow::Result<Scrape> {
    let url = format!("http://web{path}");
    let args = ["bot", url.as_str(), "--linger-seconds", "600"];
    let args = [&args, how].concat();
    story.create(&Workload::new(bot, &args).pod()).await?;
    story.report(bot, REPORTED).await?;
    story.scrape(bot).await
}

/// What is to be counted for the requests of a bot.
struct Expected {
    route: Option<&'static str>,
    response: BTreeMap<&'static str, String>,
}

impl Expected {
    fn new(route: Option<&'static str>, status: u16, class: &str, error: &str) -> Self {
        let response = [
            ("status_code", status.to_string()),
            ("classification", class.to_owned()),
            ("error", error.to_owned()),
        ];
        Self {
            route,
            response: response.into(),
        }
    }

    /// All of them, and nothing else.
    fn is_counted(&self, story: &Story, scrape: &Scrape) -> anyhow::Result<()> {
        let dst = format!("web.{}.svc.cluster.local:80", story.namespace);
        let requests: Vec<&Series> = used(scrape, "route_request_total");
        let is_it = |series: &Series| {
            let label = |key: &str| series.labels.get(key).map(String::as_str);
            label("dst") == Some(&dst)
                && label("direction") == Some("outbound")
                && label("rt_route") == self.route
        };
        let count = REQUESTS as f64;
        ensure!(
            matches!(requests[..], [one] if is_it(one) && one.value == count),
            "{:?}: {requests:?}",
            self.route
        );
        let responses = used(scrape, "route_response_total");
        let said = |series: &Series| {
            let mut labels = self.response.iter();
            labels.all(|(key, value)| series.labels.get(*key) == Some(value))
        };
        ensure!(
            matches!(responses[..], [one] if is_it(one) && said(one) && one.value == count),
            "{:?}: {responses:?}",
            self.route
        );
        Ok(())
    }
}

/// The series of a family that count something.
fn used<'a>(scrape: &'a Scrape, family: &'a str) -> Vec<&'a Series> {
    let series = scrape.select(family, &[]);
    series.filter(|series| series.value > 0.0).collect()
}

async fn retries_stay_within_their_budget(story: &Story) -> anyhow::Result<()> {
    for (bot, protocol) in [("broken", &["--http2"][..]), ("broken-http1", &[])] {
        retries_of_one(story, bot, protocol).await?;
    }
    Ok(())
}

/// Of one bot: each has a proxy, and so a budget, of its own.
async fn retries_of_one(story: &Story, bot: &str, protocol: &[&str]) -> anyhow::Result<()> {
    let requests = RETRIED.to_string();
    let how = ["--requests", &requests, "--rate", "100"];
    let scrape = call(story, bot, "/status/503", &[&how, protocol].concat()).await?;
    let of = [("rt_route", "broken")];
    let sum = |family: &str| -> f64 { scrape.select(family, &of).map(|one| one.value).sum() };
    let (requests, attempts) = (
        sum("route_request_total"),
        sum("route_actual_request_total"),
    );
    ensure!(requests == RETRIED as f64, "{requests} requests");
    let retries = attempts - requests;
    ensure!(
        retries > 0.0 && retries <= RETRIES,
        "{retries} retries of {requests} requests"
    );
    let responses = used(&scrape, "route_response_total");
    let seen: f64 = responses.iter().map(|series| series.value).sum();
    ensure!(
        seen == requests,
        "the client sees one answer to each: {responses:?}"
    );
    Ok(())
}
