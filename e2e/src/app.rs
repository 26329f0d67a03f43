//! The application of the stories, by role: servers for HTTP and plain TCP, a bot that sends an exact
//! number of requests, clients that end with what they found, and two that look at packets. Called by
//! `weir-app`; it must not know that a proxy is near it.

mod bot;
mod capture;
mod client;
mod delay;
mod gate;
mod greeted;
mod identity;
mod tcp;
mod web;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use clap::Subcommand;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

pub use bot::{Bot, Report};
pub use capture::Sight;
pub use greeted::Greeted;

/// How the line begins in which `web` says when it began to listen.
const STARTED: &str = "listening since ";

/// What the program is, and the settings of that.
#[derive(Debug, Subcommand)]
pub enum Role {
    /// Serve HTTP/1 and HTTP/2 (prior knowledge):
    /// /ok /status/N /bytes/N /slow/MS /echo /upgrade /metrics /metrics/FAMILY
    Web {
        #[arg(long, default_value_t = 8080)]
        port: u16,
        /// Serve only after POST /open on this port, and until POST /close
        #[arg(long)]
        gate: Option<u16>,
    },
    /// Send back what comes, until the client closes its half
    TcpEcho {
        #[arg(long, default_value_t = 9000)]
        port: u16,
    },
    /// Greet each client before it speaks, then send back what comes
    ServerFirst {
        #[arg(long, default_value_t = 9001)]
        port: u16,
    },
    /// Send requests and print a report of them as one line of JSON
    Bot(Bot),
    /// Open connections to `server-first` and print a report of them as one line of JSON
    Greeted(Greeted),
    /// Print, whenever it changes, which markers of `greeted` pass this network in the clear
    Capture {
        #[arg(long = "marker")]
        markers: Vec<String>,
    },
    /// Hold the packets that a firewall's rule hands to this queue
    Delay {
        #[arg(long, default_value_t = 7)]
        queue: u16,
        #[arg(long)]
        milliseconds: u64,
    },
    /// Print the answer to one GET; fail unless it is a success
    Get {
        url: String,
        #[arg(long, default_value_t = 5)]
        timeout_seconds: u64,
    },
    /// Connect, wait for the peer to close or speak, print what happened, and stay a while
    TcpConnect {
        address: String,
        #[arg(long, default_value_t = 5)]
        timeout_seconds: u64,
        #[arg(long, default_value_t = 0)]
        linger_seconds: u64,
    },
    /// Send bytes as they are to an address and print the answer up to its end
    Raw {
        address: String,
        /// The bytes, with \r, \n and \\ written so
        bytes: String,
        /// Close the sending half behind them
        #[arg(long)]
        half_close: bool,
        #[arg(long, default_value_t = 5)]
        timeout_seconds: u64,
    },
    /// Print the median time, in microseconds, until a server that speaks first was heard
    FirstByte {
        address: String,
        #[arg(long, default_value_t = 51)]
        count: usize,
    },
    /// Send every shape of traffic through `web`, `tcp-echo` and `server-first`, and fail on any change
    Identity {
        /// host:port of `web`
        web: String,
        /// host:port of `tcp-echo`
        echo: String,
        /// host:port of `server-first`
        greeter: String,
    },
    /// Do nothing for a while
    Sleep { seconds: u64 },
}

/// Plays the role to its end, or until SIGTERM (the first process of a container has no default for it).
pub async fn run(role: Role) -> anyhow::Result<()> {
    let mut terminated = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    tokio::select! {
        result = play(role) => result,
        _ = terminated.recv() => Ok(()),
    }
}

async fn play(role: Role) -> anyhow::Result<()> {
    match role {
        Role::Web { port, gate: None } => {
            let listener = listen(port).await?;
            println!("{STARTED}{}", millis(SystemTime::now())?);
            web::serve(listener).await
        }
        Role::Web {
            port,
            gate: Some(gate),
        } => gate::serve(listen(gate).await?, port).await,
        Role::TcpEcho { port } => tcp::echo(listen(port).await?, b"").await,
        Role::ServerFirst { port } => tcp::echo(listen(port).await?, tcp::GREETING).await,
        Role::Bot(bot) => bot::run(&bot).await,
        Role::Greeted(greeted) => greeted::run(&greeted).await,
        Role::Capture { markers } => on_a_thread(move || capture::run(&markers)).await,
        Role::Delay {
            queue,
            milliseconds,
        } => {
            let hold = Duration::from_millis(milliseconds);
            on_a_thread(move || delay::run(queue, hold)).await
        }
        Role::Get {
            url,
            timeout_seconds,
        } => client::get(&url, Duration::from_secs(timeout_seconds)).await,
        Role::TcpConnect {
            address,
            timeout_seconds,
            linger_seconds,
        } => {
            tcp::connect(&address, Duration::from_secs(timeout_seconds)).await;
            sleep(linger_seconds).await
        }
        Role::Raw {
            address,
            bytes,
            half_close,
            timeout_seconds,
        } => {
            let limit = Duration::from_secs(timeout_seconds);
            tcp::raw(&address, &bytes, half_close, limit).await
        }
        Role::FirstByte { address, count } => tcp::first_byte(&address, count).await,
        Role::Identity { web, echo, greeter } => identity::check(&web, &echo, &greeter).await,
        Role::Sleep { seconds } => sleep(seconds).await,
    }
}

/// Does what waits in the system on a thread of its own, which ends with the process.
async fn on_a_thread(
    work: impl FnOnce() -> anyhow::Result<()> + Send + 'static,
) -> anyhow::Result<()> {
    let (tell, told) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || tell.send(work()));
    told.await.context("it panicked")?
}

/// Milliseconds since the Unix epoch.
fn millis(time: SystemTime) -> anyhow::Result<u128> {
    Ok(time.duration_since(SystemTime::UNIX_EPOCH)?.as_millis())
}

/// When `web` began to listen, in milliseconds since the Unix epoch, by its log.
pub fn started_at(log: &str) -> Option<u128> {
    let line = log.lines().find_map(|line| line.strip_prefix(STARTED))?;
    line.parse().ok()
}

async fn sleep(seconds: u64) -> anyhow::Result<()> {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    Ok(())
}

async fn listen(port: u16) -> anyhow::Result<TcpListener> {
    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}"))
}
