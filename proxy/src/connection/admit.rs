//! The stage between knowing a client and detecting what it speaks: the permission of the port it comes to.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use super::deny::deny;
use super::enter::Entered;
use super::{Routed, Worker};
use crate::forward::Destination;
use crate::record::Book;
use crate::telemetry::Direction;

/// Holds a peer that is known to the permission of the port it comes to, and opens the account of its connection. None
/// for one that may not connect: it has been told.
pub(super) async fn admit(
    worker: &Rc<Worker>,
    entered: Entered,
    (to, mut book, hop): (Destination, Book, Option<SocketAddr>),
) -> Option<Box<Routed>> {
    let Entered {
        stream,
        first,
        tls,
        peer,
        was_silent: _,
    } = entered;
    book.standing.tls = tls;
    let is_inbound = book.subject.direction() == Direction::Inbound;
    let mut routed = Box::new(Routed {
        stream,
        first,
        to,
        beside: None,
        accepted: book.accepted(Instant::now()),
        permit: is_inbound.then(|| worker.gate.permit(book.target_port)),
        hop,
        peer: peer.map(|peer| peer.identity),
        book,
        dialed: None,
        busy: worker.activity.begin(),
    });
    if routed.is_denied() {
        Box::pin(deny(worker, routed)).await;
        return None;
    }
    Some(routed)
}

impl Routed {
    /// Whether the client may not connect, by what is in force now.
    pub(super) fn is_denied(&mut self) -> bool {
        if let Some(permit) = self.permit.as_mut().filter(|permit| permit.is_stale()) {
            let verdict = permit.judge(self.peer.as_deref());
            self.book.standing.judge(&verdict);
        }
        self.book.standing.is_denied
    }
}
