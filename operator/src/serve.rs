//! The gRPC server on :8086, over TLS 1.3: takes connections and hands their calls to a set of
//! services. Bound and run by `app` and by tests; every replica serves. What is not among the
//! services answers UNIMPLEMENTED. It knows neither what a service does nor where certificates
//! come from.

mod connection;
pub mod destination;
mod ending;
pub mod identity;
pub mod settings;
pub mod streaming;
pub mod tls;
mod version;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;

use self::connection::Shared;
pub use self::version::{BACK, VersionError};
use crate::health;
use crate::metrics::server::Server as ServerMetrics;

/// Longest message that a service takes, in bytes: a certificate request is under 2 KiB, a token
/// under 4. Every service is built with it.
pub const MAX_MESSAGE: usize = 64 * 1024;

/// How much the server gives to whom.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at once; further ones wait in the kernel's queue. Default 16,384.
    pub connections: usize,
    /// Calls at once on one connection; a proxy has watches of three kinds for each of its destinations (500,
    /// at most 1,500), those of services among which requests are divided, and a handful of others. Default
    /// 6,144.
    pub streams: u32,
    /// All headers of one call, in bytes; a token is most of them. Default 16 KiB.
    pub headers: u32,
    /// From accept to the end of the handshake. Default 5 s.
    pub handshake: Duration,
    /// A connection without an open call ends after this long. Default 5 min.
    pub idle: Duration,
    /// A silent connection is asked whether it is alive this often. Default 30 s.
    pub ping: Duration,
    /// And ends where that is not answered for this long. Default 10 s.
    pub ping_answer: Duration,
    /// A connection ends after this long, give or take a tenth, so that proxies spread over the
    /// replicas there are. Default 30 min.
    pub age: Duration,
    /// What a connection that is being ended may take for the calls that are under way. Default 4 s.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 16_384,
            streams: 6_144,
            headers: 16 * 1024,
            handshake: Duration::from_secs(5),
            idle: Duration::from_mins(5),
            ping: Duration::from_secs(30),
            ping_answer: Duration::from_secs(10),
            age: Duration::from_mins(30),
            grace: Duration::from_secs(4),
        }
    }
}

/// How connections are secured.
#[derive(Clone, Debug)]
pub enum Security {
    /// TLS 1.3 with the certificate of the moment.
    Tls(Arc<rustls::ServerConfig>),
    /// None: on loopback, for tests and where the operator and its clients share a host.
    Plaintext,
}

/// Why the server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The port cannot be had.
    #[error("cannot open the gRPC port; --grpc-address chooses another: {0}")]
    Bind(#[from] std::io::Error),
    /// Tokens and settings would be readable on the way.
    #[error(
        "--grpc-plaintext: {0} is not a loopback address; choose one such as 127.0.0.1:8086 with --grpc-address, or serve with TLS"
    )]
    NotLoopback(SocketAddr),
}

/// A server with its port open that takes no connection yet.
#[derive(Debug)]
pub struct Bound {
    /// The real address.
    pub address: SocketAddr,
    listener: TcpListener,
    limits: Limits,
    open: watch::Receiver<bool>,
}

impl Bound {
    /// Opens the port; none means [`weir_crds::ports::OPERATOR_GRPC`] of every address.
    ///
    /// # Errors
    /// When it cannot be had.
    pub async fn new(address: Option<SocketAddr>, limits: Limits) -> Result<Self, ServeError> {
        let listener = health::bind(address, weir_crds::ports::OPERATOR_GRPC).await?;
        Ok(Self {
            address: listener.local_addr()?,
            listener,
            limits,
            open: watch::Sender::new(true).subscribe(),
        })
    }

    /// Serves only while `open` says so. Where it does not any more, connections end as they do at the
    /// end of the server, and new ones are hung up on.
    #[must_use]
    pub fn only_while(self, open: watch::Receiver<bool>) -> Self {
        Self { open, ..self }
    }

    /// Serves until `stop`. Then connections are told to go (GOAWAY), streams end with UNAVAILABLE,
    /// and calls that are under way have [`Limits::grace`].
    ///
    /// # Errors
    /// At once, where plaintext was asked for on an address that others reach.
    pub async fn run(
        mut self,
        services: Routes,
        security: Security,
        (metrics, stop): (ServerMetrics, CancellationToken),
    ) -> Result<(), ServeError> {
        if matches!(security, Security::Plaintext) && !self.address.ip().is_loopback() {
            return Err(ServeError::NotLoopback(self.address));
        }
        let slots = Arc::new(Semaphore::new(self.limits.connections));
        let tasks = TaskTracker::new();
        let shared = Arc::new(Shared {
            services: services.prepare().into_axum_router(),
            security,
            limits: self.limits,
            metrics,
            tasks: tasks.clone(),
        });
        // Ends the connections that there are.
        let mut ending = stop.child_token();
        loop {
            let (slot, stream, peer) = tokio::select! {
                () = stop.cancelled() => break,
                Ok(()) = self.open.changed() => {
                    if !*self.open.borrow_and_update() {
                        ending.cancel();
                        ending = stop.child_token();
                    }
                    continue;
                }
                accepted = health::accept(&self.listener, &slots) => accepted,
            };
            if !*self.open.borrow() {
                tracing::debug!(%peer, "hung up: what is known of the cluster is stale");
                continue;
            }
            let (shared, ending) = (shared.clone(), ending.clone());
            tasks.spawn(async move {
                serve((stream, peer), &shared, &ending).await;
                drop(slot);
            });
        }
        drop(self.listener);
        tasks.close();
        tasks.wait().await;
        Ok(())
    }
}

async fn serve(
    (stream, peer): (TcpStream, SocketAddr),
    shared: &Shared,
    ending: &CancellationToken,
) {
    if let Err(error) = connection::serve(stream, shared, ending).await {
        tracing::debug!(%peer, %error, "a connection ended");
    }
}
