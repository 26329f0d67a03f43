//! A first request that may not wait as long for a connection as the application would let it: its route has a timeout.
//! A part of the forwarding of `connection`.

use std::time::{Duration, Instant};

use super::{Routed, answer, ledger};
use crate::buffer::Flow;
use crate::exchange::End;
use crate::session::Session;
use crate::worker::Worker;

/// What `reaching` answers, unless a request that began then may not take as long.
pub(super) async fn in_time<T>(
    reaching: impl Future<Output = T>,
    patience: Option<Duration>,
    begun: Instant,
) -> Option<T> {
    match patience {
        None => Some(reaching.await),
        Some(patience) => {
            let deadline = tokio::time::Instant::from_std(begun) + patience;
            tokio::time::timeout_at(deadline, reaching).await.ok()
        }
    }
}

/// The first request has waited for a connection for as long as its route lets it wait for a response.
pub(super) async fn late(
    worker: &Worker,
    mut routed: Box<Routed>,
    up: Flow,
    (mut session, begun): (Session, Instant),
) {
    session.settle(ledger(&routed));
    session.lead_nowhere();
    session.request_bytes(up.pending(), begun);
    session.expire(Instant::now());
    let Some(reply) = session.refusal() else {
        return routed.close(None);
    };
    session.end_all(Instant::now(), End::Reset);
    let ended = answer(worker, &mut routed, reply.bytes()).await;
    routed.accepted.close(ended.as_ref().err());
}
