//! The HTTP series of one label set, as a request's handler holds them. Made by `Recorder::http`; every call is a few
//! plain stores on cells of this worker. Knows no protocol: statuses and classifications are told to it.

use std::cell::{Cell, RefCell};
use std::hash::{Hash, Hasher};
use std::rc::{Rc, Weak};
use std::time::Duration;

use indexmap::Equivalent;

use super::budget::Claim;
use super::cells::{Counter, Histogram};
use super::family::{Family, Kind};
use super::labels::{
    Classification, Dst, HttpKey, HttpLabels, HttpSide, OVERFLOW, ResponseEnd, Stand, same_text,
};
use super::render;
use super::resolve::{Lookup, wider};
use super::rules::Rules;
use super::worker::{Attached, Attachment};

/// Different values of `grpc_status_code`, and of `error`, that a worker keeps apart within one label set; they come
/// from the peer, so they are bounded. Further ones are counted as [`OVERFLOW`].
const MAX_TEXTS: usize = 32;
/// As many responses with different labels a worker keeps apart within one label set; in further ones only status and
/// classification are.
const MAX_RESPONSES: usize = 256;

/// A pin on the HTTP series of one label set: while any clone lives, they do not retire.
#[derive(Clone)]
pub struct HttpSeries(Rc<HttpEntry>);

/// Remembers the HTTP series without keeping them; what caches hold.
#[derive(Clone)]
pub struct HttpRef(Weak<HttpEntry>);

pub(super) struct HttpEntry {
    key: HttpKey,
    attachment: Attachment,
    requests: Counter,
    latencies: RefCell<Vec<(Option<u16>, Histogram)>>,
    responses: RefCell<Vec<Response>>,
    /// Where the last response was found: the next one is mostly alike.
    last_response: Cell<usize>,
}

struct Response {
    status: Option<u16>,
    classification: Classification,
    grpc_status: Box<str>,
    error: Box<str>,
    count: Counter,
}

impl HttpSeries {
    pub(super) fn new(entry: Rc<HttpEntry>) -> Self {
        Self(entry)
    }

    /// Counts a request, once its head is parsed.
    pub fn request(&self) {
        self.0.attachment.touch();
        self.0.requests.add(1);
    }

    /// Records the time from the request's head to the response's first data, or its end if it has none.
    pub fn latency(&self, status: Option<u16>, latency: Duration) {
        self.0.attachment.touch();
        let mut known = self.0.latencies.borrow_mut();
        let at = known.iter().position(|(s, _)| *s == status);
        let at = at.unwrap_or_else(|| {
            known.push((status, self.0.add_latency(status)));
            known.len() - 1
        });
        known[at].1.observe(latency);
    }

    /// Counts a response, once its stream has ended.
    pub fn response(&self, end: &ResponseEnd<'_>) {
        let entry = &*self.0;
        entry.attachment.touch();
        let known = entry.responses.borrow();
        let last = entry.last_response.get();
        if let Some(response) = known.get(last).filter(|r| r.is(end)) {
            return response.count.add(1);
        }
        let found = known.iter().position(|r| r.is(end));
        drop(known);
        let at = found.unwrap_or_else(|| entry.add_response(end));
        entry.last_response.set(at);
        entry.responses.borrow()[at].count.add(1);
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
        entry.attachment.is_current().then_some(HttpSeries(entry))
    }
}

impl HttpEntry {
    fn new(labels: &HttpLabels<'_>, attachment: Attachment) -> Self {
        Self {
            requests: Counter(attachment.base(Family::RequestTotal, "")),
            latencies: RefCell::default(),
            responses: RefCell::default(),
            last_response: Cell::new(0),
            key: HttpKey::new(labels),
            attachment,
        }
    }

    /// The labels of the label set that takes what is refused to this one.
    fn wider(&self, claim: Claim) -> String {
        let (rules, own) = self.attachment.standing();
        wider(self.key.view(), (&rules, own), claim)
    }

    fn add_latency(&self, status: Option<u16>) -> Histogram {
        let suffix = render::latency_suffix(status);
        let wider = |claim| self.wider(claim);
        self.attachment
            .grow(2 * size_of::<(Option<u16>, Histogram)>());
        self.attachment
            .histogram(Family::ResponseLatency, &suffix, &wider)
    }

    /// The place of a response that was not known under its own labels.
    fn add_response(&self, end: &ResponseEnd<'_>) -> usize {
        let mut known = self.responses.borrow_mut();
        let most = if known.len() < MAX_RESPONSES {
            MAX_TEXTS
        } else {
            0
        };
        let end = ResponseEnd {
            grpc_status: bounded(known.iter().map(|r| &*r.grpc_status), end.grpc_status, most),
            error: bounded(known.iter().map(|r| &*r.error), end.error, most),
            ..*end
        };
        if let Some(at) = known.iter().position(|r| r.is(&end)) {
            return at;
        }
        let suffix = render::response_suffix(&end);
        let added = Response {
            status: end.status,
            classification: end.classification,
            grpc_status: end.grpc_status.into(),
            error: end.error.into(),
            count: Counter(
                self.attachment
                    .cells(Family::ResponseTotal, &suffix, &|claim| self.wider(claim)),
            ),
        };
        let texts = end.grpc_status.len() + end.error.len();
        self.attachment.grow(2 * size_of::<Response>() + texts);
        known.push(added);
        known.len() - 1
    }
}

/// `text` if it is empty, among the known ones, or they are still fewer than `most`; else the overflow value.
fn bounded<'a>(known: impl Iterator<Item = &'a str>, text: &'a str, most: usize) -> &'a str {
    let mut distinct: Vec<&str> = known.collect();
    distinct.sort_unstable();
    distinct.dedup();
    if text.is_empty() || most > 0 && distinct.contains(&text) || distinct.len() < most {
        text
    } else {
        OVERFLOW
    }
}

impl Response {
    fn is(&self, end: &ResponseEnd<'_>) -> bool {
        self.status == end.status
            && self.classification == end.classification
            && same_text(&self.grpc_status, end.grpc_status)
            && same_text(&self.error, end.error)
    }
}

impl Attached for HttpEntry {
    fn attachment(&self) -> &Attachment {
        &self.attachment
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
