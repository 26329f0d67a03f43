//! The life of the process: configuration, listeners, signals, end.
//!
//! Called by `main` for `weir-proxy run`; tests use `app::bind` instead.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use weir_crds::settings::Settings;
use weir_process::run_to_end;

use super::compose::{compose, follow, services};
use super::{App, Config, StartError, bind, is_free};
use crate::config::{self, Problems, RunArgs};
use crate::control::Sources;
use crate::{drain, log};

/// Time between two tries of a proxy to listen that was told to do its best.
pub const RETRY: Duration = Duration::from_secs(1);

/// Why a proxy ended that was not told to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Config(#[from] Problems),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("no runtime: {0}")]
    Runtime(#[from] io::Error),
}

impl RunError {
    /// Whether it was told something wrong.
    pub fn is_config(&self) -> bool {
        matches!(self, Self::Config(_))
    }
}

/// Runs a proxy until SIGTERM, SIGINT or `/shutdown`, then drains; a second signal ends it at once.
///
/// # Errors
/// When it cannot start, unless it is to do its best, or cannot go on.
pub fn run(args: RunArgs) -> Result<(), RunError> {
    let config = config::load(args, |name| std::env::var(name).ok())?;
    let levels = log::start(&config.log);
    for problem in &config.ignored {
        tracing::error!(%problem, "ignored, as --best-effort says: the default is in force");
    }
    raise_descriptors();
    let best_effort = config.best_effort;
    let (mut config, sources) = compose(config);
    config.levels = Some(levels);
    let runtime = Builder::new_current_thread().enable_all().build()?;
    run_to_end(runtime, serve(config, sources, best_effort))
}

/// Takes as many file descriptors as the system would give: a connection through the proxy takes two, and what it
/// gives unasked is often 1024.
fn raise_descriptors() {
    let given = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: given.maximum,
        ..given
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => {
            tracing::debug!(from = ?given.current, to = ?given.maximum, "file descriptors");
        }
        Err(error) => tracing::debug!(%error, "the limit of file descriptors stays"),
    }
}

async fn serve(mut config: Config, sources: Sources, best_effort: bool) -> Result<(), RunError> {
    let (mut roster, changes) = watch::channel(Arc::default());
    config.roster = Some(changes);
    // Whoever tells of endpoints has the roster: the operator, who is told what the files say, or else the files.
    if let (Some(operator), Some(_)) = (&mut config.operator, &sources.universal) {
        let outbounds = sources.outbounds();
        let (in_files, files) = watch::channel(Arc::default());
        let told = std::mem::replace(&mut roster, in_files);
        operator.services = Some(services(&outbounds.borrow(), files, told));
    }
    let stop = CancellationToken::new();
    let tasks = TaskTracker::new();
    let mut terminate = signals(&tasks, &stop)?;
    let bound = tokio::select! {
        bound = bind_at_last(config, sources.settings(), best_effort) => bound.transpose(),
        _ = terminate.recv() => None,
    };
    let served = match bound {
        None => Ok(()),
        Some(Err(error)) => Err(error),
        Some(Ok(app)) => {
            announce(&app);
            tasks.spawn(follow(sources.outbounds(), roster, stop.child_token()));
            tasks.spawn(sources.follow(stop.child_token()));
            app.serve(terminate).await
        }
    };
    stop.cancel();
    tasks.close();
    tasks.wait().await;
    Ok(served?)
}

/// Tells of every signal that asks for the end.
fn signals(tasks: &TaskTracker, stop: &CancellationToken) -> io::Result<mpsc::Receiver<()>> {
    let (signals, terminate) = mpsc::channel(2);
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
    Ok(terminate)
}

/// Binds every listener. Where that fails and the proxy is to do its best it is tried again: traffic goes direct
/// meanwhile, because nothing beats. The admin port, where the probes of the application end, is served as soon as it can;
/// nothing is bound where it is told there to end.
async fn bind_at_last(
    config: Config,
    settings: watch::Receiver<Arc<Settings>>,
    best_effort: bool,
) -> Result<Option<App>, StartError> {
    let mut is_told = false;
    loop {
        match bind(config.clone(), settings.clone()) {
            Err(error) if best_effort => {
                if !std::mem::replace(&mut is_told, true) {
                    tracing::error!(%error, "traffic goes direct and unmeasured; tried again every {RETRY:?}");
                }
                if serve_admin(&config, &settings).await {
                    return Ok(None);
                }
            }
            bound => return bound.map(Some),
        }
    }
}

/// Serves the admin port alone, where that is possible, until it is worth another try to bind the rest. Answers whether it
/// has been told to end (`/shutdown`).
async fn serve_admin(config: &Config, settings: &watch::Receiver<Arc<Settings>>) -> bool {
    let alone = Config {
        listeners: Vec::new(),
        beats: false,
        drain: drain::Config {
            shortest: Duration::ZERO,
            ..config.drain
        },
        ..config.clone()
    };
    let app = match bind(alone, settings.clone()) {
        Ok(app) => app,
        Err(_) => {
            tokio::time::sleep(RETRY).await;
            return false;
        }
    };
    let (end, ended) = mpsc::channel(1);
    let until_free = async {
        loop {
            tokio::time::sleep(RETRY).await;
            if config.listeners.iter().all(|(addr, _)| is_free(*addr)) {
                return;
            }
        }
    };
    let mut serving = pin!(app.serve(ended));
    let served = tokio::select! {
        served = &mut serving => served.map(|()| true),
        () = until_free => {
            // There is room for one, and whoever ended meanwhile hears of none.
            let _sent = end.try_send(());
            serving.await.map(|()| false)
        }
    };
    match served {
        Ok(is_told_to_end) => is_told_to_end,
        Err(error) => {
            tracing::error!(%error, "the admin port is not served; tried again in {RETRY:?}");
            tokio::time::sleep(RETRY).await;
            false
        }
    }
}

fn announce(app: &App) {
    let bound = app.bound();
    for (addr, (_, aim)) in bound.listeners.iter().zip(&app.config.listeners) {
        tracing::info!(%addr, %aim, "listens");
    }
    tracing::info!(addr = %bound.admin, workers = app.plans.len(), "serves /metrics");
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr, TcpListener};
    use std::sync::Arc;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::sync::watch;
    use weir_crds::settings::Settings;

    use super::{RETRY, bind_at_last};
    use crate::accept::Aim;
    use crate::app::{Config, StartError};

    fn config() -> (Config, TcpListener) {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut config = Config::default();
        config.admin.addr = taken.local_addr().unwrap();
        config.admin.metrics_ip = config.admin.addr.ip();
        (config, taken)
    }

    fn settings() -> watch::Receiver<Arc<Settings>> {
        watch::channel(Arc::new(Settings::without_metrics("default"))).1
    }

    #[tokio::test(start_paused = true)]
    async fn a_port_that_is_taken_is_an_error() {
        let (config, taken) = config();
        let addr: SocketAddr = taken.local_addr().unwrap();
        let Err(StartError::Admin(error)) = bind_at_last(config, settings(), false).await else {
            panic!("it was free");
        };
        assert!(error.to_string().contains(&addr.to_string()), "{error}");
    }

    /// The configuration of a proxy whose traffic port is taken, and whose admin port is free at this moment: whoever takes
    /// that one meanwhile makes a test fail, not pass.
    fn config_with_free_admin() -> (Config, TcpListener) {
        let (mut config, taken) = config();
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        config.admin.addr = free.local_addr().unwrap();
        config.listeners = vec![(taken.local_addr().unwrap(), Aim::Inbound)];
        (config, taken)
    }

    /// What the admin port answers, once it is served.
    async fn ask(admin: SocketAddr, request: &str) -> String {
        let asking = async {
            loop {
                if let Ok(mut stream) = TcpStream::connect(admin).await {
                    stream.write_all(request.as_bytes()).await.unwrap();
                    let mut answer = String::new();
                    stream.read_to_string(&mut answer).await.unwrap();
                    break answer;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(RETRY * 20, asking).await.unwrap()
    }

    #[tokio::test]
    async fn the_admin_port_is_served_while_another_is_taken() {
        let (mut config, taken) = config_with_free_admin();
        // This one ends to make room for the whole proxy: nobody asks for it as for one that is told to end.
        config.drain.longest = RETRY * 1000;
        config.drain.shortest = RETRY * 1000;
        let (admin, wanted) = (config.admin.addr, taken.local_addr().unwrap());
        let binding = tokio::spawn(bind_at_last(config, settings(), true));
        let answer = ask(admin, "GET /live HTTP/1.0\r\n\r\n").await;
        assert!(answer.contains(" 200 "), "{answer}");
        drop(taken);
        let binding = tokio::time::timeout(RETRY * 20, binding);
        let app = binding.await.unwrap().unwrap();
        let app = app.map_err(|error| error.to_string());
        assert_eq!(app.unwrap().unwrap().bound().listeners, [wanted]);
    }

    #[tokio::test]
    async fn a_proxy_is_told_to_end_while_another_has_its_port() {
        let (config, _taken) = config_with_free_admin();
        let admin = config.admin.addr;
        let binding = tokio::spawn(bind_at_last(config, settings(), true));
        ask(
            admin,
            "POST /shutdown HTTP/1.0\r\nContent-Length: 0\r\n\r\n",
        )
        .await;
        let binding = tokio::time::timeout(RETRY * 20, binding);
        let is_bound = binding.await.unwrap().unwrap().map(|app| app.is_some());
        assert_eq!(is_bound.map_err(|error| error.to_string()), Ok(false));
    }

    #[tokio::test(start_paused = true)]
    async fn a_proxy_that_does_its_best_waits_until_the_port_is_free() {
        let (config, taken) = config();
        let addr = taken.local_addr().unwrap();
        let freed = async {
            tokio::time::sleep(RETRY * 5 / 2).await;
            drop(taken);
        };
        let start = tokio::time::Instant::now();
        let (app, ()) = tokio::join!(bind_at_last(config, settings(), true), freed);
        assert_eq!(
            app.map_err(|error| error.to_string())
                .unwrap()
                .expect("nobody ended it")
                .bound()
                .admin,
            addr
        );
        assert_eq!(start.elapsed(), RETRY * 3);
    }
}
