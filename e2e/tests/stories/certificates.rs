//! Certificates that live a minute, under load: they are renewed on both sides, and then their authority is exchanged,
//! without a request that fails.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, DeleteParams};
use weir_crds::names::SYSTEM_NAMESPACE;
use weir_e2e::app::Report;
use weir_e2e::cluster::mesh::BACKEND;
use weir_e2e::cluster::{Story, Workload, eventually};

use crate::{beside_others, story_time};

/// Requests a second over connections that stay, and over one connection each: the latter need the certificates.
const STAYING: usize = 450;
const FRESH: usize = 50;
/// Connections that stay.
const CONNECTIONS: &str = "8";
/// Without another wish: one renewal before the authority is exchanged, and one after.
const BY_DEFAULT: Duration = Duration::from_secs(95);
/// A life, and how long a proxy may take until its next certificate: 70 % of one, and what a busy machine adds.
const LIFE: &str = "60s";
const RENEWED: Duration = Duration::from_secs(60);

#[tokio::test]
async fn certificates_are_renewed_and_their_authority_exchanged_under_load() -> anyhow::Result<()> {
    beside_others("certificates", async |story| {
        story.mesh("STRICT", LIFE).await?;
        let web = Workload::web("web").mesh(&story.namespace);
        let client = Workload::new("client", &["sleep", "1200"]).mesh(&story.namespace);
        story.create(&web.service(8080)).await?;
        let (web, client) = (web.pod(), client.pod());
        tokio::try_join!(story.start(&web), story.start(&client))?;
        story.certified(&["web", "client"]).await?;
        let seconds = usize::try_from(story_time(BY_DEFAULT).as_secs())?;
        let staying = ["--keep-alive", "--connections", CONNECTIONS];
        let (staying, fresh, ()) = tokio::try_join!(
            load(story, STAYING, seconds, &staying),
            load(story, FRESH, seconds, &[]),
            renew_and_exchange(story),
        )?;
        println!("over connections that stay: {staying:?}; over fresh ones: {fresh:?}");
        for (report, rate) in [(&staying, STAYING), (&fresh, FRESH)] {
            // The shares of connections are whole numbers.
            let least = rate * seconds - rate;
            ensure!(report.failed == 0 && report.sent >= least, "{report:?}");
        }
        let scrape = story.scrape("client").await?;
        let secured = scrape.sum("request_total", &[("tls", "true")]);
        let all = scrape.sum("request_total", &[]);
        ensure!(secured == all, "{secured} of {all} were secured");
        Ok(())
    })
    .await
}

async fn load(story: &Story, rate: usize, seconds: usize, more: &[&str]) -> anyhow::Result<Report> {
    let (requests, rate) = ((rate * seconds).to_string(), rate.to_string());
    let bot = [
        "bot",
        "http://web/ok",
        "--requests",
        &requests,
        "--rate",
        &rate,
    ];
    let patience = ["--timeout-ms", "5000"];
    let args = [bot.as_slice(), &patience, more].concat();
    let printed = story.run_in("client", &args).await?;
    Report::parse(&printed).with_context(|| format!("no report in {printed}"))
}

/// What the proxies say of their certificates: how many were taken, and when they end.
#[derive(Clone, Copy, Debug)]
struct Certificates {
    taken: f64,
    ends: f64,
}

async fn certificates(story: &Story, pod: &str) -> anyhow::Result<Certificates> {
    let scrape = story.scrape(pod).await?;
    Ok(Certificates {
        taken: scrape.sum("identity_cert_refresh_count", &[]),
        ends: scrape.sum("identity_cert_expiration_timestamp_seconds", &[]),
    })
}

/// Both sides take another certificate, which ends later.
async fn renewed(story: &Story, since: &[(&str, Certificates)]) -> anyhow::Result<()> {
    for (pod, before) in since {
        eventually(&format!("{pod} is renewed"), RENEWED, async || {
            let now = certificates(story, pod).await?;
            ensure!(
                now.taken > before.taken && now.ends > before.ends,
                "{now:?} after {before:?}"
            );
            Ok(())
        })
        .await?;
    }
    Ok(())
}

async fn renew_and_exchange(story: &Story) -> anyhow::Result<()> {
    let both = async || -> anyhow::Result<_> {
        Ok([
            ("web", certificates(story, "web").await?),
            ("client", certificates(story, "client").await?),
        ])
    };
    renewed(story, &both().await?).await?;
    exchange_root(story).await?;
    let since = both().await?;
    renewed(story, &since).await
}

/// Takes the root's key away and waits for the next one.
async fn exchange_root(story: &Story) -> anyhow::Result<()> {
    let secrets: Api<Secret> = Api::namespaced(story.cluster.client.clone(), SYSTEM_NAMESPACE);
    let name = |what: &str| format!("{}.ca-builtin-{what}-{BACKEND}", story.namespace);
    let (certificate, key) = (name("cert"), name("key"));
    let before = secrets.get(&certificate).await?.data;
    // A certificate is made for the key that is there, so it goes with the key.
    secrets.delete(&key, &DeleteParams::default()).await?;
    eventually("another root", Duration::from_secs(20), async || {
        let now = secrets.get(&certificate).await?.data;
        ensure!(now.is_some() && now != before, "it is the same");
        Ok(())
    })
    .await
}
