//! A bot that sends an exact number of requests at a steady rate and reports what became of them.
//! Called by `app`; the stories read its `Report`, which is the last line it prints.

use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use futures::future::try_join_all;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::{client, tcp};

/// How many requests, where to and how.
#[derive(Clone, Debug, Args)]
pub struct Bot {
    /// http://host:port/path
    url: String,
    #[arg(long)]
    requests: usize,
    /// Requests a second
    #[arg(long, default_value_t = 50)]
    rate: u32,
    /// Send them all over connections that stay, one after the other on each, instead of one connection each
    #[arg(long)]
    keep_alive: bool,
    /// The same with HTTP/2
    #[arg(long, conflicts_with = "keep_alive")]
    http2: bool,
    /// How many connections stay; the rate is shared among them
    #[arg(long, default_value_t = 1, requires = "keep_alive")]
    connections: u32,
    /// How long one request may take, from its connection on
    #[arg(long, default_value_t = 1000)]
    timeout_ms: u64,
    /// Stay this long after the report, to be scraped
    #[arg(long, default_value_t = 0)]
    linger_seconds: u64,
}

impl Bot {
    /// How long one request may take.
    fn limit(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }
}

/// When a request was started, and why it failed, if it did.
type Attempt = (Instant, Option<String>);

/// What became of the requests.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub sent: usize,
    /// Answered with a success.
    pub succeeded: usize,
    /// Answered otherwise, or not at all in time.
    pub failed: usize,
    /// From the start of the first failed request to the start of the last one, in milliseconds;
    /// absent when none failed.
    pub outage_ms: Option<u64>,
    /// How many requests were started after the last failed one, and so succeeded.
    pub after_outage: usize,
    /// The first failure, in words.
    pub first_failure: Option<String>,
}

impl Report {
    /// The report a bot printed into its log, if it is there.
    pub fn parse(log: &str) -> Option<Self> {
        log.lines()
            .rev()
            .find_map(|line| serde_json::from_str(line).ok())
    }

    /// Sums up attempts, each by when it was started and what it failed with.
    pub(super) fn from_attempts(mut attempts: Vec<Attempt>) -> Self {
        attempts.sort_by_key(|(started, _)| *started);
        let failures: Vec<usize> = (0..attempts.len())
            .filter(|&index| attempts[index].1.is_some())
            .collect();
        let mut report = Self {
            sent: attempts.len(),
            succeeded: attempts.len() - failures.len(),
            failed: failures.len(),
            ..Self::default()
        };
        if let (Some(&first), Some(&last)) = (failures.first(), failures.last()) {
            let outage = attempts[last].0 - attempts[first].0;
            report.outage_ms = Some(u64::try_from(outage.as_millis()).unwrap_or(u64::MAX));
            report.after_outage = attempts.len() - 1 - last;
            report.first_failure.clone_from(&attempts[first].1);
        }
        report
    }
}

/// Sends the requests, prints the report, lingers.
pub(super) async fn run(bot: &Bot) -> anyhow::Result<()> {
    let attempts = if bot.keep_alive {
        connections_that_stay(bot).await?
    } else if bot.http2 {
        one_http2_connection(bot).await?
    } else {
        a_connection_each(bot).await?
    };
    println!(
        "{}",
        serde_json::to_string(&Report::from_attempts(attempts))?
    );
    tokio::time::sleep(Duration::from_secs(bot.linger_seconds)).await;
    Ok(())
}

async fn a_connection_each(bot: &Bot) -> anyhow::Result<Vec<Attempt>> {
    let mut ticks = ticks(bot);
    let mut attempts = JoinSet::new();
    for _ in 0..bot.requests {
        ticks.tick().await;
        let (url, limit) = (bot.url.clone(), bot.limit());
        attempts.spawn(async move {
            let started = Instant::now();
            let failure = match client::fetch(&url, limit).await {
                Ok((status, _)) if status.is_success() => None,
                Ok((status, _)) => Some(status.to_string()),
                Err(error) => Some(format!("{error:#}")),
            };
            (started, failure)
        });
    }
    Ok(attempts.join_all().await)
}

async fn connections_that_stay(bot: &Bot) -> anyhow::Result<Vec<Attempt>> {
    let connections = bot.connections.max(1);
    let share = Bot {
        requests: bot.requests / usize::try_from(connections)?,
        ..bot.clone()
    };
    let attempts = try_join_all((0..connections).map(|_| one_connection(&share))).await?;
    Ok(attempts.into_iter().flatten().collect())
}

async fn one_connection(bot: &Bot) -> anyhow::Result<Vec<Attempt>> {
    let (address, host, path) = client::target(&bot.url)?;
    let stream = tcp::dial(&address, bot.limit()).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let attempts = one_after_the_other(bot, async || {
        let request = Request::get(path.clone()).header("host", &host);
        let request = request.body(Empty::<Bytes>::new())?;
        sender.ready().await?;
        succeeds(sender.send_request(request).await?).await
    });
    let attempts = attempts.await;
    drop(sender);
    connection.await?.context("the connection broke")?;
    Ok(attempts)
}

/// The same with HTTP/2, with prior knowledge.
async fn one_http2_connection(bot: &Bot) -> anyhow::Result<Vec<Attempt>> {
    let (address, _, _) = client::target(&bot.url)?;
    let stream = TokioIo::new(tcp::dial(&address, bot.limit()).await?);
    let handshake = http2::handshake(TokioExecutor::new(), stream);
    let (mut sender, connection) = handshake.await?;
    let connection = tokio::spawn(connection);
    let attempts = one_after_the_other(bot, async || {
        let request = Request::get(&bot.url).body(Empty::<Bytes>::new())?;
        sender.ready().await?;
        succeeds(sender.send_request(request).await?).await
    });
    let attempts = attempts.await;
    drop(sender);
    connection.await?.context("the connection broke")?;
    Ok(attempts)
}

/// Asks at the rate of the bot, each time once the last has its answer.
async fn one_after_the_other(
    bot: &Bot,
    mut ask: impl AsyncFnMut() -> anyhow::Result<()>,
) -> Vec<Attempt> {
    let limit = bot.limit();
    let mut ticks = ticks(bot);
    let mut attempts = Vec::with_capacity(bot.requests);
    for _ in 0..bot.requests {
        ticks.tick().await;
        let started = Instant::now();
        let failure = match timeout(limit, ask()).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(format!("{error:#}")),
            Err(_) => Some(format!("no answer within {limit:?}")),
        };
        attempts.push((started, failure));
    }
    attempts
}

async fn succeeds(response: Response<Incoming>) -> anyhow::Result<()> {
    let status = response.status();
    response.into_body().collect().await?;
    anyhow::ensure!(status.is_success(), "{status}");
    Ok(())
}

fn ticks(bot: &Bot) -> tokio::time::Interval {
    let share = Duration::from_secs(1) * bot.connections.max(1);
    let mut ticks = interval(share / bot.rate.max(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempts(failures: &[bool]) -> Vec<Attempt> {
        let start = Instant::now();
        (0u64..)
            .zip(failures)
            .map(|(index, failed)| {
                let started = start + Duration::from_millis(100 * index);
                (started, failed.then(|| format!("failure {index}")))
            })
            .collect()
    }

    #[test]
    fn an_outage_lasts_from_the_first_failure_to_the_last() {
        let report = Report::from_attempts(attempts(&[false, true, false, true, false, false]));
        assert_eq!((report.sent, report.succeeded, report.failed), (6, 4, 2));
        assert_eq!(report.outage_ms, Some(200));
        assert_eq!(report.after_outage, 2);
        assert_eq!(report.first_failure.as_deref(), Some("failure 1"));
    }

    #[test]
    fn without_a_failure_there_is_no_outage() {
        let report = Report::from_attempts(attempts(&[false, false]));
        assert_eq!(report.outage_ms, None);
    }

    #[test]
    fn the_report_is_found_behind_other_lines() {
        let report = Report::from_attempts(attempts(&[false]));
        let line = serde_json::to_string(&report).unwrap();
        assert_eq!(
            Report::parse(&format!("connection: gone\n{line}\n")),
            Some(report)
        );
        assert_eq!(Report::parse("connection: gone\n"), None);
    }
}
