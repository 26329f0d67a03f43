//! The command line: `weir-proxy run` is the proxy, `weir-proxy init` prepares a pod for it.
//!
//! Called by the binary, and by the demo, whose program is also the proxy.

use std::io::IsTerminal;
use std::process::ExitCode;

use crate::config::{self, EXIT_USAGE, RunArgs};
use crate::{app, init};
use clap::{Parser, Subcommand};

/// A proxy that forwards a pod's traffic untouched and publishes what it saw.
#[derive(Parser)]
#[command(name = "weir-proxy", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Forward, measure and expose
    Run(Box<RunArgs>),
    /// Redirect this pod's traffic to the proxy for as long as the proxy is alive (needs NET_ADMIN)
    Init(init::Args),
}

/// Does what the arguments of this process say, until that is done.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // Help and version are errors of clap's too, but not the user's.
        Err(error) => {
            let status = if error.use_stderr() { EXIT_USAGE } else { 0 };
            return error
                .print()
                .map_or(ExitCode::FAILURE, |()| ExitCode::from(status));
        }
    };
    match cli.command {
        Command::Run(args) => run(*args),
        Command::Init(args) => {
            log("info");
            match init::run(&args) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => fail(&error, if error.is_config() { EXIT_USAGE } else { 1 }),
            }
        }
    }
}

fn run(args: RunArgs) -> ExitCode {
    let config = match config::load(args, |name| std::env::var(name).ok()) {
        Ok(config) => config,
        Err(problems) => return fail(&problems, EXIT_USAGE),
    };
    log(&config.log);
    match app::run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("{error:#}"), 1),
    }
}

fn log(filter: &str) {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(filter))
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
}

fn fail(error: &dyn std::fmt::Display, status: u8) -> ExitCode {
    eprintln!("weir-proxy: {error}");
    ExitCode::from(status)
}
