//! The routes of a service, ready to be asked: which of them a request is one of.
//!
//! Whoever discovers a service compiles its table once ([`compile`]); each worker makes a [`Table`] of that, which
//! `record` asks for every request. It knows requests as slices, whatever their protocol, and neither series nor
//! sockets.

use std::rc::Rc;
use std::time::Duration;

pub use weir_crds::routes::Backend;
use weir_crds::routes::{self, Condition, RetryBudget, RouteTable};

mod budget;
mod matching;
mod ports;
mod request;
mod routing;

pub use budget::{Budget, MAX_ATTEMPTS, MAX_KEPT};
pub use ports::{BadPort, Closed, Ports};
pub use request::{Fields, Request};
pub use routing::{Choice, Routing};

use matching::{Limits, Matcher};

/// Most routes of one service. Both resources have fewer: they are one object each.
pub const MAX_ROUTES: usize = 1024;

/// Most conditions in one table, those inside of others counted each.
pub const MAX_CONDITIONS: usize = 8192;

/// Most conditions inside of each other.
pub const MAX_DEPTH: usize = 32;

/// Most regular expressions in one table.
pub const MAX_EXPRESSIONS: usize = 256;

pub use weir_crds::routes::MAX_EXPRESSION;

/// Most memory in which a search by one expression is remembered, in bytes. With less, searches are slower, not wrong.
pub const MAX_SEARCH: usize = 256 * 1024;

/// Why a table cannot be compiled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Bad {
    #[error("{0} routes, of at most {MAX_ROUTES}; merge some, or split the service")]
    Routes(usize),
    #[error("more than {MAX_CONDITIONS} conditions; write fewer, or one expression for many paths")]
    Conditions,
    #[error("route {route:?}: conditions inside of more than {MAX_DEPTH} others; flatten them")]
    Depth { route: String },
    #[error(
        "more than {MAX_EXPRESSIONS} regular expressions; write exact paths and prefixes as such"
    )]
    Expressions,
    #[error("route {route:?}: {text:?} cannot be used: {error}")]
    Expression {
        route: String,
        text: String,
        error: String,
    },
}

/// A table whose expressions are compiled, in the form that moves between threads. Two are equal where they were
/// compiled from equal tables.
#[derive(Clone, Debug)]
pub struct Compiled {
    source: RouteTable,
    matchers: Vec<Matcher>,
}

/// Compiles a table.
///
/// # Errors
/// What exceeds a bound of this module, or is no regular expression.
pub fn compile(table: &RouteTable) -> Result<Compiled, Bad> {
    if table.routes.len() > MAX_ROUTES {
        return Err(Bad::Routes(table.routes.len()));
    }
    let mut limits = Limits::default();
    let routes = table.routes.iter();
    let matchers = routes.map(|route| Matcher::compile(&route.condition, &route.name, &mut limits));
    Ok(Compiled {
        matchers: matchers.collect::<Result<_, _>>()?,
        source: table.clone(),
    })
}

impl Compiled {
    /// Where requests go whose route has no backends of its own, by weight; nothing where they go to the service.
    pub fn destinations(&self) -> &[Backend] {
        self.source.destinations()
    }

    /// The backends that routes have of their own, each list once.
    pub fn branches(&self) -> Vec<&[Backend]> {
        self.source.branches()
    }

    /// Whether it says anything about any request.
    pub fn is_empty(&self) -> bool {
        self.source.routes.is_empty() && !self.source.closed
    }
}

impl PartialEq for Compiled {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

/// A ratio that is no number makes a table unequal to itself: it is taken for a new one, which harms nothing.
impl Eq for Compiled {}

/// The backends that the requests of some routes are divided among, and those of others are not.
pub type Branch = Rc<[Backend]>;

/// One route, as whoever handles its requests needs it.
#[derive(Debug)]
pub struct Route {
    /// Without its condition and its backends.
    rule: routes::Route,
    branch: Option<Branch>,
    /// How many of 2^32 of its requests go to a backend that is not there.
    missing: u64,
}

impl Route {
    /// The label `rt_route`.
    pub fn name(&self) -> &str {
        &self.rule.name
    }

    /// Whether its classes call a response with this status a failure; `None` where they say nothing.
    pub fn fails(&self, status: u16) -> Option<bool> {
        self.rule.fails(status)
    }

    /// How long a request with all its attempts may take until the response's head.
    pub fn timeout(&self) -> Option<Duration> {
        self.rule.timeout_ms.map(Duration::from_millis)
    }

    /// Where its requests go; none where that is where those of no route go.
    pub fn branch(&self) -> Option<&Branch> {
        self.branch.as_ref()
    }

    /// Whether a request with this lot goes to a backend that is not there.
    pub fn is_missing(&self, lot: u32) -> bool {
        u64::from(lot) < self.missing
    }

    /// Whether a request that failed may be sent again.
    pub fn is_retryable(&self) -> bool {
        self.rule.retryable
    }
}

/// The routes of one service, as one worker asks them.
#[derive(Debug)]
pub struct Table {
    routes: Vec<(Matcher, Rc<Route>)>,
    is_closed: bool,
    budget: Option<RetryBudget>,
}

impl Table {
    /// Of a compiled one. Its expressions are shared with those of other workers, the memory of their searches is not.
    pub fn new(compiled: &Compiled) -> Self {
        let Compiled { source, matchers } = compiled;
        let branches = source.branches().into_iter();
        let branches: Vec<Branch> = branches.map(Rc::from).collect();
        let routes = source.routes.iter().zip(matchers);
        let routes = routes.map(|(route, matcher)| {
            let rule = routes::Route {
                condition: Condition::always(),
                backends: Vec::new(),
                ..route.clone()
            };
            let branch = branches.iter().find(|branch| ***branch == *route.backends);
            let branch = branch.cloned();
            let missing = route.missing_share();
            let route = Route {
                rule,
                branch,
                missing,
            };
            (matcher.clone(), Rc::new(route))
        });
        Self {
            routes: routes.collect(),
            is_closed: source.closed,
            budget: source.retry_budget,
        }
    }

    /// The first route that the request is one of.
    pub fn find(&self, request: &Request<'_>) -> Option<Rc<Route>> {
        let mut routes = self.routes.iter();
        let found = routes.find(|(matcher, _)| matcher.matches(request));
        found.map(|(_, route)| Rc::clone(route))
    }

    /// Whether a request that is one of no route is answered 404.
    pub fn is_closed(&self) -> bool {
        self.is_closed
    }
}

#[cfg(test)]
mod tests;
