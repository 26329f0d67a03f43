//! The binary: `weir-proxy run` is the proxy, `init` prepares a pod for it, `wait` waits for it, `shutdown` ends it,
//! `plan` tells what a metrics policy saves.

use std::fmt::Display;
use std::process::ExitCode;

use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser};
use weir_proxy::config::{self, EXIT_USAGE, RunArgs};
use weir_proxy::{app, init, log, plan, shutdown, wait};

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
    /// Ask the proxy of this pod to finish what is under way and end
    Shutdown(shutdown::Args),
    /// Tell what a metrics policy would save of an exposition
    Plan(plan::Args),
}

fn main() -> ExitCode {
    let matches = Cli::command().try_get_matches();
    match matches.and_then(|matches| Ok((Cli::from_arg_matches(&matches)?, matches))) {
        Ok((Cli::Run(args), matches)) => run(*args, matches.subcommand_matches("run")),
        Ok((Cli::Init(args), _)) => {
            log::start("info");
            end(init::run(&args), |e| usage(e.is_config()))
        }
        Ok((Cli::Plan(args), _)) => {
            let table = plan::run(&args).map(|table| print!("{table}"));
            end(table, |e| usage(e.is_config()))
        }
        Ok((Cli::Wait(args), _)) => end(wait::run(&args), |_| 1),
        Ok((Cli::Shutdown(args), _)) => end(shutdown::run(&args), |_| 1),
        // Help and version are errors of clap's too, but not the user's.
        Err(error) => {
            let status = if error.use_stderr() { EXIT_USAGE } else { 0 };
            let printed = error.print();
            printed.map_or(ExitCode::FAILURE, |()| ExitCode::from(status))
        }
    }
}

fn run(mut args: RunArgs, matches: Option<&ArgMatches>) -> ExitCode {
    args.note_flags(matches);
    let config = match config::load(args, |name| std::env::var(name).ok()) {
        Ok(config) => config,
        Err(problems) => return end(Err(problems), |_| EXIT_USAGE),
    };
    let levels = log::start(&config.log);
    end(app::run(config, levels), |_| 1)
}

fn usage(is_wrong: bool) -> u8 {
    if is_wrong { EXIT_USAGE } else { 1 }
}

/// Says what went wrong, if anything did; `status` is what the process then ends with.
fn end<E: Display>(result: Result<(), E>, status: impl Fn(&E) -> u8) -> ExitCode {
    let Err(error) = result else {
        return ExitCode::SUCCESS;
    };
    eprintln!("weir-proxy: {error:#}");
    ExitCode::from(status(&error))
}
