//! The series of HTTP/2 connections and of gRPC calls, as their handlers hold them. Made by `Recorder::http2` and
//! `Recorder::grpc`; every call is a plain store on a cell of this worker. Knows no protocol: what has opened, closed
//! or passed is told to it.

use std::rc::{Rc, Weak};

use indexmap::Equivalent;

use super::cells::{Counter, Gauge};
use super::family::{Family, Kind};
use super::labels::{Direction, GrpcLabels, Peer, same_text};
use super::render;
use super::worker::{Attached, Attachment, Hand};

/// The gauges `http2_active_connections` and `http2_active_streams` of one direction and peer.
#[derive(Clone)]
pub struct Http2Series(Rc<Http2Entry>);

pub(super) struct Http2Entry {
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

impl Http2Entry {
    pub(super) fn new(hand: &Rc<Hand>, labels: (Direction, Peer)) -> Self {
        let attachment = Attachment::new(hand, Kind::Http2, &labels);
        Self {
            connections: Gauge(attachment.block(Family::Http2Connections, "")),
            streams: Gauge(attachment.block(Family::Http2Streams, "")),
            attachment,
        }
    }
}

impl Attached for Http2Entry {
    fn attachment(&self) -> &Attachment {
        &self.attachment
    }

    /// There are four, all known beforehand: they stay.
    fn at_rest(&self) -> bool {
        false
    }
}

/// A pin on `grpc_messages_total` of one direction and authority: while any clone lives, it does not retire.
#[derive(Clone)]
pub struct GrpcSeries(Rc<GrpcEntry>);

/// Remembers the series without keeping them; what caches hold.
#[derive(Clone)]
pub struct GrpcRef(Weak<GrpcEntry>);

pub(super) struct GrpcEntry {
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
    /// Pins again; `None` once the series have been let go.
    pub fn pin(&self) -> Option<GrpcSeries> {
        self.0.upgrade().map(GrpcSeries)
    }
}

impl GrpcEntry {
    pub(super) fn new(hand: &Rc<Hand>, labels: &GrpcLabels<'_>) -> Self {
        let attachment = Attachment::new(hand, Kind::Grpc, labels);
        let counter = |kind| {
            let suffix = render::kind_suffix(kind);
            Counter(attachment.block(Family::GrpcMessages, &suffix))
        };
        Self {
            sent: counter("sent"),
            received: counter("received"),
            attachment,
        }
    }
}

impl Attached for GrpcEntry {
    fn attachment(&self) -> &Attachment {
        &self.attachment
    }

    fn at_rest(&self) -> bool {
        true
    }
}

/// The owned form of [`GrpcLabels`], the key of a worker's table.
#[derive(PartialEq, Eq, Hash)]
pub(super) struct GrpcKey(Direction, Box<str>);

impl GrpcKey {
    pub(super) fn new(labels: &GrpcLabels<'_>) -> Self {
        Self(labels.direction, labels.authority.into())
    }
}

impl Equivalent<GrpcKey> for GrpcLabels<'_> {
    fn equivalent(&self, key: &GrpcKey) -> bool {
        self.direction == key.0 && same_text(self.authority, &key.1)
    }
}
