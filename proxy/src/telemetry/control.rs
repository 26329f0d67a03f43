//! The series of the proxy's own calls to the operator. Made by `Recorder::control`, held for as long as the proxy runs:
//! configuration says whom it calls, so they are printed from the start and never retire. Knows no call.

use std::hash::{Hash, Hasher};
use std::rc::Rc;
use std::time::Duration;

use indexmap::Equivalent;

use super::budget::Claim;
use super::calls::{Calls, Families};
use super::family::{Family, Kind};
use super::labels::{ResponseEnd, Tls};
use super::render::Render;
use super::resolve::Lookup;
use super::rules::Rules;
use super::worker::{Attached, Attachment};

/// Where calls to the operator are counted.
const FAMILIES: Families = Families {
    requests: Family::ControlRequestTotal,
    latency: Some(Family::ControlLatency),
    responses: Family::ControlResponseTotal,
};

/// The labels of `control_*` that a call begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlLabels<'a> {
    /// Host and port of the operator, as configured.
    pub addr: &'a str,
    /// How the connection to it is secured.
    pub tls: &'a Tls,
}

/// The `control_*` series of one operator.
pub struct ControlSeries(Rc<ControlEntry>);

pub(super) struct ControlEntry {
    addr: Box<str>,
    tls: Tls,
    calls: Calls,
}

impl ControlSeries {
    pub(super) fn new(entry: Rc<ControlEntry>) -> Self {
        Self(entry)
    }

    /// Counts a call, once its head is sent.
    pub fn request(&self) {
        self.0.calls.request();
    }

    /// Records the time from the call's head to its first message, or its end if it has none.
    pub fn latency(&self, status: Option<u16>, latency: Duration) {
        let entry = &*self.0;
        entry
            .calls
            .latency(status, latency, &|_| entry.labels().text());
    }

    /// Counts the end of a call: of a watch, that of its stream.
    pub fn response(&self, end: &ResponseEnd<'_>) {
        let entry = &*self.0;
        entry.calls.response(end, &|_| entry.labels().text());
    }

    /// False once a new look-up would find others, because the rules have changed.
    pub fn is_current(&self) -> bool {
        self.0.calls.attachment.is_current()
    }
}

impl ControlEntry {
    fn labels(&self) -> ControlLabels<'_> {
        ControlLabels {
            addr: &self.addr,
            tls: &self.tls,
        }
    }
}

impl ControlLabels<'_> {
    fn text(&self) -> String {
        let mut text = String::new();
        self.render(&mut text);
        text
    }
}

impl Attached for ControlEntry {
    fn attachment(&self) -> &Attachment {
        &self.calls.attachment
    }

    fn at_rest(&self) -> bool {
        true
    }

    fn claim(&self, _rules: &Rules) -> Claim {
        Claim::Last
    }

    /// Configuration says which there are.
    fn is_permanent(&self) -> bool {
        true
    }
}

impl Hash for ControlLabels<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.addr.hash(state);
    }
}

impl Hash for ControlEntry {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.labels().hash(state);
    }
}

impl PartialEq for ControlEntry {
    fn eq(&self, other: &Self) -> bool {
        self.labels() == other.labels()
    }
}

impl Eq for ControlEntry {}

impl Equivalent<Rc<ControlEntry>> for ControlLabels<'_> {
    fn equivalent(&self, entry: &Rc<ControlEntry>) -> bool {
        *self == entry.labels()
    }
}

impl<'a> Lookup<'a> for ControlLabels<'a> {
    const KIND: Kind = Kind::Control;
    type Entry = ControlEntry;

    fn is(&self, other: &Self) -> bool {
        self == other
    }

    fn claim(&self, _rules: &Rules) -> Claim {
        Claim::Last
    }

    fn own_text(&self) -> usize {
        self.addr.len()
    }

    fn entry(self, attachment: Attachment) -> ControlEntry {
        ControlEntry {
            addr: self.addr.into(),
            tls: self.tls.clone(),
            calls: Calls::new(FAMILIES, attachment),
        }
    }
}
