//! The binary: `weir-proxy run` is the proxy, `init` prepares a pod for it, `wait` waits for it, `shutdown` ends it,
//! `plan` tells what a metrics policy saves, `cni` keeps a node's CNI plugin, which this binary is, too.

mod end;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser};
use end::end;
use weir_proxy::config::{EXIT_USAGE, RunArgs};
use weir_proxy::{app, cni, init, log, plan, shutdown, wait};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

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
    /// Keep this node's CNI plugin installed, which redirects pods in the place of `init`
    Cni(cni::Args),
}

fn main() -> ExitCode {
    if let Some(served) = cni::serve() {
        return served;
    }
    let matches = Cli::command().try_get_matches();
    match matches.and_then(|matches| Ok((Cli::from_arg_matches(&matches)?, matches))) {
        Ok((Cli::Run(mut args), matches)) => {
            args.note_flags(matches.subcommand_matches("run"));
            end(app::run(*args), app::RunError::is_config)
        }
        Ok((Cli::Init(args), _)) => {
            log::start("info");
            end(init::run(&args), init::InitError::is_config)
        }
        Ok((Cli::Cni(args), _)) => end(cni::run(&args), cni::KeeperError::is_config),
        Ok((Cli::Plan(args), _)) => end(plan::run(&args), plan::Error::is_config),
        Ok((Cli::Wait(args), _)) => end(wait::run(&args), |_| false),
        Ok((Cli::Shutdown(args), _)) => end(shutdown::run(&args), |_| false),
        // Help and version are errors of clap's too, but not the user's.
        Err(error) => {
            let status = if error.use_stderr() { EXIT_USAGE } else { 0 };
            let told = error.print();
            told.map_or(ExitCode::FAILURE, |()| ExitCode::from(status))
        }
    }
}
