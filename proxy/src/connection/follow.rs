//! A client whose requests go to one server after the other: where its session leaves one, another is found. Servers that
//! may be needed again are kept open, a few of them. Around the stage that forwards HTTP, which is called for each.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use super::parking::Parking;
use super::{Routed, open_http};
use crate::buffer::Flow;
use crate::detect::Verdict;
use crate::detect::wait::Detected;
use crate::endpoints::{Beside, EndpointSet};
use crate::forward::Destination;
use crate::forward::relay::Left;
use crate::routes::Branch;
use crate::session::{Leave, Session};
use crate::worker::Worker;

/// Leads the first request to where its route says. Answers the service, where others may be led elsewhere.
pub(super) fn set_out(
    routed: &mut Routed,
    detected: &mut Detected,
    (session, begun): (&mut Session, Instant),
) -> Option<Rc<EndpointSet>> {
    let Destination::Service(set) = &routed.to else {
        return None;
    };
    let home = Rc::clone(set);
    // One that was dialed while the client was silent is left again, if it is another that is needed.
    let is_open = matches!(detected.server, Some(Ok(_)));
    if !is_open && let Some(branch) = session.set_out(begun) {
        routed.to = Destination::Service(set_of(&home, Some(&branch)));
        detected.server = None;
    }
    Some(home)
}

/// Finds one server after the other, until the client is gone or is told that there is none.
pub(super) async fn go_on(worker: &Worker, home: Rc<EndpointSet>, mut left: Box<Left>) {
    let idle = worker.config.terminate.idle;
    let mut parking = Parking::new((&home, &worker.dialer.mesh), idle);
    loop {
        let now = Instant::now();
        let Left {
            client,
            accepted,
            up,
            mut session,
            mut busy,
            server,
            at,
        } = *left;
        busy.set(true);
        let (Some(book), Some(leave)) = (session.book().cloned(), session.leave()) else {
            return;
        };
        let here = session.here().cloned();
        let branch = session.set_out(now);
        let begun = session.since().unwrap_or(now);
        let set = set_of(&home, branch.as_ref());
        let known = match leave {
            Leave::Elsewhere => parking.take(branch.as_ref()),
            // An endpoint is chosen anew.
            Leave::Again => None,
        };
        let beside = beside(leave, at, &session);
        if let (Some(idle), Some(tls)) = (server, book.standing.tls.clone()) {
            parking.park(here, (idle, tls));
        }
        if known.is_some() {
            session.met_before();
        }
        let (connected, dialed) = known.unzip();
        let routed = Box::new(Routed {
            stream: client,
            first: Flow::default(),
            to: Destination::Service(set),
            beside,
            book: book.unsettled(),
            accepted,
            dialed,
            busy,
            permit: None,
            hop: None,
            peer: None,
        });
        let detected = Box::new(Detected {
            verdict: Verdict::Http1,
            server: connected.map(Ok),
            ..Detected::unread(up)
        });
        let serving = open_http(worker, routed, detected, (session, begun));
        match parking.watch(serving).await {
            Some(next) => left = next,
            None => return,
        }
    }
}

/// Where a request goes that is sent again.
fn beside(leave: Leave, at: Option<SocketAddr>, session: &Session) -> Option<Beside> {
    (leave == Leave::Again).then(|| Beside {
        failed: at,
        refused: session.refused().to_vec(),
    })
}

/// The endpoints of a branch. What nobody has told of is where all other requests go.
pub(super) fn set_of(home: &Rc<EndpointSet>, branch: Option<&Branch>) -> Rc<EndpointSet> {
    let set = branch.and_then(|branch| home.branch(branch));
    set.unwrap_or_else(|| Rc::clone(home))
}
