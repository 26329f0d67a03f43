//! The series of HTTP/2 connections and of gRPC calls, as their handlers hold them. Made by `Recorder::http2` and
//! `Recorder::grpc`; every call is a plain store on a cell of this worker. Knows no protocol: what has opened, closed
//! or passed is told to it.

use std::hash::{Hash, Hasher};
use std::rc::{Rc, Weak};

use indexmap::Equivalent;

use super::budget::Claim;
use super::cells::{Counter, Gauge};
use super::family::{Family, Kind, RECEIVED, SENT};
use super::labels::{Direction, GrpcLabels, OVERFLOW, Peer, Stand, same_text, without_port};
use super::resolve::Lookup;
use super::rules::Rules;
use super::worker::{Attached, Attachment};

/// The gauges `http2_active_connections` and `http2_active_streams` of one direction and peer.
#[derive(Clone)]
pub struct Http2Series(Rc<Http2Entry>);

/// The labels of `http2_active_*`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Http2Labels(pub(super) Direction, pub(super) Peer);

pub(super) struct Http2Entry {
    labels: Http2Labels,
    attachment: Attachment,
    connections: Gauge,
    streams: Gauge,
}

impl Http2Series {
    pub(super) fn new(entry: Rc<Http2Entry>) -> Self {
        Self(entry)
    }

    /// A connection speaks HTTP/2.
    pub fn connection_opened(&self) {
        self.0.connections.up();
    }

    /// The end of a connection that was [`opened`](Self::connection_opened) here.
    pub fn connection_closed(&self) {
        self.0.connections.down();
    }

    /// A stream has opened.
    pub fn stream_opened(&self) {
        self.0.streams.up();
    }

    /// The end of a stream that was [`opened`](Self::stream_opened) here.
    pub fn stream_closed(&self) {
        self.0.streams.down();
    }
}

impl Attached for Http2Entry {
    fn attachment(&self) -> &Attachment {
        &self.attachment
    }

    fn at_rest(&self) -> bool {
        self.connections.is_zero() && self.streams.is_zero()
    }

    fn claim(&self, _rules: &Rules) -> Claim {
        Claim::Last
    }

    /// There are four, all known beforehand.
    fn is_permanent(&self) -> bool {
        true
    }
}

impl Hash for Http2Entry {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.labels.hash(state);
    }
}

impl PartialEq for Http2Entry {
    fn eq(&self, other: &Self) -> bool {
        self.labels == other.labels
    }
}

impl Eq for Http2Entry {}

impl Equivalent<Rc<Http2Entry>> for Http2Labels {
    fn equivalent(&self, entry: &Rc<Http2Entry>) -> bool {
        *self == entry.labels
    }
}

impl<'a> Lookup<'a> for Http2Labels {
    const KIND: Kind = Kind::Http2;
    type Entry = Http2Entry;

    fn is(&self, other: &Self) -> bool {
        self == other
    }

    fn claim(&self, _rules: &Rules) -> Claim {
        Claim::Last
    }

    fn entry(self, attachment: Attachment) -> Http2Entry {
        let gauge = |family| Gauge(attachment.base(family, ""));
        Http2Entry {
            labels: self,
            connections: gauge(Family::Http2Connections),
            streams: gauge(Family::Http2Streams),
            attachment,
        }
    }
}

/// A pin on `grpc_messages_total` of one direction and authority: while any clone lives, it does not retire.
#[derive(Clone)]
pub struct GrpcSeries(Rc<GrpcEntry>);

/// Remembers the series without keeping them; what caches hold.
#[derive(Clone)]
pub struct GrpcRef(Weak<GrpcEntry>);

pub(super) struct GrpcEntry {
    direction: Direction,
    /// Of the traffic that it was made for.
    target_port: u16,
    authority: Box<str>,
    attachment: Attachment,
    sent: Counter,
    received: Counter,
}

impl GrpcSeries {
    pub(super) fn new(entry: Rc<GrpcEntry>) -> Self {
        Self(entry)
    }

    /// Counts messages that the pod's application has sent.
    pub fn sent(&self, messages: u64) {
        self.0.attachment.touch();
        self.0.sent.add(messages);
    }

    /// Counts messages that were sent to the pod's application.
    pub fn received(&self, messages: u64) {
        self.0.attachment.touch();
        self.0.received.add(messages);
    }

    /// A reference that does not pin.
    pub fn downgrade(&self) -> GrpcRef {
        GrpcRef(Rc::downgrade(&self.0))
    }
}

impl GrpcRef {
    /// Pins again; `None` once the series have been let go or would no longer be the ones.
    pub fn pin(&self) -> Option<GrpcSeries> {
        let entry = self.0.upgrade()?;
        entry.attachment.is_current().then_some(GrpcSeries(entry))
    }
}

impl Attached for GrpcEntry {
    fn attachment(&self) -> &Attachment {
        &self.attachment
    }

    fn at_rest(&self) -> bool {
        true
    }

    fn claim(&self, rules: &Rules) -> Claim {
        let labels = GrpcLabels {
            direction: self.direction,
            authority: &self.authority,
            target_port: self.target_port,
        };
        labels.claim(rules)
    }
}

impl Hash for GrpcLabels<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.direction.hash(state);
        state.write(self.authority.as_bytes());
    }
}

impl Hash for GrpcEntry {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.direction.hash(state);
        state.write(self.authority.as_bytes());
    }
}

impl PartialEq for GrpcEntry {
    fn eq(&self, other: &Self) -> bool {
        self.direction == other.direction && same_text(&self.authority, &other.authority)
    }
}

impl Eq for GrpcEntry {}

impl Equivalent<Rc<GrpcEntry>> for GrpcLabels<'_> {
    fn equivalent(&self, entry: &Rc<GrpcEntry>) -> bool {
        self.direction == entry.direction && same_text(self.authority, &entry.authority)
    }
}

impl<'a> Lookup<'a> for GrpcLabels<'a> {
    const KIND: Kind = Kind::Grpc;
    type Entry = GrpcEntry;

    fn project(self, rules: &'a Rules) -> Self {
        rules.project_grpc(self)
    }

    fn is(&self, other: &Self) -> bool {
        self.direction == other.direction && same_text(self.authority, other.authority)
    }

    fn claim(&self, rules: &Rules) -> Claim {
        let is_open = !self.authority.is_empty();
        rules.claim(is_open, self.authority, self.target_port)
    }

    fn overflowed(mut self, _stand: &'a Stand, vouched: bool) -> Self {
        if !vouched && !self.authority.is_empty() {
            self.authority = OVERFLOW;
        }
        self
    }

    fn without_ports(mut self) -> Self {
        self.authority = without_port(self.authority);
        self
    }

    fn own_text(&self) -> usize {
        self.authority.len()
    }

    fn entry(self, attachment: Attachment) -> GrpcEntry {
        let counter = |kind| Counter(attachment.base(Family::GrpcMessages, kind));
        GrpcEntry {
            direction: self.direction,
            target_port: self.target_port,
            authority: self.authority.into(),
            sent: counter(SENT),
            received: counter(RECEIVED),
            attachment,
        }
    }
}
