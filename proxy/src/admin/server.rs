//! Serves a `Site` over HTTP/1, in plain text or in the mesh's TLS, on the connections it is given: the 4191 listener and the metrics endpoint both
//! stand on it. It bounds how many connections there are and how long each may idle, dawdle or block, and knows
//! nothing of what is served.

use super::Limits;
use super::activity::{Activity, Observed};
use super::body::Body;
use super::socket::{Client, Identities, Socket, enter};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

/// The connection is to be closed without any answer.
#[derive(Debug, thiserror::Error)]
#[error("closed without an answer")]
pub(super) struct Unanswered;

/// What is served: one answer for one request of the client.
pub(super) trait Site: Clone + Send + Sync + 'static {
    fn answer(
        &self,
        request: Request<Incoming>,
        client: &Client,
    ) -> impl Future<Output = Result<Response<Body>, Unanswered>> + Send;
}

/// One site and the connections to it.
#[derive(Debug)]
pub(super) struct Server<S> {
    site: S,
    identities: Identities,
    limits: Limits,
    tracker: TaskTracker,
    open: Vec<Arc<Activity>>,
}

impl<S: Site> Server<S> {
    /// Of a site that is reached in plain text, and by the TLS of these identities.
    pub(super) fn new(
        site: S,
        identities: Identities,
        limits: Limits,
        tracker: TaskTracker,
    ) -> Self {
        Self {
            site,
            identities,
            limits,
            tracker,
            open: Vec::new(),
        }
    }

    /// Serves `stream` until it ends or `close` is cancelled. When all places are taken, the connection that
    /// has been idle longest makes room, or else the one that has taken longest for the head of its request: a kubelet's
    /// probe never fails because scrapers keep theirs alive, or somebody dawdles.
    pub(super) fn admit(&mut self, stream: TcpStream, peer: SocketAddr, close: CancellationToken) {
        self.open.retain(|activity| !activity.is_over());
        if self.open.len() >= self.limits.connections {
            let waiting = self
                .open
                .iter()
                .filter(|activity| !activity.close.is_cancelled())
                .filter_map(|activity| Some((activity.waiting()?, activity)))
                .min_by_key(|(waiting, _)| *waiting);
            let Some((_, waiting)) = waiting else {
                warn!(%peer, limit = self.limits.connections, "refused a connection: too many are open");
                return;
            };
            waiting.close.cancel();
        }
        let activity = Activity::new(close);
        self.open.push(Arc::clone(&activity));
        let (site, limits, identities) = (
            self.site.clone(),
            self.limits.clone(),
            self.identities.clone(),
        );
        self.tracker.spawn(async move {
            let _over = Over(Arc::clone(&activity));
            let entered = tokio::select! {
                () = activity.close.cancelled() => return,
                entered = enter((stream, peer), &identities, &limits) => entered,
            };
            let (socket, client) = match entered {
                Ok(entered) => entered,
                Err(error) => return debug!(%peer, %error, "a connection is not served"),
            };
            if let Err(error) = serve(socket, (site, client), limits, activity).await {
                debug!(%peer, %error, "connection ended");
            }
        });
    }
}

/// Marks the activity as over however the connection's task ends.
struct Over(Arc<Activity>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.end();
    }
}

async fn serve<S: Site>(
    socket: Socket,
    (site, client): (S, Client),
    limits: Limits,
    activity: Arc<Activity>,
) -> hyper::Result<()> {
    let service = service_fn(|request| {
        let answering = activity.answer();
        let answer = site.answer(request, &client);
        async move { Ok::<_, Unanswered>(answer.await?.map(|body| body.held_by(answering))) }
    });
    // hyper's own header timer also runs between two requests and would close a scraper's connection.
    let mut connection = pin!(
        http1::Builder::new()
            .header_read_timeout(None)
            .max_buf_size(limits.head_size)
            .serve_connection(
                TokioIo::new(Observed::new(socket, Arc::clone(&activity))),
                service
            )
    );
    let mut expiry = pin!(sleep_until(Instant::now() + limits.idle_timeout));
    let mut closing = pin!(activity.close.cancelled());
    let mut close_seen = false;
    poll_fn(|cx| {
        if !close_seen && closing.as_mut().poll(cx).is_ready() {
            close_seen = true;
            connection.as_mut().graceful_shutdown();
        }
        if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
            return Poll::Ready(ended);
        }
        // hyper waits for the first request of a connection even then.
        if close_seen && activity.waiting().is_some() {
            return Poll::Ready(Ok(()));
        }
        let Some(deadline) = activity.deadline(&limits) else {
            return Poll::Pending;
        };
        if expiry.deadline() != deadline {
            expiry.as_mut().reset(deadline);
        }
        expiry.as_mut().poll(cx).map(Ok)
    })
    .await
}
