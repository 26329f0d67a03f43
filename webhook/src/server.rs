//! The TLS server: accepts connections, shakes hands with the certificate of the moment and serves a router.
//! Called by `app` and by tests. It must not know what the router answers.

use std::{io, sync::Arc, time::Duration};

use axum::Router;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use rustls::{
    ServerConfig,
    crypto::CryptoProvider,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, warn};

use crate::certificate::Serving;

/// Connections at once; further ones wait in the kernel's queue. An API server uses one or two.
pub const MAX_CONNECTIONS: usize = 512;
/// From accept to the end of the handshake.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// From the first byte of an HTTP/1 request to the end of its head.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// HTTP/2 pings find clients that went away.
pub const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// How long open requests may take once the server stops.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after a failed accept, as when descriptors run out.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

#[derive(Debug)]
struct Current(watch::Receiver<Arc<Serving>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.borrow().key.clone())
    }
}

/// TLS settings that always serve the newest certificate, over HTTP/2 or HTTP/1.1.
pub fn tls(provider: Arc<CryptoProvider>, serving: watch::Receiver<Arc<Serving>>) -> ServerConfig {
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has suites for TLS 1.2 and 1.3")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Current(serving)));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config
}

/// Serves until `stop`, then lets open requests end. Connections are tasks of `tasks`.
pub async fn serve(
    listener: TcpListener,
    tls: ServerConfig,
    router: Router,
    (tasks, stop): (TaskTracker, CancellationToken),
) {
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let slot = slots.clone().acquire_owned();
        let accepted = async {
            let slot = slot.await.expect("the semaphore is never closed");
            (slot, listener.accept().await)
        };
        let (slot, accepted) = tokio::select! {
            () = stop.cancelled() => return,
            accepted = accepted => accepted,
        };
        match accepted {
            Err(error) => {
                warn!(%error, "cannot accept a connection");
                sleep(ACCEPT_RETRY).await;
            }
            Ok((stream, peer)) => {
                let (acceptor, router, stop) = (acceptor.clone(), router.clone(), stop.clone());
                tasks.spawn(async move {
                    if let Err(error) = connection(stream, acceptor, router, stop).await {
                        debug!(%peer, %error, "connection ended");
                    }
                    drop(slot);
                });
            }
        }
    }
}

async fn connection(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    router: Router,
    stop: CancellationToken,
) -> io::Result<()> {
    let stream = timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await??;
    // What was agreed on need not be guessed from bytes, which nothing would wait for in vain.
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let builder = auto::Builder::new(TokioExecutor::new());
    let mut builder = match is_http2 {
        true => builder.http2_only(),
        false => builder.http1_only(),
    };
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE_INTERVAL);
    let connection =
        builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return ended.map_err(io::Error::other),
        () = stop.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    timeout(DRAIN_TIMEOUT, connection)
        .await?
        .map_err(io::Error::other)
}
