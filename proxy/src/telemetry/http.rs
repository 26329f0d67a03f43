//! The HTTP series of one label set, as a request's handler holds them. Made by `Recorder::http`; every call is a few
//! plain stores on cells of this worker. Knows no protocol: statuses and classifications are told to it.

use std::hash::{Hash, Hasher};
use std::rc::{Rc, Weak};
use std::time::Duration;

use indexmap::Equivalent;

use super::budget::Claim;
use super::calls::{Calls, Families};
use super::family::{Family, Kind};
use super::labels::{Dst, HttpKey, HttpLabels, HttpSide, ResponseEnd, Stand};
use super::resolve::{Lookup, wider};
use super::rules::Rules;
use super::worker::{Attached, Attachment};

/// Where requests and responses of traffic are counted.
const FAMILIES: Families = Families {
    requests: Family::RequestTotal,
    latency: Some(Family::ResponseLatency),
    responses: Family::ResponseTotal,
};

/// A pin on the HTTP series of one label set: while any clone lives, they do not retire.
#[derive(Clone)]
pub struct HttpSeries(Rc<HttpEntry>);

/// Remembers the HTTP series without keeping them; what caches hold.
#[derive(Clone)]
pub struct HttpRef(Weak<HttpEntry>);

pub(super) struct HttpEntry {
    key: HttpKey,
    calls: Calls,
}

impl HttpSeries {
    pub(super) fn new(entry: Rc<HttpEntry>) -> Self {
        Self(entry)
    }

    /// Counts a request, once its head is parsed.
    pub fn request(&self) {
        self.0.calls.request();
    }

    /// Records the time from the request's head to the response's first data, or its end if it has none.
    pub fn latency(&self, status: Option<u16>, latency: Duration) {
        let entry = &*self.0;
        entry
            .calls
            .latency(status, latency, &|claim| entry.wider(claim));
    }

    /// Counts a response, once its stream has ended.
    pub fn response(&self, end: &ResponseEnd<'_>) {
        let entry = &*self.0;
        entry.calls.response(end, &|claim| entry.wider(claim));
    }

    /// A reference that does not pin.
    pub fn downgrade(&self) -> HttpRef {
        HttpRef(Rc::downgrade(&self.0))
    }
}

impl HttpRef {
    /// Pins again; `None` once the label set has been let go or would no longer be the one, and then `Recorder::http`
    /// finds or makes it anew.
    pub fn pin(&self) -> Option<HttpSeries> {
        let entry = self.0.upgrade()?;
        let is_current = entry.calls.attachment.is_current();
        is_current.then_some(HttpSeries(entry))
    }
}

impl HttpEntry {
    fn new(labels: &HttpLabels<'_>, attachment: Attachment) -> Self {
        Self {
            calls: Calls::new(FAMILIES, attachment),
            key: HttpKey::new(labels),
        }
    }

    /// The labels of the label set that takes what is refused to this one.
    fn wider(&self, claim: Claim) -> String {
        let (rules, own) = self.calls.attachment.standing();
        wider(self.key.view(), (&rules, own), claim)
    }
}

impl Attached for HttpEntry {
    fn attachment(&self) -> &Attachment {
        &self.calls.attachment
    }

    fn at_rest(&self) -> bool {
        true
    }

    fn claim(&self, rules: &Rules) -> Claim {
        self.key.view().claim(rules)
    }
}

impl Hash for HttpEntry {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key.view().hash(state);
    }
}

impl PartialEq for HttpEntry {
    fn eq(&self, other: &Self) -> bool {
        self.key.view().is(&other.key.view())
    }
}

impl Eq for HttpEntry {}

impl Equivalent<Rc<HttpEntry>> for HttpLabels<'_> {
    fn equivalent(&self, entry: &Rc<HttpEntry>) -> bool {
        self.is(&entry.key.view())
    }
}

impl<'a> Lookup<'a> for HttpLabels<'a> {
    const KIND: Kind = Kind::Http;
    type Entry = HttpEntry;

    fn project(self, rules: &'a Rules) -> Self {
        rules.project_http(self)
    }

    fn is(&self, other: &Self) -> bool {
        HttpLabels::is(self, other)
    }

    fn claim(&self, rules: &Rules) -> Claim {
        rules.claim(self.is_open(), self.authority, self.target_port)
    }

    fn overflowed(self, stand: &'a Stand, vouched: bool) -> Self {
        HttpLabels::overflowed(self, stand, vouched)
    }

    fn without_ports(self) -> Self {
        HttpLabels::without_ports(self)
    }

    fn dst(&self) -> Option<&'a Dst> {
        match self.side {
            HttpSide::Inbound { .. } => None,
            HttpSide::Outbound { dst } => Some(dst),
        }
    }

    fn own_text(&self) -> usize {
        self.authority.len()
    }

    fn entry(self, attachment: Attachment) -> HttpEntry {
        HttpEntry::new(&self, attachment)
    }
}
