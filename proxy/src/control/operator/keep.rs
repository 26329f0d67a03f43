//! Keeps the connection to the operator: makes one, watches over it until it ends, and makes another. A task of the
//! service thread, started by `app`.

use std::io;
use std::pin::Pin;
use std::sync::Arc;

use h2::{Ping, PingPong};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::connect::{Link, connect};
use super::{Config, Pause, Slot};

/// The one who keeps the connection.
pub struct Connection {
    config: Config,
    slot: watch::Sender<Slot>,
    /// Told by a call that the connection takes no new ones.
    refused: Arc<Notify>,
    /// A connection that takes no new calls and still has old ones.
    leaving: JoinSet<()>,
}

impl Connection {
    pub(super) fn new(config: Config, slot: watch::Sender<Slot>, refused: Arc<Notify>) -> Self {
        Self {
            config,
            slot,
            refused,
            leaving: JoinSet::new(),
        }
    }

    /// Keeps it until `stop`.
    pub async fn keep(mut self, stop: CancellationToken) {
        stop.run_until_cancelled(self.keep_on()).await;
    }

    async fn keep_on(&mut self) {
        let addr = self.config.target.addr();
        let mut pause = Pause::new(self.config.retry);
        let mut is_told = false;
        loop {
            match connect(&self.config).await {
                Ok((sender, link)) => {
                    is_told = false;
                    tracing::info!(addr, "connected to the operator");
                    let since = Instant::now();
                    self.slot.send_replace(Some(sender));
                    let why = self.serve(link).await;
                    self.slot.send_replace(None);
                    tracing::info!(addr, why, "the connection to the operator is over");
                    if since.elapsed() > self.config.retry.max {
                        pause.reset();
                    }
                }
                Err(error) if !std::mem::replace(&mut is_told, true) => {
                    tracing::warn!(%error, "the operator cannot be reached; what it last said stands");
                }
                Err(error) => tracing::debug!(%error, "the operator cannot be reached"),
            }
            sleep(pause.take()).await;
        }
    }

    /// Drives a connection until it is of no use any more; answers why.
    async fn serve(&mut self, link: Link) -> String {
        let mut driven = Box::pin(drive(link, self.config.clone()));
        let ended = tokio::select! {
            ended = &mut driven => Some(ended),
            () = self.refused.notified() => None,
        };
        match ended {
            Some(Ok(())) => "the operator has closed it".to_owned(),
            Some(Err(error)) => error.to_string(),
            None => {
                self.leave(driven);
                "the operator takes no more calls on it".to_owned()
            }
        }
    }

    /// Lets the calls of a connection go on for a while, those of the one before no longer.
    fn leave(&mut self, driven: Pin<Box<impl Future<Output = io::Result<()>> + Send + 'static>>) {
        let linger = self.config.linger;
        self.leaving.abort_all();
        while self.leaving.try_join_next().is_some() {}
        self.leaving.spawn(async move {
            let ended = timeout(linger, driven).await;
            tracing::debug!(?ended, "a former connection to the operator is over");
        });
    }
}

/// Moves the frames of a connection to its end, and asks for signs of life.
async fn drive(mut link: Link, config: Config) -> io::Result<()> {
    let pings = link.ping_pong().expect("it is taken once");
    tokio::select! {
        ended = &mut link => ended.map_err(io::Error::other),
        error = ask(pings, &config) => Err(error),
    }
}

/// Pings for as long as there are answers.
async fn ask(mut pings: PingPong, config: &Config) -> io::Error {
    loop {
        sleep(config.ping_interval).await;
        match timeout(config.ping_timeout, pings.ping(Ping::opaque())).await {
            Ok(Ok(_pong)) => {}
            Ok(Err(error)) => return io::Error::other(error),
            Err(_silence) => return io::ErrorKind::TimedOut.into(),
        }
    }
}
