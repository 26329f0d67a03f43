//! The HTTP series of one label set, as a request's handler holds them. Made by `Recorder::http`; every call is a few
//! plain stores on cells of this worker. Knows no protocol: statuses and classifications are told to it.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::time::Duration;

use super::cells::{Counter, Histogram};
use super::family::{Family, Kind};
use super::labels::{Classification, HttpLabels, ResponseEnd, same_text};
use super::render;
use super::worker::{Attached, Attachment, Hand};

/// Different values of `grpc_status_code`, and of `error`, that a worker keeps apart within one label set; they come
/// from the peer, so they are bounded. Further ones are counted as [`OVERFLOW`].
const MAX_TEXTS: usize = 32;
/// The value that stands for those beyond a bound.
pub const OVERFLOW: &str = "__overflow__";

/// A pin on the HTTP series of one label set: while any clone lives, they do not retire.
#[derive(Clone)]
pub struct HttpSeries(Rc<HttpEntry>);

/// Remembers the HTTP series without keeping them; what caches hold.
#[derive(Clone)]
pub struct HttpRef(Weak<HttpEntry>);

pub(super) struct HttpEntry {
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
            let suffix = render::latency_suffix(status);
            let block = self.0.attachment.block(Family::ResponseLatency, &suffix);
            known.push((status, Histogram(block)));
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
    /// Pins again; `None` once the label set has been let go, and then `Recorder::http` finds or makes it anew.
    pub fn pin(&self) -> Option<HttpSeries> {
        self.0.upgrade().map(HttpSeries)
    }
}

impl HttpEntry {
    pub(super) fn new(hand: &Rc<Hand>, labels: &HttpLabels<'_>) -> Self {
        let attachment = Attachment::new(hand, Kind::Http, labels);
        Self {
            requests: Counter(attachment.block(Family::RequestTotal, "")),
            latencies: RefCell::default(),
            responses: RefCell::default(),
            last_response: Cell::new(0),
            attachment,
        }
    }

    /// The place of a response that was not known under its own labels.
    fn add_response(&self, end: &ResponseEnd<'_>) -> usize {
        let mut known = self.responses.borrow_mut();
        let end = ResponseEnd {
            grpc_status: bounded(known.iter().map(|r| &*r.grpc_status), end.grpc_status),
            error: bounded(known.iter().map(|r| &*r.error), end.error),
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
            count: Counter(self.attachment.block(Family::ResponseTotal, &suffix)),
        };
        known.push(added);
        known.len() - 1
    }
}

/// `text` if it is among the known ones or they are still few, else the overflow value.
fn bounded<'a>(known: impl Iterator<Item = &'a str>, text: &'a str) -> &'a str {
    let mut distinct: Vec<&str> = known.collect();
    distinct.sort_unstable();
    distinct.dedup();
    if distinct.contains(&text) || distinct.len() < MAX_TEXTS {
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
}
