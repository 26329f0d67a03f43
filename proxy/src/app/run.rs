//! The life of the process: configuration, listeners, signals, end.
//!
//! Called by `main` for `weir-proxy run`; tests use `app::bind` instead.

use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::compose::{compose, follow};
use super::{App, Config, bind};
use crate::config;
use crate::control::Sources;
use crate::log::Levels;

/// Runs a proxy until SIGTERM, SIGINT or `/shutdown`, then drains; a further signal ends it at once. `levels` are those
/// that the process logs by.
pub fn run(config: config::Config, levels: Levels) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (mut config, sources) = compose(config);
    config.levels = Some(levels);
    runtime.block_on(serve(config, sources))
}

async fn serve(mut config: Config, sources: Sources) -> anyhow::Result<()> {
    let (roster, changes) = watch::channel(Arc::default());
    config.roster = Some(changes);
    let app = bind(config, sources.settings())?;
    announce(&app);
    let (signals, terminate) = mpsc::channel(2);
    let stop = CancellationToken::new();
    let tasks = TaskTracker::new();
    tasks.spawn(follow(sources.outbounds(), roster, stop.child_token()));
    tasks.spawn(sources.follow(stop.child_token()));
    let mut terminated = signal(SignalKind::terminate())?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    let stopped = stop.clone();
    tasks.spawn(async move {
        loop {
            tokio::select! {
                () = stopped.cancelled() => return,
                _ = terminated.recv() => {}
                _ = interrupted.recv() => {}
            }
            if signals.send(()).await.is_err() {
                return;
            }
        }
    });
    let served = app.serve(terminate).await;
    stop.cancel();
    tasks.close();
    tasks.wait().await;
    Ok(served?)
}

fn announce(app: &App) {
    let bound = app.bound();
    for (addr, (_, aim)) in bound.listeners.iter().zip(&app.config.listeners) {
        tracing::info!(%addr, %aim, "listens");
    }
    tracing::info!(addr = %bound.admin, workers = app.plans.len(), "serves /metrics");
}
