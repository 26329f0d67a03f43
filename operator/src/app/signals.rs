//! Runs an operator until the process is signalled. Called by `main`.

use std::net::SocketAddr;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// SIGTERM and SIGINT, heard from now on.
#[derive(Debug)]
pub struct Signals {
    terminated: Signal,
    interrupted: Signal,
}

impl Signals {
    /// Hears them.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn heard() -> std::io::Result<Self> {
        Ok(Self {
            terminated: signal(SignalKind::terminate())?,
            interrupted: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminated.recv() => {}
            _ = self.interrupted.recv() => {}
        }
    }

    /// Runs until a signal, and then until it has ended; a second signal does not wait.
    pub async fn run<F: Future<Output = ()>>(
        mut self,
        (http, grpc): (SocketAddr, SocketAddr),
        run: impl FnOnce(CancellationToken) -> F,
    ) {
        tracing::info!(%http, %grpc, version = env!("CARGO_PKG_VERSION"), "started");
        let shutdown = CancellationToken::new();
        let running = run(shutdown.clone());
        let signalled = async {
            self.next().await;
            shutdown.cancel();
            self.next().await;
        };
        tokio::select! { () = running => {}, () = signalled => {} }
    }
}
