//! A client of `server-first` that opens an exact number of connections, several at once, and says on each what only it
//! says. Called by `app`; the stories read the report, and look for the words on the wire.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Args;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::{Report, tcp};

/// How many connections, where to and what is said on them.
#[derive(Clone, Debug, Args)]
pub struct Greeted {
    /// host:port of `server-first`
    address: String,
    #[arg(long)]
    count: usize,
    /// Connections open at once
    #[arg(long, default_value_t = 20)]
    parallel: usize,
    /// How what is said begins; the number of the connection follows
    #[arg(long, default_value = "hello")]
    marker: String,
    /// How long one connection may take
    #[arg(long, default_value_t = 5000)]
    timeout_ms: u64,
}

/// What the connection of this number says: a marker, its number in as many digits as `capture` looks for.
pub(super) fn words(marker: &str, number: usize) -> String {
    format!("{marker}-{number:04};")
}

/// Opens the connections and prints the report.
pub(super) async fn run(greeted: &Greeted) -> anyhow::Result<()> {
    let room = Arc::new(Semaphore::new(greeted.parallel.max(1)));
    let limit = Duration::from_millis(greeted.timeout_ms);
    let mut attempts = JoinSet::new();
    for number in 0..greeted.count {
        let slot = room.clone().acquire_owned().await?;
        let (address, words) = (greeted.address.clone(), words(&greeted.marker, number));
        attempts.spawn(async move {
            let _slot = slot;
            let started = Instant::now();
            let outcome = timeout(limit, converse(&address, &words, limit)).await;
            let failure = match outcome {
                Ok(result) => result.err().map(|error| format!("{error:#}")),
                Err(_) => Some(format!("not done within {limit:?}")),
            };
            (started, failure)
        });
    }
    let report = Report::from_attempts(attempts.join_all().await);
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

/// Hears the greeting, speaks, hears it back, and is the first to close.
async fn converse(address: &str, words: &str, limit: Duration) -> anyhow::Result<()> {
    let mut stream = tcp::dial(address, limit).await?;
    let mut greeting = vec![0; tcp::GREETING.len()];
    let heard = stream.read_exact(&mut greeting).await;
    heard.context("no greeting")?;
    ensure!(
        greeting == tcp::GREETING,
        "greeted with {}",
        String::from_utf8_lossy(&greeting)
    );
    stream.write_all(words.as_bytes()).await?;
    stream.shutdown().await?;
    let mut echo = String::new();
    let heard = stream.read_to_string(&mut echo).await;
    heard.context("no echo")?;
    ensure!(echo == words, "'{echo}' came back of '{words}'");
    Ok(())
}
