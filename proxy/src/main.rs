//! The binary: `weir-proxy run` is the proxy, `weir-proxy init` prepares a pod for it,
//! `weir-proxy plan` tells what a metrics policy saves.

use std::process::ExitCode;

use clap::Parser;
use weir_proxy::config::{self, EXIT_USAGE, RunArgs};
use weir_proxy::{app, init, plan};

/// A proxy that forwards a pod's traffic untouched and publishes what it saw.
#[derive(Parser)]
#[command(name = "weir-proxy", version, propagate_version = true)]
enum Cli {
    /// Forward, measure and expose
    Run(Box<RunArgs>),
    /// Redirect this pod's traffic to the proxy for as long as the proxy is alive (needs NET_ADMIN)
    Init(init::Args),
    /// Tell what a metrics policy would save of an exposition
    Plan(plan::Args),
}

fn main() -> ExitCode {
    match Cli::try_parse() {
        Ok(Cli::Run(args)) => run(*args),
        Ok(Cli::Init(args)) => {
            app::log("info");
            let done = init::run(&args);
            done.map_or_else(|e| fail(&e, e.is_config()), |()| ExitCode::SUCCESS)
        }
        Ok(Cli::Plan(args)) => {
            let table = plan::run(&args).inspect(|table| print!("{table}"));
            table.map_or_else(|e| fail(&e, e.is_config()), |_| ExitCode::SUCCESS)
        }
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
        Err(problems) => return fail(&problems, true),
    };
    app::log(&config.log);
    match app::run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("{error:#}"), false),
    }
}

fn fail(error: &dyn std::fmt::Display, wrong_input: bool) -> ExitCode {
    eprintln!("weir-proxy: {error}");
    ExitCode::from(if wrong_input { EXIT_USAGE } else { 1 })
}
