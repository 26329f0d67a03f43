//! The operator's process: settings, log, client, run until a signal. Everything else is
//! `weir_operator::app`'s.

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;
use weir_operator::app::{Bound, Config};
use weir_operator::config::Args;

/// The exit code for settings that cannot be used (`EX_USAGE`).
const USAGE: u8 = 64;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Nothing is left to do where even this cannot be printed.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { USAGE } else { 0 });
        }
    };
    let (filter, config) = match (EnvFilter::try_new(&args.log), args.check()) {
        (Ok(filter), Ok(config)) => (filter, config),
        (filter, config) => {
            if let Err(error) = filter {
                eprintln!("--log: {error}");
            }
            if let Err(error) = config {
                eprintln!("{error}");
            }
            return ExitCode::from(USAGE);
        }
    };
    tracing_subscriber::fmt().with_env_filter(filter).init();
    match run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn run(config: Config) -> anyhow::Result<()> {
    let (mut terminated, mut interrupted) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    let client = kube::Client::try_default()
        .await
        .context("cannot find the API server; run in a pod, or set KUBECONFIG")?;
    let bound = Bound::new(client, config).await?;
    tracing::info!(http = %bound.http, version = env!("CARGO_PKG_VERSION"), "started");
    let shutdown = CancellationToken::new();
    let running = bound.run(shutdown.clone());
    let signalled = async {
        tokio::select! { _ = terminated.recv() => {}, _ = interrupted.recv() => {} }
        shutdown.cancel();
        // A second signal does not wait.
        tokio::select! { _ = terminated.recv() => {}, _ = interrupted.recv() => {} }
    };
    tokio::select! { () = running => {}, () = signalled => {} }
    Ok(())
}
