//! TrafficPermissions as the Kuma page has them, between two services and two clients: who is let in by which, what
//! becomes of the others, and how both are counted.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use weir_e2e::app::Report;
use weir_e2e::cluster::pod::name;
use weir_e2e::cluster::{Story, Workload, eventually};

use crate::beside_others;

/// Requests, or connections, that are counted at a time.
const COUNT: usize = 10;
/// How long a permission may take to be in force.
const IN_FORCE: Duration = Duration::from_secs(20);

/// What became of [`COUNT`] tries, and what the server's proxy counted of them.
#[derive(Debug, PartialEq)]
struct Outcome {
    succeeded: usize,
    /// Let in, by the permission that was expected.
    allowed: f64,
    denied: f64,
    /// What the application has seen of it.
    seen: usize,
}

const ALL: Outcome = Outcome {
    succeeded: COUNT,
    allowed: COUNT as f64,
    denied: 0.0,
    seen: COUNT,
};
const NONE: Outcome = Outcome {
    succeeded: 0,
    allowed: 0.0,
    denied: COUNT as f64,
    seen: 0,
};

#[tokio::test]
async fn who_may_connect_is_let_in_and_nobody_else() -> anyhow::Result<()> {
    beside_others("permissions", async |story| {
        story.mesh("STRICT", "24h").await?;
        start_all(story).await?;
        let everyone = format!("allow-all-{}", story.namespace);
        for from in ["voter", "stranger"] {
            for to in [&HTTP, &TCP] {
                is(story, from, to, &everyone, &ALL).await?;
            }
        }

        // More specific ones hide the general one, each for its own destination.
        let voter = story.service_of("voter").await?;
        let web = story.service_of("web").await?;
        let voter_to_web = story.permit("voter-to-web", &voter, &web).await?;
        refused(story, "stranger", &HTTP).await?;
        let report = Report::parse(&tries(story, "stranger", &HTTP, 1).await?);
        let failure = report.and_then(|report| report.first_failure);
        ensure!(failure.as_deref() == Some("403 Forbidden"), "{failure:?}");
        is(story, "stranger", &HTTP, &voter_to_web, &NONE).await?;
        is(story, "voter", &HTTP, &voter_to_web, &ALL).await?;
        is(story, "stranger", &TCP, &everyone, &ALL).await?;

        let echo = story.service_of("echo").await?;
        let voter_to_echo = story.permit("voter-to-echo", &voter, &echo).await?;
        refused(story, "stranger", &TCP).await?;
        is(story, "stranger", &TCP, &voter_to_echo, &NONE).await?;
        is(story, "voter", &TCP, &voter_to_echo, &ALL).await?;

        // Without them the general one is in force again; without that, nobody may connect.
        story.forbid(&voter_to_web).await?;
        eventually("the general one again", IN_FORCE, async || {
            let report = Report::parse(&tries(story, "stranger", &HTTP, 1).await?);
            ensure!(
                report.as_ref().is_some_and(|one| one.succeeded == 1),
                "{report:?}"
            );
            Ok(())
        })
        .await?;
        is(story, "stranger", &HTTP, &everyone, &ALL).await?;
        story.forbid(&everyone).await?;
        refused(story, "voter", &HTTP).await?;
        is(story, "voter", &HTTP, &everyone, &NONE).await
    })
    .await
}

/// A destination, and the families that count it.
struct Destination {
    pod: &'static str,
    allow: &'static str,
    deny: &'static str,
    /// How a line of its log begins for each try.
    line: &'static str,
}

const HTTP: Destination = Destination {
    pod: "web",
    allow: "inbound_http_authz_allow_total",
    deny: "inbound_http_authz_deny_total",
    line: "GET /ok",
};
const TCP: Destination = Destination {
    pod: "echo",
    allow: "inbound_tcp_authz_allow_total",
    deny: "inbound_tcp_authz_deny_total",
    line: "connection from",
};

async fn start_all(story: &Story) -> anyhow::Result<()> {
    for account in ["voter", "stranger"] {
        story.account(account).await?;
    }
    let idle = |name| Workload::new(name, &["sleep", "600"]).account(name);
    let web = Workload::new("web", &["web"]);
    let echo = Workload::new("echo", &["server-first"]);
    story.create(&web.service(8080)).await?;
    story.create(&echo.service(9001)).await?;
    let pods = [web, echo, idle("voter"), idle("stranger")];
    let pods = pods.map(|workload| workload.mesh(&story.namespace).pod());
    for pod in &pods {
        story.create(pod).await?;
    }
    for pod in &pods {
        story.ready(name(pod)).await?;
        story.certified(&[name(pod)]).await?;
    }
    Ok(())
}

/// What a client prints of so many tries.
async fn tries(
    story: &Story,
    from: &str,
    to: &Destination,
    count: usize,
) -> anyhow::Result<String> {
    let count = count.to_string();
    let http = ["bot", "http://web/ok", "--requests", &count];
    let tcp = ["greeted", "echo:80", "--count", &count];
    let args: &[&str] = if to.pod == HTTP.pod { &http } else { &tcp };
    story.run_in(from, args).await
}

/// Waits until a client is refused.
async fn refused(story: &Story, from: &str, to: &Destination) -> anyhow::Result<()> {
    eventually(&format!("{from} is refused"), IN_FORCE, async || {
        let report = Report::parse(&tries(story, from, to, 1).await?);
        ensure!(
            report.as_ref().is_some_and(|one| one.failed == 1),
            "{report:?}"
        );
        Ok(())
    })
    .await
}

/// What comes of [`COUNT`] tries, under a permission.
async fn is(
    story: &Story,
    from: &str,
    to: &Destination,
    permission: &str,
    expected: &Outcome,
) -> anyhow::Result<()> {
    let id = story.identity(from);
    let before = counts(story, to, &id, permission).await?;
    let printed = tries(story, from, to, COUNT).await?;
    let report = Report::parse(&printed).with_context(|| format!("no report in {printed}"))?;
    eventually(&format!("{from} to {}", to.pod), IN_FORCE, async || {
        let after = counts(story, to, &id, permission).await?;
        let outcome = Outcome {
            succeeded: report.succeeded,
            allowed: after.0 - before.0,
            denied: after.1 - before.1,
            seen: after.2 - before.2,
        };
        ensure!(
            outcome == *expected,
            "{outcome:?} instead of {expected:?}: {report:?}"
        );
        Ok(())
    })
    .await
}

/// What the server's proxy has counted of a client, allowed by a permission and denied, and what came to the application.
async fn counts(
    story: &Story,
    to: &Destination,
    client: &str,
    permission: &str,
) -> anyhow::Result<(f64, f64, usize)> {
    let scrape = story.scrape(to.pod).await?;
    let peer = [
        ("direction", "inbound"),
        ("tls", "true"),
        ("client_id", client),
    ];
    let by = [
        ("authz_group", "kuma.io"),
        ("authz_kind", "trafficpermission"),
        ("authz_name", permission),
    ];
    let allowed = scrape.sum(to.allow, &[peer.as_slice(), &by].concat());
    let denied = scrape.sum(to.deny, &peer);
    let log = story.log(to.pod, "app").await?;
    let seen = log.lines().filter(|line| line.starts_with(to.line)).count();
    Ok((allowed, denied, seen))
}
