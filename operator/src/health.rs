//! Serves `/live`, `/ready` and `/metrics`. Bound and spawned by `app`; every task that must be
//! through its start before the replica is ready holds a [`Pending`], and what may be lost later is
//! followed. It knows no task.

use std::collections::BTreeSet;
use std::future::IntoFuture;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use weir_process::exposition;

use crate::metrics::Metrics;

/// Pause after a failed accept, as when descriptors run out.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// What the replica still waits for.
#[derive(Clone, Debug)]
pub struct Readiness(Arc<watch::Sender<BTreeSet<&'static str>>>);

/// Holds readiness back until it is dropped.
#[derive(Debug)]
pub struct Pending {
    name: &'static str,
    readiness: Readiness,
}

impl Default for Readiness {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(BTreeSet::new())))
    }
}

impl Readiness {
    /// Waits for `name` until the returned guard is dropped.
    #[must_use]
    pub fn register(&self, name: &'static str) -> Pending {
        self.0.send_modify(|names| {
            names.insert(name);
        });
        Pending {
            name,
            readiness: self.clone(),
        }
    }

    /// Waits for `name` whenever `is_well` is false, until its sender is gone.
    pub(crate) async fn follow(self, name: &'static str, mut is_well: watch::Receiver<bool>) {
        while is_well.wait_for(|is_well| !is_well).await.is_ok() {
            let _pending = self.register(name);
            if is_well.wait_for(|is_well| *is_well).await.is_err() {
                return;
            }
        }
    }

    /// The names that are still waited for; empty means ready.
    #[must_use]
    pub fn waiting_for(&self) -> Vec<&'static str> {
        self.0.borrow().iter().copied().collect()
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.readiness.0.send_modify(|names| {
            names.remove(self.name);
        });
    }
}

/// The next connection, once a slot is free for it; it has the slot for as long as the permit is kept.
pub(crate) async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> (OwnedSemaphorePermit, TcpStream, SocketAddr) {
    let slot = slots.clone().acquire_owned().await;
    let slot = slot.expect("the semaphore is never closed");
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => return (slot, stream, peer),
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

/// Opens the port: on the given address, or else on every address of both families, or of IPv4
/// where the host has no IPv6.
///
/// # Errors
/// When the port cannot be had.
pub(crate) async fn bind(address: Option<SocketAddr>, port: u16) -> std::io::Result<TcpListener> {
    if let Some(address) = address {
        return TcpListener::bind(address).await;
    }
    match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
        Ok(listener) => Ok(listener),
        Err(_) => TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await,
    }
}

/// Serves until `stop`.
pub(crate) async fn serve(
    listener: TcpListener,
    readiness: Readiness,
    metrics: Metrics,
    stop: CancellationToken,
) {
    let router = Router::new()
        .route("/live", get(async || "live\n"))
        .route("/ready", get(ready))
        .with_state(readiness)
        .merge(
            Router::new()
                .route("/metrics", get(print_metrics))
                .with_state(metrics),
        );
    let server = axum::serve(listener, router);
    tokio::select! {
        () = stop.cancelled() => {}
        served = server.into_future() => if let Err(error) = served {
            tracing::error!(%error, "the health server ended");
        }
    }
}

async fn ready(State(readiness): State<Readiness>) -> (StatusCode, String) {
    let waiting = readiness.waiting_for();
    if waiting.is_empty() {
        (StatusCode::OK, "ready\n".to_owned())
    } else {
        let text = format!("waiting for: {}\n", waiting.join(", "));
        (StatusCode::SERVICE_UNAVAILABLE, text)
    }
}

async fn print_metrics(State(metrics): State<Metrics>, headers: HeaderMap) -> impl IntoResponse {
    let accept = headers.get_all(header::ACCEPT).iter();
    let accept = accept.filter_map(|value| value.to_str().ok());
    let (kind, text) = exposition::negotiated(accept, metrics.render());
    ([(header::CONTENT_TYPE, kind)], text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ready_says_what_it_waits_for() {
        let readiness = Readiness::default();
        let first = readiness.register("meshes");
        let second = readiness.register("webhooks");
        let (status, text) = ready(State(readiness.clone())).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(text, "waiting for: meshes, webhooks\n");
        drop(first);
        assert_eq!(readiness.waiting_for(), ["webhooks"]);
        drop(second);
        let (status, _) = ready(State(readiness)).await;
        assert_eq!(status, StatusCode::OK);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_lost_later_is_waited_for_until_it_is_back() {
        let (readiness, well) = (Readiness::default(), watch::Sender::new(true));
        let following = readiness.clone().follow("it", well.subscribe());
        let following = tokio::spawn(following);
        for (is_well, waiting) in [(true, vec![]), (false, vec!["it"]), (true, vec![])] {
            well.send_replace(is_well);
            // Paused time moves on once every task waits.
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            assert_eq!(readiness.waiting_for(), waiting);
        }
        drop(well);
        following.await.unwrap();
    }

    #[tokio::test]
    async fn a_given_address_is_used_and_none_means_all() {
        let given = bind(Some(([127, 0, 0, 1], 0).into()), 8080).await.unwrap();
        assert_eq!(given.local_addr().unwrap().ip(), Ipv4Addr::LOCALHOST);
        let all = bind(None, 0).await.unwrap();
        assert!(all.local_addr().unwrap().ip().is_unspecified());
    }

    #[tokio::test]
    async fn the_format_of_the_metrics_is_negotiated() {
        for (accept, kind) in [
            (None, exposition::CLASSIC),
            (
                Some("application/openmetrics-text"),
                exposition::OPENMETRICS,
            ),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(accept) = accept {
                headers.insert(header::ACCEPT, accept.parse().unwrap());
            }
            let answer = print_metrics(State(Metrics::default()), headers).await;
            let answer = answer.into_response();
            assert_eq!(answer.headers()[header::CONTENT_TYPE], kind, "{accept:?}");
        }
    }
}
