//! `cargo demo`. The program is also the proxy: started under the name of `weir-proxy` it is what
//! `weir-proxy run` is, so that the demo runs real processes from one build. What it shows is in
//! `weir_e2e::demo`.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use rustix::process::{Signal, set_parent_process_death_signal};
use weir_e2e::demo::{self, Options};
use weir_proxy::app;
use weir_proxy::config::RunArgs;

#[derive(Parser)]
enum Proxy {
    Run(Box<RunArgs>),
}

fn main() -> ExitCode {
    let name = std::env::args_os().next();
    let is_proxy = name.is_some_and(|name| Path::new(&name).ends_with(demo::PROGRAM));
    let (name, result) = match is_proxy {
        true => (demo::PROGRAM, proxy(Proxy::parse())),
        false => ("demo", demonstrate(Options::parse())),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A proxy, which ends with the demo even where that is killed.
fn proxy(Proxy::Run(args): Proxy) -> anyhow::Result<()> {
    set_parent_process_death_signal(Some(Signal::TERM))
        .context("cannot ask to end with the demo")?;
    Ok(app::run(*args)?)
}

fn demonstrate(options: Options) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(demo::run(options))
}
