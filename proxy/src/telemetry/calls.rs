//! Requests and responses of one label set: three families, of which the series of responses are found by the labels
//! that follow those of the set. A part of the entries of `http`, `control` and `route`; every call is a few plain stores on
//! cells of this worker. Knows neither what the label set is about nor any protocol.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use super::budget::Claim;
use super::cells::{Counter, Histogram};
use super::family::Family;
use super::labels::{Classification, OVERFLOW, ResponseEnd, same_text};
use super::render;
use super::worker::Attachment;

/// Different values of `grpc_status_code`, and of `error`, that a worker keeps apart within one label set; they come
/// from the peer, so they are bounded. Further ones are counted as [`OVERFLOW`].
const MAX_TEXTS: usize = 32;
/// As many responses with different labels a worker keeps apart within one label set; in further ones only status and
/// classification are.
const MAX_RESPONSES: usize = 256;

/// The families that requests and responses are counted in.
#[derive(Clone, Copy)]
pub(super) struct Families {
    pub(super) requests: Family,
    /// None where no time is recorded.
    pub(super) latency: Option<Family>,
    pub(super) responses: Family,
}

/// The labels of the label set that takes what is refused to this one.
pub(super) type Wider<'a> = &'a dyn Fn(Claim) -> String;

pub(super) struct Calls {
    families: Families,
    pub(super) attachment: Attachment,
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

impl Calls {
    pub(super) fn new(families: Families, attachment: Attachment) -> Self {
        Self {
            requests: Counter(attachment.base(families.requests, "")),
            latencies: RefCell::default(),
            responses: RefCell::default(),
            last_response: Cell::new(0),
            families,
            attachment,
        }
    }

    /// Counts a request, once its head is parsed.
    pub(super) fn request(&self) {
        self.attachment.touch();
        self.requests.add(1);
    }

    /// Records the time from the request's head to the response's first data, or its end if it has none.
    pub(super) fn latency(&self, status: Option<u16>, latency: Duration, wider: Wider<'_>) {
        let Some(family) = self.families.latency else {
            return;
        };
        self.attachment.touch();
        let mut known = self.latencies.borrow_mut();
        let at = known.iter().position(|(s, _)| *s == status);
        let at = at.unwrap_or_else(|| {
            known.push((status, self.add_latency((family, status), wider)));
            known.len() - 1
        });
        known[at].1.observe(latency);
    }

    /// Counts a response, once its stream has ended.
    pub(super) fn response(&self, end: &ResponseEnd<'_>, wider: Wider<'_>) {
        self.attachment.touch();
        let known = self.responses.borrow();
        let last = self.last_response.get();
        if let Some(response) = known.get(last).filter(|r| r.is(end)) {
            return response.count.add(1);
        }
        let found = known.iter().position(|r| r.is(end));
        drop(known);
        let at = found.unwrap_or_else(|| self.add_response(end, wider));
        self.last_response.set(at);
        self.responses.borrow()[at].count.add(1);
    }

    fn add_latency(&self, (family, status): (Family, Option<u16>), wider: Wider<'_>) -> Histogram {
        let suffix = render::latency_suffix(status);
        self.attachment
            .grow(2 * size_of::<(Option<u16>, Histogram)>());
        self.attachment.histogram(family, &suffix, wider)
    }

    /// The place of a response that was not known under its own labels.
    fn add_response(&self, end: &ResponseEnd<'_>, wider: Wider<'_>) -> usize {
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
        let family = self.families.responses;
        let has_grpc = family.trailing().contains(&"grpc_status_code");
        let suffix = render::response_suffix(&end, has_grpc);
        let cells = self.attachment.cells(family, &suffix, wider);
        let added = Response {
            status: end.status,
            classification: end.classification,
            grpc_status: end.grpc_status.into(),
            error: end.error.into(),
            count: Counter(cells),
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
