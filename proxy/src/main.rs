//! The binary: `weir-proxy run` is the proxy, `weir-proxy init` prepares a pod for it, `weir-proxy shutdown` ends it.

use std::process::ExitCode;

use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser};
use weir_proxy::config::{self, EXIT_USAGE, RunArgs};
use weir_proxy::{app, init, log, shutdown};

/// A proxy that forwards a pod's traffic untouched and publishes what it saw.
#[derive(Parser)]
#[command(name = "weir-proxy", version, propagate_version = true)]
enum Cli {
    /// Forward, measure and expose
    Run(Box<RunArgs>),
    /// Redirect this pod's traffic to the proxy for as long as the proxy is alive (needs NET_ADMIN)
    Init(init::Args),
    /// Ask the proxy of this pod to finish what is under way and end
    Shutdown(shutdown::Args),
}

fn main() -> ExitCode {
    let matches = Cli::command().try_get_matches();
    match matches.and_then(|matches| Ok((Cli::from_arg_matches(&matches)?, matches))) {
        Ok((Cli::Run(args), matches)) => run(*args, matches.subcommand_matches("run")),
        Ok((Cli::Init(args), _)) => {
            log::start("info");
            match init::run(&args) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => fail(&error, if error.is_config() { EXIT_USAGE } else { 1 }),
            }
        }
        Ok((Cli::Shutdown(args), _)) => match shutdown::run(&args) {
            Ok(answer) => {
                println!("{answer}");
                ExitCode::SUCCESS
            }
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

fn run(mut args: RunArgs, matches: Option<&ArgMatches>) -> ExitCode {
    args.note_flags(matches);
    let config = match config::load(args, |name| std::env::var(name).ok()) {
        Ok(config) => config,
        Err(problems) => return fail(&problems, EXIT_USAGE),
    };
    let levels = log::start(&config.log);
    match app::run(config, levels) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("{error:#}"), 1),
    }
}

fn fail(error: &dyn std::fmt::Display, status: u8) -> ExitCode {
    eprintln!("weir-proxy: {error}");
    ExitCode::from(status)
}
