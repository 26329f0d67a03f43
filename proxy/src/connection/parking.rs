//! The servers that one client has left, and may need again: a few, for as long as each is good and would be dialed in the
//! same way. `follow` parks them and takes them back. It must not know requests.

use std::collections::VecDeque;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::follow::set_of;
use crate::endpoints::EndpointSet;
use crate::forward::Connected;
use crate::forward::relay::Idle;
use crate::mesh::Mesh;
use crate::record::Side;
use crate::routes::Branch;
use crate::telemetry::Tls;

/// Most servers that are kept open for one client beside the one that it has. Default: 4; one more closes the one that was
/// left first.
const MOST_PARKED: usize = 4;

/// How often they are looked at while their client is served. Default: 5 s: one that has closed, or has left its service,
/// is not kept much longer than that.
const ROUND: Duration = Duration::from_secs(5);

pub(super) struct Parking<'a> {
    home: &'a Rc<EndpointSet>,
    mesh: &'a Mesh,
    /// The longest that one is kept which is not needed.
    idle: Duration,
    parked: VecDeque<Parked>,
}

/// A server that was left, and may be needed again.
struct Parked {
    branch: Option<Branch>,
    idle: Idle,
    tls: Tls,
    since: Instant,
}

impl<'a> Parking<'a> {
    /// None yet, of the client of a service, and for at most `idle`.
    pub(super) fn new((home, mesh): (&'a Rc<EndpointSet>, &'a Mesh), idle: Duration) -> Self {
        Self {
            home,
            mesh,
            idle,
            parked: VecDeque::with_capacity(MOST_PARKED),
        }
    }

    /// Keeps a server of these backends.
    pub(super) fn park(&mut self, branch: Option<Branch>, (idle, tls): (Idle, Tls)) {
        if self.parked.len() == MOST_PARKED {
            self.parked.pop_front();
        }
        self.parked.push_back(Parked {
            branch,
            idle,
            tls,
            since: Instant::now(),
        });
    }

    /// The server of these backends that was left last. Those that are not good any more are closed.
    pub(super) fn take(&mut self, branch: Option<&Branch>) -> Option<(Connected, Side)> {
        self.look();
        let is_of = |one: &Parked| one.branch.as_ref() == branch;
        let at = self.parked.iter().rposition(is_of)?;
        self.parked.remove(at).map(Parked::open)
    }

    /// What `serving` answers; until then those that are not good any more are closed.
    pub(super) async fn watch<T>(&mut self, serving: impl Future<Output = T>) -> T {
        let mut serving = pin!(serving);
        while !self.parked.is_empty() {
            match timeout(ROUND, serving.as_mut()).await {
                Ok(served) => return served,
                Err(_round) => self.look(),
            }
        }
        serving.await
    }

    fn look(&mut self) {
        let (home, mesh, idle) = (self.home, self.mesh, self.idle);
        self.parked
            .retain(|one| one.since.elapsed() < idle && one.is_good(home, mesh));
    }
}

impl Parked {
    /// Whether it has neither closed nor left its service since, and would be dialed as it was.
    fn is_good(&self, home: &Rc<EndpointSet>, mesh: &Mesh) -> bool {
        let Some(claim) = &self.idle.claim else {
            return false;
        };
        let set = set_of(home, self.branch.as_ref());
        let way = mesh.way_to(claim.addr, claim.identity.as_ref());
        set.has(claim) && way.tls() == self.tls && self.idle.stream.is_quiet()
    }

    fn open(self) -> (Connected, Side) {
        let Idle {
            stream,
            claim,
            dialed,
        } = self.idle;
        let connected = Connected {
            stream,
            tls: self.tls,
            claim,
            took: Duration::ZERO,
            hop: None,
        };
        (connected, dialed)
    }
}

#[cfg(test)]
mod tests;
