//! The account of one request: the series it is counted in, those of its route included where its destination has
//! routes. Opened by the connection's ledger; driven by `exchange`.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::{Authority, HttpLedger, Subject};
use crate::exchange::Tally;
use crate::routes::{Choice, Ports, Request, Route, Routing};
use crate::telemetry::{Direction, HttpSeries, ResponseEnd, RouteLabels, RouteRef, RouteSeries};

/// What a request is counted in.
pub struct Account {
    series: HttpSeries,
    /// None where the destination has no routes.
    routed: Option<Routed>,
}

struct Routed {
    series: RouteSeries,
    /// None where it is of none of them.
    route: Option<Rc<Route>>,
}

/// What the requests of a connection are told apart by.
pub(super) enum By {
    Nothing,
    /// The routes of the service that it goes to.
    Service(Rc<Routing>),
    /// What the port of the application lets in that it comes to.
    Port(Rc<Ports>),
}

/// The last route that was asked for, and its series.
pub(super) struct LastRoute {
    /// The label `dst`.
    dst: Box<str>,
    route: Option<Rc<Route>>,
    series: RouteRef,
}

impl Account {
    /// How long the request may take until its response's head.
    pub fn timeout(&self) -> Option<Duration> {
        self.route()?.timeout()
    }

    /// The route that the request is of.
    pub fn route(&self) -> Option<&Rc<Route>> {
        self.routed.as_ref()?.route.as_ref()
    }
}

impl Tally for Account {
    fn request(&self) {
        self.series.request();
        if let Some(routed) = &self.routed {
            routed.series.request();
        }
    }

    fn latency(&self, status: Option<u16>, latency: Duration) {
        self.series.latency(status, latency);
        if let Some(routed) = &self.routed {
            routed.series.latency(status, latency);
        }
    }

    fn response(&self, end: &ResponseEnd<'_>) {
        self.series.response(end);
        if let Some(routed) = &self.routed {
            routed.series.response(end);
        }
    }

    fn retried(&self, end: &ResponseEnd<'_>) {
        if let Some(routed) = &self.routed {
            routed.series.retried(end);
        }
    }

    fn fails(&self, status: u16) -> Option<bool> {
        self.route()?.fails(status)
    }
}

impl HttpLedger {
    /// The same of a connection to a service that has these routes, or may get them.
    #[must_use]
    pub fn routed(self, routing: &Rc<Routing>) -> Self {
        Self {
            told_apart: By::Service(Rc::clone(routing)),
            ..self
        }
    }

    /// The same of a connection to a port of the application that is one of these.
    #[must_use]
    pub fn behind(self, ports: &Rc<Ports>) -> Self {
        Self {
            told_apart: By::Port(Rc::clone(ports)),
            ..self
        }
    }

    /// Whether its port lets in only what there is a route for.
    pub fn is_closed(&self) -> bool {
        matches!(&self.told_apart, By::Port(ports) if ports.is_closed(self.book.target_port))
    }

    /// Whether there are routes to be asked for.
    pub fn has_routes(&self) -> bool {
        match &self.told_apart {
            By::Nothing => false,
            By::Service(routing) => routing.has_routes(),
            By::Port(ports) => ports.is_closed(self.book.target_port),
        }
    }

    /// What the routes say about a request.
    pub fn choose(&self, request: &Request<'_>) -> Choice {
        match &self.told_apart {
            By::Nothing => Choice::Unrouted,
            By::Service(routing) => routing.choose(request),
            By::Port(ports) => ports.choose(self.book.target_port, request),
        }
    }

    /// A lot for one request; none where there is nothing to be drawn.
    pub fn lot(&self) -> Option<u32> {
        self.routing().map(|routing| routing.lot())
    }

    fn routing(&self) -> Option<&Rc<Routing>> {
        match &self.told_apart {
            By::Service(routing) => Some(routing),
            By::Nothing | By::Port(_) => None,
        }
    }

    /// Whether its requests may go to one server or another, and be sent again: they leave for a service.
    pub fn is_steered(&self) -> bool {
        self.routing().is_some() && self.book.subject.dst().is_some()
    }

    /// A request has come that a retry may be spent on.
    pub fn note_request(&self, now: Instant) {
        if let Some(routing) = self.routing() {
            routing.note_request(now);
        }
    }

    /// Takes a retry off the budget, where there is one left.
    pub fn may_retry(&self, now: Instant) -> bool {
        let routing = self.routing();
        routing.is_some_and(|routing| routing.may_retry(now))
    }

    /// The account of a request to this authority, of which the routes say this.
    pub fn account(&mut self, authority: Authority<'_>, choice: &Choice) -> Account {
        let is_inbound = self.book.subject.direction() == Direction::Inbound;
        if is_inbound && matches!(choice, Choice::Refused) {
            let series = self.not_found(authority);
            return Account {
                series,
                routed: None,
            };
        }
        let series = self.series(authority);
        let routed = match choice {
            Choice::Unrouted => None,
            Choice::Unmatched => Some(self.routed_by(None)),
            Choice::Refused => Some(self.unattempted(None)),
            Choice::Missing(route) => Some(self.unattempted(Some(route))),
            Choice::Matched(route) => Some(self.routed_by(Some(route))),
        };
        Account { series, routed }
    }

    /// Of a request that no server is asked.
    fn unattempted(&mut self, route: Option<&Rc<Route>>) -> Routed {
        let Routed { series, route } = self.routed_by(route);
        let series = series.unattempted();
        Routed { series, route }
    }

    fn routed_by(&mut self, route: Option<&Rc<Route>>) -> Routed {
        let is_same = |last: Option<&Rc<Route>>| match (last, route) {
            (Some(last), Some(route)) => Rc::ptr_eq(last, route),
            (last, route) => last.is_none() && route.is_none(),
        };
        let known = self.last_route.as_ref();
        let known = known.filter(|last| is_same(last.route.as_ref()));
        let series = known.and_then(|last| last.series.pin());
        let series = series.unwrap_or_else(|| self.resolve_route(route));
        let route = route.cloned();
        Routed { series, route }
    }

    /// Finds or makes the series of a route, and remembers them.
    fn resolve_route(&mut self, route: Option<&Rc<Route>>) -> RouteSeries {
        let last = self.last_route.take();
        let dst = last.map_or_else(|| self.dst(), |last| last.dst);
        let series = self.book.recorder.route(&RouteLabels {
            direction: self.book.subject.direction(),
            dst: &dst,
            route: route.map(|route| route.name()),
        });
        self.last_route = Some(Box::new(LastRoute {
            dst,
            route: route.cloned(),
            series: series.downgrade(),
        }));
        series
    }

    /// The label `dst`.
    fn dst(&self) -> Box<str> {
        let name = match &self.book.subject {
            Subject::Inbound { .. } => "",
            Subject::Outbound { service, .. } => service,
        };
        format!("{name}:{}", self.book.target_port).into()
    }
}
