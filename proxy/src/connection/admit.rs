//! The stage between knowing a client and detecting what it speaks: the permission of the port it comes to.

use std::rc::Rc;
use std::time::Instant;

use weir_crds::settings::MtlsMode;

use super::deny::deny;
use super::enter::Entered;
use super::{Routed, Worker};
use crate::forward::Destination;
use crate::permission::Verdict;
use crate::record::Book;

/// Holds a peer that is known to the permission of the port it comes to, and opens the account of its connection. None
/// for one that may not connect: it has been told.
pub(super) async fn admit(
    worker: &Rc<Worker>,
    entered: Entered,
    (to, mut book): (Destination, Book),
) -> Option<Box<Routed>> {
    let Entered {
        stream,
        first,
        tls,
        peer,
    } = entered;
    book.standing.tls = tls;
    let judged = peer.map(|peer| {
        let permissions = worker.permissions.borrow();
        permissions.judge(book.target_port, &peer.identity)
    });
    let is_denied = matches!(judged, Some(Verdict::Denied));
    if worker.dialer.mesh.mode() != MtlsMode::Disabled {
        book.standing.judged = Some(!is_denied);
    }
    if let Some(Verdict::Allowed(authz)) = judged {
        book.standing.authz = authz;
    }
    let routed = Box::new(Routed {
        stream,
        first,
        to,
        accepted: book.accepted(Instant::now()),
        book,
        dialed: None,
        busy: worker.activity.begin(),
    });
    if is_denied {
        Box::pin(deny(worker, routed)).await;
        return None;
    }
    Some(routed)
}
