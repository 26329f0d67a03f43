//! A server that speaks before its client does is hardly later for two proxies in between.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use weir_e2e::cluster::pod::ip;
use weir_e2e::cluster::{Story, Workload};

use crate::alone;

#[tokio::test]
async fn a_server_that_speaks_first_is_heard_within_3_ms_of_a_direct_connection()
-> anyhow::Result<()> {
    alone("server-first", async |story| {
        let direct = first_byte(story, "direct", "disabled").await?;
        let proxied = first_byte(story, "proxied", "enabled").await?;
        println!("median until the first byte: direct {direct:?}, through two proxies {proxied:?}");
        let added = proxied.saturating_sub(direct);
        ensure!(
            added <= Duration::from_millis(3),
            "the proxies add {added:?}"
        );
        Ok(())
    })
    .await
}

/// The median between a client's connecting and the server's first byte.
async fn first_byte(story: &Story, word: &str, injection: &str) -> anyhow::Result<Duration> {
    let labelled = |name: String, args: &[&str]| {
        Workload::new(&name, args).label("kuma.io/sidecar-injection", injection)
    };
    let server = labelled(format!("{word}-server"), &["server-first"]).pod();
    let server = story.start(&server).await?;
    let address = format!("{}:9001", ip(&server));
    let client = labelled(format!("{word}-client"), &["first-byte", &address]).task();
    let output = story.output_of(&client, Duration::from_secs(60)).await?;
    let micros = output
        .trim()
        .parse()
        .with_context(|| format!("it printed '{output}'"))?;
    Ok(Duration::from_micros(micros))
}
