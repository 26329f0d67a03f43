//! `cargo demo`: two services and a bot, each behind its own proxy in Universal form, and a live table
//! of what the proxies publish. Called by `bin/demo.rs`; needs no root and no cluster, listens on
//! loopback only, and leaves nothing behind.
//!
//! ```text
//! bot -> proxy -> proxy -> web -> proxy -> proxy -> voting
//!        (bot)    (web)           (web)    (voting)
//! ```

mod bot;
mod client;
mod crew;
mod documents;
mod ports;
mod proxies;
mod rates;
mod screen;
mod services;
mod stage;
mod table;

use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use tokio::signal::unix::{Signal, SignalKind, signal};

use screen::Screen;
use stage::{Program, Stage};

pub use proxies::PROGRAM;

/// What `--once` waits for when no `--duration` is given.
const ONCE: Duration = Duration::from_secs(5);

/// How the demo is run.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "demo",
    bin_name = "cargo demo",
    about = "Two services and a bot, each behind its own Weir proxy, and a live table of what the \
             proxies publish on /metrics. Needs no root and no cluster; Ctrl-C ends all of it"
)]
pub struct Options {
    /// End by itself after this many seconds
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    duration: Option<u32>,
    /// Print one table at the end, after --duration or 5 seconds, and nothing before
    #[arg(long)]
    once: bool,
    /// Write each table below the one before, as when the output is no terminal
    #[arg(long)]
    plain: bool,
    /// Requests that the bot sends a second
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rate: u32,
    /// Use this port and the 14 after it, in place of free ones
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    ports_from: Option<u16>,
}

impl Options {
    fn duration(&self) -> Option<Duration> {
        let asked = self.duration.map(|s| Duration::from_secs(s.into()));
        asked.or(self.once.then_some(ONCE))
    }
}

/// Runs the demo to its end: a signal, `--duration`, or what goes wrong.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let mut signals = Signals::new().context("cannot listen for signals")?;
    let mut stage = Stage::new(options.ports_from, Screen::stdout(options.plain))?;
    let program = Program {
        duration: options.duration(),
        silent: options.once,
        rate: options.rate,
    };
    let result = tokio::select! {
        result = stage.play(program) => result,
        () = signals.received() => Ok(()),
    };
    // A second signal ends the waiting; what is left of the proxies is killed then.
    let ended = tokio::select! {
        ended = stage.end() => ended,
        () = signals.received() => Ok(()),
    };
    match result.and(ended) {
        // `cargo demo | head` has seen enough.
        Err(error) if is_broken_pipe(&error) => Ok(()),
        result => result,
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let cause = error.downcast_ref::<std::io::Error>();
    cause.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

/// What ends the demo from outside.
struct Signals([Signal; 3]);

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self([
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        ]))
    }

    async fn received(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
