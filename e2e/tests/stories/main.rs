//! The stories: what Weir promises, told on a real cluster (`e2e/up`) on which it was installed by
//! `kubectl apply -k manifests`. `e2e/test --only weir,stories` runs them on the cluster that is up.
//! Most run side by side; those that measure time, or take a part of Weir away, run [`mod@alone`].

mod alone;
mod altered;
mod bad_input;
mod cannot_start;
mod certificates;
mod closed_routes;
mod destinations;
mod mutual_tls;
mod never_in_the_way;
mod permissions;
mod probes;
mod published_client;
mod routes;
mod untouched;
mod vote_bot;

use std::time::Duration;

use tokio::sync::RwLock;
use weir_e2e::cluster::{Injection, Story, tell};

/// Held for reading by stories that may run side by side, for writing by one that must be alone.
static CLUSTER: RwLock<()> = RwLock::const_new(());

/// How long the stories under load last: what each of them takes for granted, or as many seconds as
/// `WEIR_STORY_SECONDS` says, whichever is longer.
fn story_time(by_default: Duration) -> Duration {
    let wanted = std::env::var("WEIR_STORY_SECONDS").ok();
    let wanted = wanted.map(|text| {
        text.parse()
            .expect("WEIR_STORY_SECONDS is a number of seconds")
    });
    wanted
        .map(Duration::from_secs)
        .map_or(by_default, |wanted| wanted.max(by_default))
}

/// Tells a story beside others, in a namespace whose pods get the proxy.
async fn beside_others(
    name: &str,
    story: impl AsyncFnOnce(&Story) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let _shared = CLUSTER.read().await;
    tell(name, Injection::Enabled, story).await
}

/// Tells a story while no other is told, in a namespace whose pods get the proxy.
async fn alone(
    name: &str,
    story: impl AsyncFnOnce(&Story) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let _alone = CLUSTER.write().await;
    tell(name, Injection::Enabled, story).await
}
