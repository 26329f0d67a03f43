//! The end of a connection whose peer is known and may not connect: who speaks HTTP is told so, 403 or PERMISSION_DENIED,
//! anybody else is closed on. Nothing is dialed.

use std::io;
use std::time::Instant;

use super::refuse::refuse;
use super::{Routed, first_head, ledger, session};
use crate::buffer::Flow;
use crate::detect::wait::hear;
use crate::forward::reset;
use crate::http1::reply::Reply;
use crate::permission::Verdict;
use crate::session::Session;
use crate::worker::Worker;

/// Refuses a connection, in its own protocol where that has words for it.
pub(super) async fn deny(worker: &Worker, mut routed: Box<Routed>) {
    let client = (&mut routed.stream, std::mem::take(&mut routed.first));
    let heard = match hear(client, &worker.config.detect, &worker.pool).await {
        Ok(heard) => heard,
        Err(error) => {
            routed.book.tcp_judged();
            return routed.close(Some(&error));
        }
    };
    let mut up = heard.up;
    routed.accepted.read(up.pending().len());
    let Some(mut session) = session(heard.verdict, || ledger(&routed)) else {
        up.clear();
        up.release(&worker.pool);
        return cut(routed);
    };
    match first_head(worker, &mut routed, &mut up, &mut session).await {
        Ok(Some(begun)) => tell(worker, routed, (session, up), begun).await,
        Ok(None) => routed.close(None),
        Err(error) => routed.close(Some(&error)),
    }
}

/// Tells a client that speaks HTTP, of which that much is read.
pub(super) async fn tell(
    worker: &Worker,
    routed: Box<Routed>,
    (mut session, mut up): (Session, Flow),
    begun: Instant,
) {
    session.request_bytes(up.pending(), begun);
    up.clear();
    up.release(&worker.pool);
    refuse(worker, routed, session, Reply::Denied).await;
}

/// Closes on a connection that has no words for it.
pub(super) fn cut(mut routed: Box<Routed>) {
    routed.book.standing.judge(&Verdict::Denied);
    routed.book.tcp_judged();
    reset(routed.stream.tcp());
    let denied = io::Error::from(io::ErrorKind::PermissionDenied);
    routed.close(Some(&denied));
}
