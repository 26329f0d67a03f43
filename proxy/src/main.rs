//! The binary: `weir-proxy run` is the proxy, `init` prepares a pod for it, `wait` waits for it.

use std::process::ExitCode;

use clap::Parser;
use weir_proxy::config::{self, EXIT_USAGE, RunArgs};
use weir_proxy::{app, init, wait};

/// A proxy that forwards a pod's traffic untouched and publishes what it saw.
#[derive(Parser)]
#[command(name = "weir-proxy", version, propagate_version = true)]
enum Cli {
    /// Forward, measure and expose
    Run(Box<RunArgs>),
    /// Redirect this pod's traffic to the proxy for as long as the proxy is alive (needs NET_ADMIN)
    Init(init::Args),
    /// Wait until this pod's proxy serves: the hook that holds up what is started after it
    Wait(wait::Args),
}

fn main() -> ExitCode {
    match Cli::try_parse() {
        Ok(Cli::Run(args)) => run(*args),
        Ok(Cli::Init(args)) => {
            app::log("info");
            match init::run(&args) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => fail(&error, if error.is_config() { EXIT_USAGE } else { 1 }),
            }
        }
        Ok(Cli::Wait(args)) => match wait::run(&args) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error, 1),
        },
        // Help and version are errors of clap's too, but not the user's.
        Err(error) => {
            let status = if error.use_stderr() { EXIT_USAGE } else { 0 };
            let printed = error.print();
            printed.map_or(ExitCode::FAILURE, |()| ExitCode::from(status))
        }
    }
}

fn run(args: RunArgs) -> ExitCode {
    let config = match config::load(args, |name| std::env::var(name).ok()) {
        Ok(config) => config,
        Err(problems) => return fail(&problems, EXIT_USAGE),
    };
    app::log(&config.log);
    match app::run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("{error:#}"), 1),
    }
}

fn fail(error: &dyn std::fmt::Display, status: u8) -> ExitCode {
    eprintln!("weir-proxy: {error}");
    ExitCode::from(status)
}
