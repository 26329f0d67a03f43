//! Open: to the server that a connection is for, and then both sockets to the relay. Where there is none, its client is told
//! or reset.

use std::time::Instant;

use super::deny::tell;
use super::late::{in_time, late};
use super::refuse::refuse;
use super::{Routed, ledger};
use crate::detect::wait::Detected;
use crate::forward::relay::{Held, Left, Pair, relay};
use crate::forward::{Connected, Failed, connect, reset};
use crate::session::Session;
use crate::telemetry::{Direction, Peer};
use crate::worker::Worker;

/// What is passed on unread.
pub(super) async fn open_opaque(
    worker: &Worker,
    mut routed: Box<Routed>,
    mut detected: Box<Detected>,
) {
    routed.book.tcp_judged();
    let pending = detected.up.pending().len();
    detected.up.approve(pending);
    let pending = detected.down.pending().len();
    detected.down.approve(pending);
    match reach(worker, &mut routed, detected.server.take()).await {
        Ok(server) => {
            if let Some(claim) = &server.claim {
                claim.observe(server.took, Instant::now());
            }
            forward(worker, routed, server, detected, None).await;
        }
        Err(Failed { error, .. }) => {
            routed.book.tcp_error(Peer::Dst, error.class());
            reset(routed.stream.tcp());
            routed.accepted.close(Some(&error.into()));
        }
    }
}

/// What its session reads. Answers what is left, where the client needs another server.
pub(super) async fn open_http(
    worker: &Worker,
    mut routed: Box<Routed>,
    mut detected: Box<Detected>,
    (mut session, begun): (Session, Instant),
) -> Option<Box<Left>> {
    if routed.is_denied() {
        session.settle(ledger(&routed));
        tell(worker, routed, (session, detected.up), begun).await;
        return None;
    }
    let reaching = reach(worker, &mut routed, detected.server.take());
    let Some(reached) = in_time(reaching, session.patience(), begun).await else {
        late(worker, routed, detected.up, (session, begun)).await;
        return None;
    };
    session.settle(ledger(&routed));
    match &reached {
        Ok(server) => session.dialed(server.hop),
        Err(_) => session.lead_nowhere(),
    }
    let n = session.request_bytes(detected.up.pending(), begun);
    detected.up.approve(n);
    match reached {
        Ok(server) => {
            // The greeting of a server that did not wait for its client.
            let n = session.response_bytes(detected.down.pending(), Instant::now());
            detected.down.approve(n);
            forward(worker, routed, server, detected, Some(session)).await
        }
        Err(Failed { error, .. }) => {
            routed.book.tcp_error(Peer::Dst, error.class());
            refuse(worker, routed, session, error.reply()).await;
            None
        }
    }
}

/// Connects, unless detection has, and enters the endpoint in the book.
async fn reach(
    worker: &Worker,
    routed: &mut Routed,
    dialed: Option<Result<Connected, Failed>>,
) -> Result<Connected, Failed> {
    let outcome = match dialed {
        Some(outcome) => outcome,
        None => connect(&routed.to, routed.beside.take(), &worker.dialer).await,
    };
    let (dst, tls) = match &outcome {
        Ok(connected) => {
            let dst = connected.claim.as_ref().map(|claim| claim.dst.clone());
            (dst, connected.tls.clone())
        }
        Err(failed) => (failed.dst.clone(), failed.tls.clone()),
    };
    routed.book.settle(dst, tls);
    outcome.inspect_err(|error| tracing::debug!(%error, "dial"))
}

/// Forward: hands both sockets and what was read so far to the relay.
fn forward(
    worker: &Worker,
    routed: Box<Routed>,
    server: Connected,
    detected: Box<Detected>,
    session: Option<Session>,
) -> impl Future<Output = Option<Box<Left>>> {
    let (routed, detected) = (*routed, *detected);
    let book = routed.book;
    let known = routed.dialed;
    let dialed = known.unwrap_or_else(|| book.dialed(Instant::now()));
    dialed.read(detected.down.pending().len() + detected.down.approved().len());
    let direction: Direction = book.subject.direction();
    let pair = Pair {
        client: routed.stream,
        server: server.stream,
        claim: server.claim,
        accepted: routed.accepted,
        dialed,
        up: detected.up,
        down: detected.down,
        session,
        direction,
        held: (routed.permit).map(|permit| Box::new(Held::new(permit, book))),
        lost: detected.lost,
    };
    relay(pair, &worker.pool, routed.busy)
}
