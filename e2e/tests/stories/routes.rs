//! A ServiceProfile, as Linkerd's users write it: requests are counted under their routes, one route has a response
//! class and one a timeout, what is of no route has none, and a budget limits what is sent again. And an HTTPRoute of the
//! Gateway API: each request goes to the backend of its rule.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::ensure;
use serde_json::{Value, json};
use weir_e2e::cluster::pod::name;
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
        become_known(story, "ok").await?;
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
            sent.is_counted_of(story, bot, path).await?;
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

/// Writes the ServiceProfile of a Service.
pub(crate) async fn apply_profile(story: &Story, service: &str, spec: Value) -> anyhow::Result<()> {
    let name = format!("{service}.{}.svc.cluster.local", story.namespace);
    let kind = ("linkerd.io/v1alpha2", "ServiceProfile");
    apply_route(story, kind, &name, spec).await
}

/// Installs the kinds of routes, and writes one.
async fn apply_route(
    story: &Story,
    (api_version, kind): (&str, &str),
    name: &str,
    spec: Value,
) -> anyhow::Result<()> {
    let overlay = story.cluster.checkout().join("manifests/crds-routes");
    let overlay = overlay.to_string_lossy().into_owned();
    let apply = ["apply", "--server-side", "--kustomize", &overlay];
    story.cluster.kubectl(&apply, "").await?;
    let route = json!({
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {"name": name, "namespace": story.namespace},
        "spec": spec,
    });
    // The API server may need a moment for a kind that is new.
    let what = format!("{kind} {name}");
    eventually(&what, KNOWN, async || {
        let apply = ["apply", "--filename", "-"];
        story.cluster.kubectl(&apply, &route.to_string()).await
    })
    .await?;
    Ok(())
}

/// Waits until a proxy that has the Service already counts its requests by route: from then on the operator says its
/// routes to whoever asks.
async fn become_known(story: &Story, route: &str) -> anyhow::Result<()> {
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
            .select("route_request_total", &[("rt_route", route)])
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

    /// All requests of a bot of this name, and nothing else.
    async fn is_counted_of(&self, story: &Story, bot: &str, path: &str) -> anyhow::Result<()> {
        let scrape = &call(story, bot, path, &["--requests", &REQUESTS.to_string()]).await?;
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

#[tokio::test]
async fn an_http_route_sends_each_request_to_the_backend_of_its_rule() -> anyhow::Result<()> {
    beside_others("http-routes", async |story| {
        for app in ["web", "green"] {
            let web = Workload::web(app);
            story.create(&web.deployment()).await?;
            story.create(&web.service(8080)).await?;
        }
        let kind = ("gateway.networking.k8s.io/v1", "HTTPRoute");
        apply_route(story, kind, "split", split()).await?;
        let (web, green) = (
            story.ready_by_app("web").await?,
            story.ready_by_app("green").await?,
        );
        become_known(story, "split/ok").await?;
        for (bot, path, sent) in [
            (
                "bytes",
                "/bytes/1",
                Expected::new(Some("split/bytes"), 200, "success", ""),
            ),
            (
                "missing",
                "/status/404",
                Expected::new(Some("split/missing"), 404, "success", ""),
            ),
            (
                "late",
                "/slow/5000",
                Expected::new(Some("split/slow"), 504, "failure", "timeout"),
            ),
        ] {
            sent.is_counted_of(story, bot, path).await?;
        }
        // What is of no rule goes nowhere.
        call(story, "other", "/status/200", &["--requests", "5"]).await?;
        for (pod, path, expected) in [
            (&green, "/bytes/", REQUESTS),
            (&green, "/status/404", REQUESTS),
            (&web, "/bytes/", 0),
            (&web, "/status/", 0),
            (&green, "/status/200", 0),
        ] {
            let log = story.log(name(pod), "app").await?;
            let seen = log.lines().filter(|line| line.contains(path)).count();
            ensure!(seen == expected, "{}: {seen} of {path}", name(pod));
        }
        Ok(())
    })
    .await
}

/// To another Service by prefix, by method and weight; to its own, and with a timeout, by expression.
fn split() -> Value {
    let path = |kind: &str, value: &str| json!({"path": {"type": kind, "value": value}});
    let to = |name: &str, weight: u8| json!({"name": name, "port": 80, "weight": weight});
    let mut missing = path("Exact", "/status/404");
    missing["method"] = json!("GET");
    json!({
        "parentRefs": [{"group": "", "kind": "Service", "name": "web"}],
        "rules": [
            {
                "name": "bytes",
                "matches": [path("PathPrefix", "/bytes")],
                "backendRefs": [to("green", 1)],
            },
            {"name": "missing", "matches": [missing], "backendRefs": [to("web", 0), to("green", 1)]},
            {"name": "ok", "matches": [path("Exact", "/ok")], "backendRefs": [to("web", 1)]},
            {
                "name": "slow",
                "matches": [path("RegularExpression", "/slow/[0-9]+")],
                "timeouts": {"request": "200ms"},
            },
        ],
    })
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
