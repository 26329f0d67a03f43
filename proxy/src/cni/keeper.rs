//! `weir-proxy cni`: keeps the plugin on a node, or off it, for as long as it runs. The cluster's own network plugin may
//! write its configuration at any time, so the node is looked at again and again. Called by `main`, from a DaemonSet.
//! It knows when, and what is logged; `node` knows what there is to do.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use weir_crds::{duration, env};
use weir_process::run_to_end;

use super::node::{Aim, Look, Node};
use crate::log::{self, BadFilter};

/// The program that runs.
const PROGRAM: &str = "/proc/self/exe";

/// The shortest time between two looks.
const MIN_INTERVAL: Duration = Duration::from_millis(100);

const HELP: &str = "\
Runs on every node, as the DaemonSet of manifests/cni does. The node's directories are mounted as hostPath volumes: that of
its CNI plugins (/opt/cni/bin), where this program is copied to as weir-cni, and that of its network configuration
(/etc/cni/net.d), where weir-cni becomes the last plugin of the configuration in use: the first by name that ends in .conf,
.conflist or .json. Beside a configuration of one plugin, such as 10-x.conf, a list 10-x-weir-cni.conflist is written.

It ends by SIGTERM and SIGINT and leaves what is there, so that pods are redirected while it is being replaced.

Examples:
  Keep the plugin installed:
    weir-proxy cni

  Tell whether it is (0, or 1 and why), as a readiness probe does:
    weir-proxy cni --check

  Take it off the node again, and stay:
    weir-proxy cni --remove";

/// The flags of `weir-proxy cni`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = HELP, after_long_help = HELP)]
pub struct Args {
    /// Where the node's CNI plugins are mounted
    #[arg(
        long,
        value_name = "DIR",
        env = "WEIR_CNI_BIN_DIR",
        default_value = "/host/opt/cni/bin"
    )]
    pub bin_dir: PathBuf,

    /// Where the node's network configuration is mounted
    #[arg(
        long,
        value_name = "DIR",
        env = "WEIR_CNI_CONF_DIR",
        default_value = "/host/etc/cni/net.d"
    )]
    pub conf_dir: PathBuf,

    /// Take the plugin off the node instead, and see that it stays off
    #[arg(long, env = "WEIR_CNI_REMOVE", value_parser = BoolishValueParser::new())]
    pub remove: bool,

    /// How often the node is looked at; at least 100ms
    #[arg(
        long,
        value_name = "DURATION",
        env = "WEIR_CNI_INTERVAL",
        default_value = "2s",
        value_parser = interval
    )]
    pub interval: Duration,

    /// Look once and change nothing: succeed where the node is as it should be, else say why it is not
    #[arg(long)]
    pub check: bool,

    /// What is logged: a level, or levels by module such as info,weir_proxy::cni=debug
    #[arg(long, value_name = "FILTER", env = env::LOG, default_value = "info")]
    pub log_level: String,
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = duration::parse(text).map_err(|error| error.to_string())?;
    if interval < MIN_INTERVAL {
        return Err(format!("it is shorter than {MIN_INTERVAL:?}"));
    }
    Ok(interval)
}

/// Why the keeper does not run, or what a check has found.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    #[error("--log-level (WEIR_LOG): {0}")]
    Log(#[from] BadFilter),
    #[error("no runtime: {0}")]
    Runtime(#[from] io::Error),
    #[error("not as it should be: {}", .0.join("; "))]
    Check(Vec<String>),
}

impl KeeperError {
    /// Whether it was told something wrong.
    #[must_use]
    pub fn is_config(&self) -> bool {
        matches!(self, Self::Log(_))
    }
}

/// Keeps the node as it should be until SIGTERM or SIGINT, or looks at it once.
///
/// # Errors
/// When it cannot start, or a check has found something.
pub fn run(args: &Args) -> Result<(), KeeperError> {
    log::filter(&args.log_level)?;
    let node = Node {
        bin_dir: args.bin_dir.clone(),
        conf_dir: args.conf_dir.clone(),
        program: PROGRAM.into(),
        compared: None.into(),
    };
    let aim = if args.remove {
        Aim::Removed
    } else {
        Aim::Installed
    };
    if args.check {
        return check(&node.look(aim));
    }
    log::start(&args.log_level);
    let runtime = Builder::new_current_thread().enable_all().build()?;
    run_to_end(runtime, async {
        let mut terminated = signal(SignalKind::terminate())?;
        let mut interrupted = signal(SignalKind::interrupt())?;
        tokio::select! {
            never = keep(&node, aim, args.interval, say) => match never {},
            _ = terminated.recv() => Ok(()),
            _ = interrupted.recv() => Ok(()),
        }
    })
}

fn check(look: &Look) -> Result<(), KeeperError> {
    let steps = look.steps.iter().map(ToString::to_string);
    let wrong: Vec<String> = steps.chain(look.unmet.iter().cloned()).collect();
    if wrong.is_empty() {
        return Ok(());
    }
    Err(KeeperError::Check(wrong))
}

/// What there is to say of a look.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Done(String),
    Odd(String),
}

fn say(said: Said) {
    match said {
        Said::Done(text) => tracing::info!("{text}"),
        Said::Odd(text) => tracing::warn!("{text}"),
    }
}

/// Looks and does, for ever. What is in the way is told once, and again when it comes back.
async fn keep(node: &Node, aim: Aim, interval: Duration, mut say: impl FnMut(Said)) -> Infallible {
    let mut told = BTreeSet::new();
    loop {
        let found = turn(node, aim, &mut say);
        let news = found.difference(&told).cloned();
        news.map(Said::Odd).for_each(&mut say);
        told = found;
        tokio::time::sleep(interval).await;
    }
}

/// Looks and does what there is to do, as far as it gets; gives what is in the way.
fn turn(node: &Node, aim: Aim, say: &mut impl FnMut(Said)) -> BTreeSet<String> {
    let Look {
        steps,
        unmet,
        remarks,
    } = node.look(aim);
    let mut found: BTreeSet<String> = unmet.into_iter().chain(remarks).collect();
    for step in steps {
        match step.apply(&node.program) {
            Ok(true) => say(Said::Done(step.done())),
            Ok(false) => break,
            Err(error) => {
                found.insert(error.to_string());
                break;
            }
        }
    }
    found
}

#[cfg(test)]
mod tests;
