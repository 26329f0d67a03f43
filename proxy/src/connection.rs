//! The life of one accepted connection, stage by stage: route, enter, detect, forward, record.
//!
//! `accept` spawns one per connection on its worker. Each stage takes a plain struct and
//! hands on a richer one; this file is only their order. Which endpoint a connection goes to
//! is known once one has accepted it: what is counted under its labels is counted then.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tokio::net::TcpStream;
use weir_crds::identity::Identity;
use weir_crds::settings::MtlsMode;

use crate::accept::Target;
use crate::activity::Busy;
use crate::buffer::Flow;
use crate::detect::wait::{Detected, Dialing, wait};
use crate::detect::{Verdict, resembles_http1};
use crate::endpoints::Beside;
use crate::forward::{Destination, tune};
use crate::permission::Permit;
use crate::record::{Book, HttpLedger, Side};
use crate::session::Session;
use crate::stream::Stream;
use crate::telemetry::Direction;
use crate::terminate::{self, Incoming, Service};
use crate::worker::Worker;

mod admit;
mod deny;
mod enter;
mod follow;
mod late;
mod learn;
mod open;
mod parking;
mod refuse;
mod route;

use admit::admit;
use deny::{cut, deny};
use enter::{Entered, enter, enter_late, is_mesh_hello};
use follow::{go_on, set_out};
use learn::{learn, speaks_first};
use open::{open_http, open_opaque};
use refuse::{answer, leave};
use route::route;

/// A connection as `accept` hands it over: accepted, allowed, its target known.
#[derive(Debug)]
pub struct Accepted {
    pub stream: TcpStream,
    pub target: Target,
}

/// A connection that knows where it goes and what it is counted under.
struct Routed {
    stream: Stream,
    /// What was read of it.
    first: Flow,
    to: Destination,
    /// Where the request was that is sent again.
    beside: Option<Beside>,
    book: Book,
    accepted: Side,
    /// Of the connection that detection has opened.
    dialed: Option<Side>,
    busy: Busy,
    /// Of a client of the application, and who that is.
    permit: Option<Permit>,
    /// The address that it has dialed.
    hop: Option<SocketAddr>,
    peer: Option<Arc<Identity>>,
}

/// Serves one connection to its end.
pub async fn serve(worker: Rc<Worker>, accepted: Accepted) {
    let Accepted { stream, target } = accepted;
    tune(&stream, &worker.config.forward);
    let hop = target.hop();
    let (to, book) = route(&worker, target);
    let is_inbound = book.subject.direction() == Direction::Inbound;
    let entered = if is_inbound && worker.dialer.mesh.mode() != MtlsMode::Disabled {
        // Boxed, because connections without TLS would have to have the room for it.
        Box::pin(enter(&worker, &book, (stream, Flow::default()))).await
    } else {
        Some(Entered::plain(stream))
    };
    if let Some(entered) = entered {
        pass(worker, entered, (to, book, hop)).await;
    }
}

/// The stages of a connection whose client is known.
async fn pass(
    worker: Rc<Worker>,
    entered: Entered,
    known: (Destination, Book, Option<SocketAddr>),
) {
    let was_silent = entered.was_silent;
    let Some(mut routed) = admit(&worker, entered, known).await else {
        return;
    };
    let dial_now = speaks_first(&worker, &routed.to);
    let (mut permit, peer) = (routed.permit.take(), routed.peer.clone());
    let waited = tokio::select! {
        biased;
        waited = detect(&worker, &mut routed, dial_now) => waited,
        () = lost(&mut permit, peer.as_deref()) => return cut(routed),
    };
    routed.permit = permit;
    // Boxed like `routed`: each stage that hands them on would have to have the room for them.
    let mut detected = match waited {
        Ok(detected) => Box::new(detected),
        Err(error) => {
            routed.book.tcp_judged();
            return routed.close(Some(&error));
        }
    };
    if was_silent && is_mesh_hello(&worker, &detected) {
        return Box::pin(enter_late(worker, routed, detected)).await;
    }
    if routed.is_denied() {
        routed.first = std::mem::take(&mut detected.up);
        return Box::pin(deny(&worker, routed)).await;
    }
    let is_closed = routed.permit.as_ref().is_some_and(Permit::is_closed);
    if is_closed && detected.verdict == Verdict::Opaque && resembles_http1(detected.up.pending()) {
        // A port that lets in what there is a route for lets in nothing that an application could take for a request.
        detected.verdict = Verdict::Http1;
    }
    // Until here nobody has said anything that its end could break.
    routed.busy.set(true);
    routed.accepted.read(detected.up.pending().len());
    learn(&worker, &routed, &detected, dial_now);
    if detected.verdict == Verdict::Http2
        && let Some(service) = terminated(&worker, &routed)
    {
        return Box::pin(by_stream(&worker, service, routed, detected)).await;
    }
    match session(detected.verdict, || ledger(&routed)) {
        None => open_opaque(&worker, routed, detected).await,
        Some(mut session) => {
            match first_head(&worker, &mut routed, &mut detected.up, &mut session).await {
                Ok(Some(begun)) => {
                    let home = set_out(&mut routed, &mut detected, (&mut session, begun));
                    let left = open_http(&worker, routed, detected, (session, begun)).await;
                    if let Some((home, left)) = home.zip(left) {
                        // Boxed, because connections that never come here would have to have the room for it.
                        Box::pin(go_on(&worker, home, left)).await;
                    }
                }
                Ok(None) => leave(routed, detected, None),
                Err(error) => leave(routed, detected, Some(error)),
            }
        }
    }
}

impl Routed {
    /// Closes its accounts; the error is how the client ended.
    fn close(self: Box<Self>, error: Option<&io::Error>) {
        if let Some(dialed) = self.dialed {
            dialed.close(error);
        }
        self.accepted.close(error);
    }
}

/// Waits until the client may not connect any more.
async fn lost(permit: &mut Option<Permit>, peer: Option<&Identity>) {
    match permit {
        Some(permit) => permit.lost(peer).await,
        None => std::future::pending().await,
    }
}

/// Detect: waits for the first bytes. A connection that is opened meanwhile is counted from
/// then on, however long nobody says anything on it.
async fn detect(worker: &Worker, routed: &mut Routed, at_once: bool) -> io::Result<Detected> {
    if matches!(&routed.to, Destination::Service(set) if set.is_opaque.get()) {
        return Ok(Detected::unread(std::mem::take(&mut routed.first)));
    }
    let (book, dialed) = (&routed.book, &mut routed.dialed);
    let dialing = Dialing {
        target: &routed.to,
        dialer: &worker.dialer,
        at_once,
        opened: &mut |connected| {
            let mut settled = book.clone();
            let dst = connected.claim.as_ref().map(|claim| claim.dst.clone());
            settled.settle(dst, connected.tls.clone());
            *dialed = Some(settled.dialed(Instant::now()));
        },
    };
    let client = (&mut routed.stream, std::mem::take(&mut routed.first));
    wait(client, dialing, &worker.config.detect, &worker.pool).await
}

/// The session of a connection that speaks HTTP.
fn session(verdict: Verdict, ledger: impl FnOnce() -> HttpLedger) -> Option<Session> {
    match verdict {
        Verdict::Http1 => Some(Session::http1(ledger())),
        Verdict::Http2 => Some(Session::http2(ledger())),
        Verdict::Opaque | Verdict::NeedMore => None,
    }
}

/// The HTTP series of its connection, and the routes of where it goes. Who may not connect is told so, whatever there are
/// routes for.
fn ledger(routed: &Routed) -> HttpLedger {
    let ledger = HttpLedger::new(routed.book.clone());
    match (&routed.to, &routed.permit) {
        _ if routed.book.standing.is_denied => ledger,
        (Destination::Service(set), _) => ledger.routed(&set.routing),
        (Destination::Address(_), Some(permit)) => ledger.behind(permit.ports()),
        (Destination::Address(_), None) => ledger,
    }
}

/// Where the requests of a connection of HTTP/2 go each by itself; none where frames pass as they are. To be asked before
/// anything of it is counted as HTTP.
fn terminated(worker: &Worker, routed: &Routed) -> Option<Rc<Service>> {
    let links = &worker.links;
    match (&routed.to, &routed.permit) {
        (Destination::Service(set), _) if set.len() > 1 || set.routing.has_routes() => {
            Some(links.service(set, &routed.book))
        }
        (Destination::Address(addr), Some(permit)) if permit.is_closed() => {
            Some(links.application((*addr, routed.hop), &routed.book, permit.ports()))
        }
        _ => None,
    }
}

/// Several endpoints, or routes: each request of the connection goes to the best of them, or nowhere.
async fn by_stream(
    worker: &Worker,
    service: Rc<Service>,
    routed: Box<Routed>,
    mut detected: Box<Detected>,
) {
    let take = |flow: &mut Flow| {
        let bytes = Bytes::copy_from_slice(flow.pending());
        flow.clear();
        flow.release(&worker.pool);
        bytes
    };
    let (first, greeting) = (take(&mut detected.up), take(&mut detected.down));
    let routed = *routed;
    if let (Some(Ok(connected)), Some(dialed)) = (detected.server, routed.dialed) {
        dialed.read(greeting.len());
        service.adopt(connected, greeting, dialed);
    }
    let incoming = Incoming {
        stream: routed.stream,
        first,
        book: routed.book,
        accepted: routed.accepted,
        busy: routed.busy,
        permit: routed.permit,
    };
    terminate::serve(service, incoming).await;
}

/// Reads until the first request may be forwarded. Answers when its head was complete; none
/// when it may never go on, because the client was refused or has closed; and the error where
/// that is how the client ended. Where the head takes as long as a request line may, the
/// application is dialed without it: from there on it is the one that decides how long it
/// waits for its clients.
async fn first_head(
    worker: &Worker,
    routed: &mut Routed,
    up: &mut Flow,
    session: &mut Session,
) -> io::Result<Option<Instant>> {
    let deadline = tokio::time::Instant::now() + worker.config.detect.timeout;
    loop {
        let now = Instant::now();
        if routed.is_denied() {
            // It is not to learn what there are routes for.
            session.settle(ledger(routed));
        }
        let may_go = session.look(up.pending(), now);
        if let Some(reply) = session.refusal() {
            return answer(worker, routed, reply.bytes()).await.map(|()| None);
        }
        if may_go {
            return Ok(Some(now));
        }
        let read = up.read(&mut routed.stream, &worker.pool);
        match tokio::time::timeout_at(deadline, read).await {
            Err(_slow) => return Ok(Some(Instant::now())),
            Ok(Ok(0)) => session.client_eof(),
            Ok(Ok(n)) => routed.accepted.read(n),
            Ok(Err(gone)) => return Err(gone),
        }
        if up.pending().is_empty() {
            return Ok(None);
        }
    }
}
