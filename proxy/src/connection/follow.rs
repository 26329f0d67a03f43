//! A client whose requests go to one server after the other: where its session leaves one, another is found. Servers that
//! may be needed again are kept open, a few of them. Around the stage that forwards HTTP, which is called for each.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::{Routed, open_http};
use crate::buffer::Flow;
use crate::detect::Verdict;
use crate::detect::wait::Detected;
use crate::endpoints::EndpointSet;
use crate::forward::relay::{Idle, Left};
use crate::forward::{Connected, Destination};
use crate::record::Side;
use crate::routes::Branch;
use crate::session::{Leave, Session};
use crate::telemetry::Tls;
use crate::worker::Worker;

/// Most servers that are kept open for one client beside the one that it has. Default: 4; one more closes the one that was
/// left first.
const MOST_PARKED: usize = 4;

/// A server that was left, and may be needed again.
struct Parked {
    branch: Option<Branch>,
    idle: Idle,
    tls: Tls,
}

impl Parked {
    /// Whether it has neither closed nor left the set since.
    fn is_good(&self, set: &EndpointSet) -> bool {
        let claim = self.idle.claim.as_ref();
        let is_there = claim.is_some_and(|claim| set.holds(claim.addr, &claim.dst));
        is_there && self.idle.stream.is_quiet()
    }
}

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
    let mut parked = VecDeque::with_capacity(MOST_PARKED);
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
            Leave::Elsewhere => take(&mut parked, branch.as_ref(), &set),
            // An endpoint is chosen anew.
            Leave::Again => None,
        };
        let beside = at.filter(|_| leave == Leave::Again);
        if let (Some(idle), Some(tls)) = (server, book.standing.tls.clone()) {
            let branch = here;
            park(&mut parked, Parked { branch, idle, tls });
        }
        if known.is_some() {
            session.met_before();
        }
        let (connected, dialed) = known.map(open).unzip();
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
            peer: None,
        });
        let detected = Box::new(Detected {
            verdict: Verdict::Http1,
            server: connected.map(Ok),
            ..Detected::unread(up)
        });
        match open_http(worker, routed, detected, (session, begun)).await {
            Some(next) => left = next,
            None => return,
        }
    }
}

/// The endpoints of a branch. What nobody has told of is where all other requests go.
fn set_of(home: &Rc<EndpointSet>, branch: Option<&Branch>) -> Rc<EndpointSet> {
    let set = branch.and_then(|branch| home.branch(branch));
    set.unwrap_or_else(|| Rc::clone(home))
}

fn park(parked: &mut VecDeque<Parked>, one: Parked) {
    if parked.len() == MOST_PARKED {
        parked.pop_front();
    }
    parked.push_back(one);
}

/// The server of a branch that was left last and is still good. Those that are not are closed.
fn take(
    parked: &mut VecDeque<Parked>,
    branch: Option<&Branch>,
    set: &EndpointSet,
) -> Option<Parked> {
    parked.retain(|one| one.branch.as_ref() != branch || one.is_good(set));
    let at = parked.iter().rposition(|one| one.branch.as_ref() == branch);
    parked.remove(at?)
}

fn open(parked: Parked) -> (Connected, Side) {
    let Idle {
        stream,
        claim,
        dialed,
    } = parked.idle;
    let connected = Connected {
        stream,
        tls: parked.tls,
        claim,
        took: Duration::ZERO,
    };
    (connected, dialed)
}
