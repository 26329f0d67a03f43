//! The operator's process: settings, log, client, run until a signal. Everything else is
//! `weir_operator::app`'s.

use std::io::IsTerminal;
use std::process::ExitCode;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use weir_operator::app::{Bound, Config};
use weir_operator::config;

fn main() -> ExitCode {
    let (filter, config) = match config::read() {
        Ok(read) => read,
        Err(code) => return code,
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stdout().is_terminal())
        .init();
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
    tracing::info!(http = %bound.http, grpc = %bound.grpc, version = env!("CARGO_PKG_VERSION"), "started");
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
