//! The series of the requests of one route of a destination, or of those that are of none: what the client sees, and
//! what each attempt comes to. Made by `Recorder::route`, held by the accounts of requests. Knows no routes: their names
//! are told to it.

use std::hash::{Hash, Hasher};
use std::rc::{Rc, Weak};
use std::time::Duration;

use indexmap::Equivalent;

use super::budget::Claim;
use super::calls::{Calls, Families};
use super::family::{Family, Kind};
use super::labels::{Direction, OVERFLOW, ResponseEnd, Stand, same_text, without_port};
use super::render::Render;
use super::resolve::{Lookup, wider};
use super::rules::Rules;
use super::worker::{Attached, Attachment};

/// Where requests are counted as their clients see them.
const EFFECTIVE: Families = Families {
    requests: Family::RouteRequestTotal,
    latency: Some(Family::RouteLatency),
    responses: Family::RouteResponseTotal,
};

/// Where the attempts are counted that were made for them.
const ACTUAL: Families = Families {
    requests: Family::RouteActualRequestTotal,
    latency: None,
    responses: Family::RouteActualResponseTotal,
};

/// The labels of `route_*` that a request begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteLabels<'a> {
    /// Seen from the pod.
    pub direction: Direction,
    /// The destination's fully qualified name with its port.
    pub dst: &'a str,
    /// The route's name; none where the request is of none, and then there is no such label.
    pub route: Option<&'a str>,
}

/// A pin on the series of one route: while any clone lives, they do not retire.
#[derive(Clone)]
pub struct RouteSeries {
    effective: Rc<RouteEntry<false>>,
    /// None where no attempt is made.
    actual: Option<Rc<RouteEntry<true>>>,
}

/// Remembers the series of a route without keeping them.
#[derive(Clone)]
pub struct RouteRef {
    effective: Weak<RouteEntry<false>>,
    actual: Weak<RouteEntry<true>>,
}

/// Of `route_actual_*` where `IS_ACTUAL`, else of `route_*`: the label sets of the two are apart.
pub(super) struct RouteEntry<const IS_ACTUAL: bool> {
    direction: Direction,
    dst: Box<str>,
    route: Option<Box<str>>,
    calls: Calls,
}

/// The labels, to be looked up for either.
#[derive(Clone, Copy)]
pub(super) struct Keyed<'a, const IS_ACTUAL: bool>(pub(super) RouteLabels<'a>);

impl RouteSeries {
    pub(super) fn new(effective: Rc<RouteEntry<false>>, actual: Rc<RouteEntry<true>>) -> Self {
        Self {
            effective,
            actual: Some(actual),
        }
    }

    /// The series of a request that is answered without an attempt.
    #[must_use]
    pub fn unattempted(self) -> Self {
        Self {
            actual: None,
            ..self
        }
    }

    /// Counts a request, and its first attempt.
    pub fn request(&self) {
        self.effective.calls.request();
        if let Some(actual) = &self.actual {
            actual.calls.request();
        }
    }

    /// Records the time from the request's head to the response's first data, or its end if it has none.
    pub fn latency(&self, status: Option<u16>, latency: Duration) {
        let entry = &*self.effective;
        let wider = |claim| entry.wider(claim);
        entry.calls.latency(status, latency, &wider);
    }

    /// Counts a response, and its attempt's, once its stream has ended.
    pub fn response(&self, end: &ResponseEnd<'_>) {
        self.effective.respond(end);
        if let Some(actual) = &self.actual {
            actual.respond(end);
        }
    }

    /// Counts what an attempt came to, and the next one.
    pub fn retried(&self, end: &ResponseEnd<'_>) {
        if let Some(actual) = &self.actual {
            actual.respond(end);
            actual.calls.request();
        }
    }

    /// A reference that does not pin.
    pub fn downgrade(&self) -> RouteRef {
        let actual = self.actual.as_ref();
        RouteRef {
            effective: Rc::downgrade(&self.effective),
            actual: actual.map(Rc::downgrade).unwrap_or_default(),
        }
    }
}

impl RouteRef {
    /// Pins again; `None` once either label set has been let go or would no longer be the one.
    pub fn pin(&self) -> Option<RouteSeries> {
        let (effective, actual) = (self.effective.upgrade()?, self.actual.upgrade()?);
        let is_current =
            effective.calls.attachment.is_current() && actual.calls.attachment.is_current();
        is_current.then(|| RouteSeries::new(effective, actual))
    }
}

impl<const IS_ACTUAL: bool> RouteEntry<IS_ACTUAL> {
    fn labels(&self) -> Keyed<'_, IS_ACTUAL> {
        Keyed(RouteLabels {
            direction: self.direction,
            dst: &self.dst,
            route: self.route.as_deref(),
        })
    }

    fn respond(&self, end: &ResponseEnd<'_>) {
        let end = ResponseEnd {
            grpc_status: "",
            ..*end
        };
        self.calls.response(&end, &|claim| self.wider(claim));
    }

    /// The labels of the label set that takes what is refused to this one.
    fn wider(&self, claim: Claim) -> String {
        let (rules, own) = self.calls.attachment.standing();
        wider(self.labels(), (&rules, own), claim)
    }
}

impl<const IS_ACTUAL: bool> Attached for RouteEntry<IS_ACTUAL> {
    fn attachment(&self) -> &Attachment {
        &self.calls.attachment
    }

    fn at_rest(&self) -> bool {
        true
    }

    fn claim(&self, rules: &Rules) -> Claim {
        self.labels().claim(rules)
    }
}

impl<const IS_ACTUAL: bool> Hash for Keyed<'_, IS_ACTUAL> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(self.0.dst.as_bytes());
        state.write_u8(u8::from(self.0.route.is_some()));
        state.write(self.0.route.unwrap_or_default().as_bytes());
    }
}

impl<const IS_ACTUAL: bool> Hash for RouteEntry<IS_ACTUAL> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.labels().hash(state);
    }
}

impl<const IS_ACTUAL: bool> PartialEq for RouteEntry<IS_ACTUAL> {
    fn eq(&self, other: &Self) -> bool {
        self.labels().is(&other.labels())
    }
}

impl<const IS_ACTUAL: bool> Eq for RouteEntry<IS_ACTUAL> {}

impl<const IS_ACTUAL: bool> Equivalent<Rc<RouteEntry<IS_ACTUAL>>> for Keyed<'_, IS_ACTUAL> {
    fn equivalent(&self, entry: &Rc<RouteEntry<IS_ACTUAL>>) -> bool {
        self.is(&entry.labels())
    }
}

impl<const IS_ACTUAL: bool> Render for Keyed<'_, IS_ACTUAL> {
    fn render(&self, out: &mut String) {
        self.0.render(out);
    }
}

impl<'a, const IS_ACTUAL: bool> Lookup<'a> for Keyed<'a, IS_ACTUAL> {
    const KIND: Kind = if IS_ACTUAL {
        Kind::RouteActual
    } else {
        Kind::Route
    };
    type Entry = RouteEntry<IS_ACTUAL>;

    fn is(&self, other: &Self) -> bool {
        let (one, other) = (self.0, other.0);
        one.direction == other.direction
            && one.route.is_some() == other.route.is_some()
            && same_text(one.dst, other.dst)
            && same_text(
                one.route.unwrap_or_default(),
                other.route.unwrap_or_default(),
            )
    }

    fn claim(&self, rules: &Rules) -> Claim {
        let port = self.0.dst.rsplit_once(':');
        let port = port.and_then(|(_, port)| port.parse().ok());
        rules.claim(true, self.0.dst, port.unwrap_or_default())
    }

    fn overflowed(mut self, _stand: &'a Stand, vouched: bool) -> Self {
        if !vouched {
            self.0.dst = OVERFLOW;
        }
        self.0.route = self.0.route.map(|_| OVERFLOW);
        self
    }

    fn without_ports(mut self) -> Self {
        self.0.dst = without_port(self.0.dst);
        self
    }

    fn own_text(&self) -> usize {
        self.0.dst.len() + self.0.route.map_or(0, str::len)
    }

    fn entry(self, attachment: Attachment) -> RouteEntry<IS_ACTUAL> {
        let families = if IS_ACTUAL { ACTUAL } else { EFFECTIVE };
        RouteEntry {
            direction: self.0.direction,
            dst: self.0.dst.into(),
            route: self.0.route.map(Into::into),
            calls: Calls::new(families, attachment),
        }
    }
}
