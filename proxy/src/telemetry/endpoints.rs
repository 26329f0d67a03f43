//! The series of a service's endpoints, as the worker that balances over them sees them. Made by `Recorder::endpoints`;
//! told about once a second how many there are. Knows no endpoint.

use std::cell::Cell;
use std::hash::{Hash, Hasher};
use std::rc::Rc;

use indexmap::Equivalent;

use super::budget::Claim;
use super::cells::Gauge;
use super::family::{AVAILABLE, Family, Kind, SET_ASIDE};
use super::labels::EndpointLabels;
use super::resolve::Lookup;
use super::rules::Rules;
use super::worker::{Attached, Attachment};

/// The gauges `weir_endpoints` of one service. Dropping the last handle of a worker leaves them at what they were.
pub struct EndpointSeries(Rc<EndpointEntry>);

pub(super) struct EndpointEntry {
    authority: Box<str>,
    target_port: u16,
    attachment: Attachment,
    available: State,
    set_aside: State,
}

/// How many endpoints are in one state.
struct State {
    gauge: Gauge,
    now: Cell<usize>,
}

impl State {
    fn set(&self, endpoints: usize) {
        let before = self.now.replace(endpoints);
        (before..endpoints).for_each(|_| self.gauge.up());
        (endpoints..before).for_each(|_| self.gauge.down());
    }
}

impl EndpointSeries {
    pub(super) fn new(entry: Rc<EndpointEntry>) -> Self {
        Self(entry)
    }

    /// Says how many endpoints there are of which state.
    pub fn set(&self, available: usize, set_aside: usize) {
        self.0.available.set(available);
        self.0.set_aside.set(set_aside);
    }

    /// False once a new look-up would find others, because the rules have changed.
    pub fn is_current(&self) -> bool {
        self.0.attachment.is_current()
    }
}

impl Attached for EndpointEntry {
    fn attachment(&self) -> &Attachment {
        &self.attachment
    }

    fn at_rest(&self) -> bool {
        self.available.now.get() + self.set_aside.now.get() == 0
    }

    fn claim(&self, _rules: &Rules) -> Claim {
        Claim::Last
    }

    /// Configuration says which there are.
    fn is_permanent(&self) -> bool {
        true
    }
}

impl Hash for EndpointLabels<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.target_port.hash(state);
        state.write(self.authority.as_bytes());
    }
}

impl EndpointEntry {
    fn labels(&self) -> EndpointLabels<'_> {
        EndpointLabels {
            authority: &self.authority,
            target_port: self.target_port,
        }
    }
}

impl Hash for EndpointEntry {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.labels().hash(state);
    }
}

impl PartialEq for EndpointEntry {
    fn eq(&self, other: &Self) -> bool {
        self.labels() == other.labels()
    }
}

impl Eq for EndpointEntry {}

impl Equivalent<Rc<EndpointEntry>> for EndpointLabels<'_> {
    fn equivalent(&self, entry: &Rc<EndpointEntry>) -> bool {
        *self == entry.labels()
    }
}

impl<'a> Lookup<'a> for EndpointLabels<'a> {
    const KIND: Kind = Kind::Single(Family::Endpoints);
    type Entry = EndpointEntry;

    fn is(&self, other: &Self) -> bool {
        self == other
    }

    fn claim(&self, _rules: &Rules) -> Claim {
        Claim::Last
    }

    fn own_text(&self) -> usize {
        self.authority.len()
    }

    fn entry(self, attachment: Attachment) -> EndpointEntry {
        let state = |state| State {
            gauge: Gauge(attachment.base(Family::Endpoints, state)),
            now: Cell::new(0),
        };
        EndpointEntry {
            authority: self.authority.into(),
            target_port: self.target_port,
            available: state(AVAILABLE),
            set_aside: state(SET_ASIDE),
            attachment,
        }
    }
}
