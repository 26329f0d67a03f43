//! Where a connection may go: the endpoints of a service, and which of them is best now.
//!
//! Built from a Dataplane file or from the operator's stream, and read by `forward`,
//! which dials what is chosen here; HTTP/2 chooses anew for every stream. Everything is
//! one worker's. It must not know sockets, and is told the time.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::routes::{Compiled, Routing};
use crate::telemetry::Dst;

mod branch;
mod claim;
mod health;
mod latency;
mod search;
mod split;

pub use branch::{Branch, MOST_BRANCHES};
pub use claim::Claim;
pub use search::{Beside, Search};
pub use split::{MOST_DESTINATIONS, Share};

use claim::State;

/// How endpoints are weighed and set aside.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Time in which what was measured of an endpoint fades to 1/e. Default: 10 s, as in
    /// Linkerd's balancers.
    pub decay: Duration,
    /// Latency that is assumed of an endpoint until the first is measured. Default: 30 ms,
    /// as in Linkerd: more than most services need, so that endpoints known to be fast are
    /// preferred to unknown ones.
    pub assumed: Duration,
    /// Latencies below this count as this. Default: 1 ms. Differences that small are noise,
    /// and open connections tell more than they do.
    pub floor: Duration,
    /// How long an endpoint that could not be connected to is set aside for the first time;
    /// each further failure doubles it. Default: 100 ms.
    pub rest_min: Duration,
    /// Longest time an endpoint is set aside. Default: 10 s.
    pub rest_max: Duration,
    /// A rest is longer by a random part of itself, at most this, so that the proxies of a
    /// service do not try an endpoint again all at once. Default: 0.2.
    pub jitter: f64,
    /// Endpoints that are tried for one connection although they are set aside, once no
    /// others are left. Default: 3, so that a dead service is not sent a connection to each
    /// of its endpoints for every client.
    pub last_resorts: usize,
    /// Workers that have a set of the same service, among which the retries a second of its budget are divided.
    /// Default: 1.
    pub workers: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            decay: Duration::from_secs(10),
            assumed: Duration::from_millis(30),
            floor: Duration::from_millis(1),
            rest_min: Duration::from_millis(100),
            rest_max: Duration::from_secs(10),
            jitter: 0.2,
            last_resorts: 3,
            workers: 1,
        }
    }
}

/// What is to be known of one service, in the form that moves between threads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// The `authority` of its connections.
    pub name: String,
    pub endpoints: Vec<Listed>,
    /// Where the requests of routes go that have backends of their own.
    pub branches: Vec<Branch>,
    /// None where its requests are not told apart.
    pub routes: Option<Arc<Compiled>>,
}

/// An endpoint as whoever discovered it lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub addr: SocketAddr,
    /// The labels it is counted under.
    pub dst: Dst,
    /// The name that its certificate must have; none where it does not speak mesh TLS.
    pub identity: Option<Arc<str>>,
    /// Its destination's part of the requests; none where they are not divided.
    pub share: Option<Share>,
}

impl Listed {
    /// One that does not speak mesh TLS.
    pub fn plain(addr: SocketAddr, dst: Dst) -> Self {
        Self {
            addr,
            dst,
            identity: None,
            share: None,
        }
    }
}

/// The services by the address at which the application reaches them.
pub type Roster = BTreeMap<SocketAddr, Service>;

/// One address of a service, with the labels it is counted under.
#[derive(Debug)]
pub struct Endpoint {
    pub addr: SocketAddr,
    pub dst: Dst,
    /// As in [`Listed`].
    pub identity: Option<Arc<str>>,
    share: Option<Share>,
    state: Rc<State>,
}

/// What the endpoints of a set have in common.
#[derive(Debug)]
struct Shared {
    config: Config,
    random: RefCell<Rng>,
    /// Endpoints that are set aside or on probation. While there is none, choosing takes
    /// the same time whatever the size of the set.
    troubled: Cell<usize>,
}

/// The endpoints of one service, as one worker sees them.
#[derive(Debug)]
pub struct EndpointSet {
    /// The service's name, the `authority` of its connections.
    pub name: Rc<str>,
    /// Whether its servers speak before their clients, as detection has learned.
    pub server_first: Cell<bool>,
    /// Whether nothing is to be read into the bytes of its connections, as discovery has said.
    pub is_opaque: Cell<bool>,
    /// Its routes, which connections ask for each of their requests.
    pub routing: Rc<Routing>,
    endpoints: RefCell<Vec<Rc<Endpoint>>>,
    branches: RefCell<Vec<branch::Known>>,
    /// Where connections go that no endpoint accepts, while nobody tells whether there are others.
    original: RefCell<Option<Rc<Endpoint>>>,
    /// Whether any of them has a share.
    is_divided: Cell<bool>,
    /// How often they were replaced.
    replaced: Cell<u64>,
    shared: Rc<Shared>,
}

impl EndpointSet {
    /// A set whose choices depend on `random` alone, and on what is measured.
    pub fn new(service: Service, config: Config, mut random: Rng, now: Instant) -> Self {
        let routing = Rc::new(Routing::new(config.workers, random.fork()));
        let set = Self::empty(service.name.as_str().into(), routing, config, random);
        set.update(&service, now);
        set
    }

    fn empty(name: Rc<str>, routing: Rc<Routing>, config: Config, random: Rng) -> Self {
        Self {
            name,
            server_first: Cell::new(false),
            is_opaque: Cell::new(false),
            routing,
            endpoints: RefCell::default(),
            branches: RefCell::default(),
            original: RefCell::default(),
            is_divided: Cell::new(false),
            replaced: Cell::new(0),
            shared: Rc::new(Shared {
                config,
                random: RefCell::new(random),
                troubled: Cell::new(0),
            }),
        }
    }

    /// Takes over what is known of its service now.
    pub fn update(&self, service: &Service, now: Instant) {
        self.branch_out(&service.branches, now);
        self.routing.replace(service.routes.as_ref(), now);
        self.replace(&service.endpoints, now);
    }

    /// Takes these endpoints instead. Of addresses that stay, everything that is known is
    /// kept: latency, open connections, rests; of one that is given twice, the first counts.
    pub fn replace(&self, endpoints: &[Listed], now: Instant) {
        self.replaced.set(self.replaced.get() + 1);
        let is_divided = endpoints.iter().any(|listed| listed.share.is_some());
        self.is_divided.set(is_divided);
        let mut current = self.endpoints.borrow_mut();
        let known: HashMap<_, _> = current.drain(..).map(|e| (e.addr, e)).collect();
        let mut seen = HashSet::with_capacity(endpoints.len());
        for listed in endpoints {
            let Listed {
                addr,
                dst,
                identity,
                share,
            } = listed;
            if !seen.insert(*addr) {
                continue;
            }
            let endpoint = match known.get(addr) {
                Some(same)
                    if same.dst == *dst && same.identity == *identity && same.share == *share =>
                {
                    Rc::clone(same)
                }
                found => {
                    let state = found.map(|e| Rc::clone(&e.state));
                    let state = state.unwrap_or_else(|| State::new(&self.shared, now));
                    Rc::new(Endpoint {
                        addr: *addr,
                        dst: dst.clone(),
                        identity: identity.clone(),
                        share: *share,
                        state,
                    })
                }
            };
            current.push(endpoint);
        }
    }

    /// Has connections go to this address once no endpoint that is not set aside accepts them, or the first has not answered
    /// in time; or no longer. It is the one that they were meant for, which whoever routes without us leads to an endpoint that is there.
    pub fn fall_back(&self, original: Option<SocketAddr>, now: Instant) {
        let mut current = self.original.borrow_mut();
        if current.as_ref().map(|endpoint| endpoint.addr) == original {
            return;
        }
        *current = original.map(|addr| {
            Rc::new(Endpoint {
                addr,
                dst: Dst::unknown(),
                identity: None,
                share: None,
                state: State::new(&self.shared, now),
            })
        });
    }

    /// The better of two random endpoints that are not set aside ("power of two choices"),
    /// claimed; none while all are, or the service has no endpoint. See [`Search`] for the
    /// choice that leads to a connection wherever there is one.
    pub fn choose(&self, now: Instant) -> Option<Claim> {
        self.choose_beside(&[], now)
    }

    /// How many endpoints may be chosen, and how many have failed and not taken a connection since.
    pub fn census(&self) -> (usize, usize) {
        let endpoints = self.endpoints.borrow();
        let set_aside = match self.shared.troubled.get() {
            0 => 0,
            _ => {
                let troubled = endpoints.iter().filter(|e| e.state.health.is_troubled());
                troubled.count()
            }
        };
        (endpoints.len() - set_aside, set_aside)
    }

    pub fn len(&self) -> usize {
        self.endpoints.borrow().len()
    }

    pub fn is_empty(&self) -> bool {
        self.endpoints.borrow().is_empty()
    }

    /// How often the endpoints were replaced: who asks again learns whether they may be others.
    pub fn replaced(&self) -> u64 {
        self.replaced.get()
    }

    /// Whether this address is among them, counted under these labels.
    pub fn holds(&self, addr: SocketAddr, dst: &Dst) -> bool {
        let endpoints = self.endpoints.borrow();
        let original = self.original.borrow();
        let mut all = endpoints.iter().chain(&*original);
        all.any(|e| e.addr == addr && e.dst == *dst)
    }

    /// Whether there is one beside this address and those, which may or may not be fit.
    pub fn has_other(&self, addr: SocketAddr, tried: &[SocketAddr]) -> bool {
        self.has_other_that(addr, tried, |_| true)
    }

    /// The same of those that may be used; the original destination always may.
    fn has_other_that(
        &self,
        addr: SocketAddr,
        tried: &[SocketAddr],
        may_use: impl Fn(&Endpoint) -> bool,
    ) -> bool {
        let is_other = |e: &&Rc<Endpoint>| e.addr != addr && !tried.contains(&e.addr);
        let (endpoints, original) = (self.endpoints.borrow(), self.original.borrow());
        let mut others = endpoints.iter().filter(is_other);
        original.iter().any(|e| is_other(&e)) || others.any(|e| may_use(e))
    }

    /// Whether this one is still among them, as it was.
    pub fn has(&self, known: &Endpoint) -> bool {
        let endpoints = self.endpoints.borrow();
        let original = self.original.borrow();
        let mut all = endpoints.iter().chain(&*original);
        all.any(|e| e.addr == known.addr && e.dst == known.dst && e.identity == known.identity)
    }

    fn choose_beside(&self, tried: &[SocketAddr], now: Instant) -> Option<Claim> {
        let endpoints = self.endpoints.borrow();
        let is_divided = self.is_divided.get();
        if tried.is_empty() && self.shared.troubled.get() == 0 && !is_divided {
            let (one, other) = self.two_of(endpoints.len())?;
            return Some(Claim::new(lighter(&endpoints[one], &endpoints[other], now)));
        }
        let fits = |e: &&Rc<Endpoint>| !tried.contains(&e.addr) && e.state.health.is_fit(now);
        let fit = || endpoints.iter().filter(fits);
        let drawn = is_divided.then(|| self.draw(fit().map(|e| &**e))).flatten();
        let is_drawn = |e: &&Rc<Endpoint>| match (drawn, e.share) {
            (Some(drawn), Some(share)) => share.destination == drawn,
            (drawn, share) => drawn.is_none() && share.is_none(),
        };
        let fit = || fit().filter(|e| is_drawn(e));
        let (one, other) = self.two_of(fit().count())?;
        let mut both = fit().enumerate().filter(|(i, _)| *i == one || *i == other);
        let (_, first) = both.next()?;
        let second = both.next().map_or(first, |(_, second)| second);
        // The order of the set must not decide between equals.
        let (one, other) = if one < other {
            (first, second)
        } else {
            (second, first)
        };
        Some(Claim::new(lighter(one, other, now)))
    }

    /// Two different numbers below `count`; the same one twice where there is one.
    fn two_of(&self, count: usize) -> Option<(usize, usize)> {
        let mut random = self.shared.random.borrow_mut();
        match count {
            0 => None,
            1 => Some((0, 0)),
            _ => {
                let one = random.usize(..count);
                let other = random.usize(..count - 1);
                Some((one, if other < one { other } else { other + 1 }))
            }
        }
    }

    /// The original destination, where connections may go there and it was not tried yet.
    fn original(&self, tried: &[SocketAddr]) -> Option<Claim> {
        let original = self.original.borrow();
        let untried = original.as_ref().filter(|e| !tried.contains(&e.addr));
        untried.map(Claim::new)
    }

    /// Of those not tried yet, the endpoint whose last failure is longest ago.
    fn least_recently_failed(&self, tried: &[SocketAddr]) -> Option<Claim> {
        let endpoints = self.endpoints.borrow();
        let untried = endpoints.iter().filter(|e| !tried.contains(&e.addr));
        untried
            .min_by_key(|e| e.state.health.failed_at())
            .map(Claim::new)
    }
}

/// The one with less load; the first of equals.
fn lighter<'a>(one: &'a Rc<Endpoint>, other: &'a Rc<Endpoint>, now: Instant) -> &'a Rc<Endpoint> {
    if Rc::ptr_eq(one, other) || one.state.load(now) <= other.state.load(now) {
        one
    } else {
        other
    }
}

#[cfg(test)]
mod tests;
