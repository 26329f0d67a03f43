//! What a worker records with. One per worker: made on any thread as a [`Seat`], taken by the worker's own thread,
//! and then used only there. The pipeline calls it; it never waits but for the store's lock when a label set is new.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use indexmap::Equivalent;

use super::cells::Counter;
use super::family::Family;
use super::http::{HttpEntry, HttpSeries};
use super::http2::{GrpcEntry, GrpcKey, GrpcSeries, Http2Entry, Http2Series};
use super::labels::{
    Direction, GrpcLabels, HttpErrorLabels, HttpKey, HttpLabels, Peer, TcpErrorLabels,
    TransportKey, TransportLabels,
};
use super::render::{Render, Unparsed};
use super::store::Store;
use super::transport::{TransportEntry, TransportSeries};
use super::worker::{Attached, Attachment, Hand, Table};

/// The right to be the only writer of one shard; move it to the worker's thread and [`take`](Seat::take) it there.
pub struct Seat {
    pub(super) store: Arc<Store>,
    pub(super) worker: usize,
}

impl Seat {
    /// Becomes the worker's recorder, which stays on this thread.
    pub fn take(self) -> Recorder {
        let recorder = Recorder {
            tables: Rc::default(),
            hand: Rc::new(Hand::new(self.store, self.worker)),
        };
        for direction in [Direction::Inbound, Direction::Outbound] {
            recorder.count(Family::DetectTimeout, &direction, 0);
            for peer in [Peer::Src, Peer::Dst] {
                recorder.http2(direction, peer);
            }
        }
        recorder
    }
}

/// A worker's recorder; clones share everything.
#[derive(Clone)]
pub struct Recorder {
    hand: Rc<Hand>,
    tables: Rc<Tables>,
}

#[derive(Default)]
struct Tables {
    http: Table<HttpKey, HttpEntry>,
    transport: Table<TransportKey, TransportEntry>,
    http2: Table<(Direction, Peer), Http2Entry>,
    grpc: Table<GrpcKey, GrpcEntry>,
    counts: Table<CountKey, CountEntry>,
    /// Where the labels of a count are rendered to be looked up.
    scratch: RefCell<String>,
}

/// Family and rendered labels.
#[derive(PartialEq, Eq, Hash)]
struct CountKey(Family, Box<str>);

/// A borrowed [`CountKey`].
#[derive(Hash)]
struct CountLabels<'a>(Family, &'a str);

impl Equivalent<CountKey> for CountLabels<'_> {
    fn equivalent(&self, key: &CountKey) -> bool {
        self.0 == key.0 && *self.1 == *key.1
    }
}

/// The single counter of a label set that is not worth a handle.
struct CountEntry {
    attachment: Attachment,
    family: Family,
    count: Counter,
}

impl Recorder {
    /// Pins the HTTP series of these labels, registering them (at 0) if they are new.
    pub fn http(&self, labels: &HttpLabels<'_>) -> HttpSeries {
        let table = &self.tables.http;
        HttpSeries::new(table.get(labels).unwrap_or_else(|| {
            table.insert(HttpKey::new(labels), HttpEntry::new(&self.hand, labels))
        }))
    }

    /// Pins the TCP series of these labels, registering them (at 0) if they are new.
    pub fn transport(&self, labels: &TransportLabels<'_>) -> TransportSeries {
        let table = &self.tables.transport;
        TransportSeries::new(table.get(labels).unwrap_or_else(|| {
            let entry = TransportEntry::new(&self.hand, labels);
            table.insert(TransportKey::new(labels), entry)
        }))
    }

    /// The gauges of HTTP/2 with these labels, which never retire.
    pub fn http2(&self, direction: Direction, peer: Peer) -> Http2Series {
        let (table, key) = (&self.tables.http2, (direction, peer));
        let make = || table.insert(key, Http2Entry::new(&self.hand, key));
        Http2Series::new(table.get(&key).unwrap_or_else(make))
    }

    /// Pins the gRPC series of these labels, registering them (at 0) if they are new.
    pub fn grpc(&self, labels: &GrpcLabels<'_>) -> GrpcSeries {
        let table = &self.tables.grpc;
        let make = || table.insert(GrpcKey::new(labels), GrpcEntry::new(&self.hand, labels));
        GrpcSeries::new(table.get(labels).unwrap_or_else(make))
    }

    /// Counts a connection that the proxy could not process.
    pub fn tcp_error(&self, labels: &TcpErrorLabels) {
        let family = match labels.direction {
            Direction::Inbound => Family::InboundTcpErrors,
            Direction::Outbound => Family::OutboundTcpErrors,
        };
        self.count(family, labels, 1);
    }

    /// Counts an answer that the proxy made up itself.
    pub fn http_error(&self, labels: &HttpErrorLabels<'_>) {
        let family = match labels.direction {
            Direction::Inbound => Family::InboundHttpErrors,
            Direction::Outbound => Family::OutboundHttpErrors,
        };
        self.count(family, labels, 1);
    }

    /// Counts a connection that began as HTTP and goes on unmeasured.
    pub fn unparsed(&self, direction: Direction, reason: &'static str) {
        self.count(Family::Unparsed, &Unparsed(direction, reason), 1);
    }

    /// Counts a connection that was passed on unrecognised because neither side spoke.
    pub fn detect_timeout(&self, direction: Direction) {
        self.count(Family::DetectTimeout, &direction, 1);
    }

    /// Call about once a second: tells the time, to which writes are dated, and lets go of what is idle.
    pub fn tick(&self, now: Instant) {
        self.hand.tick(self.hand.store.millis(now));
        let mut gone = self.tables.http.let_go();
        gone.append(&mut self.tables.transport.let_go());
        gone.append(&mut self.tables.grpc.let_go());
        gone.append(&mut self.tables.counts.let_go());
        self.hand.store.detach(gone);
    }

    fn count(&self, family: Family, labels: &impl Render, n: u64) {
        let text = &mut *self.tables.scratch.borrow_mut();
        text.clear();
        labels.render(text);
        let table = &self.tables.counts;
        let known = table.get(&CountLabels(family, text));
        let entry = known.unwrap_or_else(|| {
            let attachment = Attachment::new(&self.hand, family.kind(), labels);
            let entry = CountEntry {
                count: Counter(attachment.block(family, "")),
                attachment,
                family,
            };
            table.insert(CountKey(family, text.as_str().into()), entry)
        });
        entry.attachment.touch();
        entry.count.add(n);
    }
}

impl Attached for CountEntry {
    fn attachment(&self) -> &Attachment {
        &self.attachment
    }

    fn at_rest(&self) -> bool {
        !self.family.bounded()
    }
}
