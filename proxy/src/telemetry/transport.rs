//! The TCP series of one label set, as a connection holds them. Made by `Recorder::transport`; every call is a few
//! plain stores on cells of this worker.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use super::cells::{Counter, Gauge};
use super::family::{Family, Kind};
use super::labels::{Classification, Direction, Peer, Tls, TransportLabels, same_text};
use super::render;
use super::worker::{Attached, Attachment, Hand};

/// A pin on the TCP series of one label set: while any clone lives, they do not retire. Nor do they while a
/// connection that was opened has not been closed.
#[derive(Clone)]
pub struct TransportSeries(Rc<TransportEntry>);

pub(super) struct TransportEntry {
    attachment: Attachment,
    end: (Direction, Peer),
    tls: Tls,
    opened: Counter,
    open: Gauge,
    read: Counter,
    written: Counter,
    closed: RefCell<Vec<Closed>>,
}

struct Closed {
    classification: Classification,
    errno: &'static str,
    count: Counter,
}

impl TransportSeries {
    pub(super) fn new(entry: Rc<TransportEntry>) -> Self {
        Self(entry)
    }

    /// Counts a connection as opened and open.
    pub fn opened(&self) {
        self.0.attachment.touch();
        self.0.opened.add(1);
        self.0.open.up();
    }

    /// Counts bytes of application data that came from the peer.
    pub fn read(&self, bytes: u64) {
        self.0.attachment.touch();
        self.0.read.add(bytes);
    }

    /// Counts bytes of application data that went to the peer.
    pub fn written(&self, bytes: u64) {
        self.0.attachment.touch();
        self.0.written.add(bytes);
    }

    /// Counts the end of a connection that was [`opened`](Self::opened) on these series. `errno` is empty or the
    /// symbol (`ECONNRESET`). Also records the lifetime in `tcp_connection_duration_ms`.
    pub fn closed(&self, classification: Classification, errno: &'static str, lifetime: Duration) {
        let entry = &*self.0;
        debug_assert!(!entry.open.is_zero(), "closed without having been opened");
        if entry.open.is_zero() {
            return;
        }
        entry.attachment.touch();
        entry.count_close(classification, errno);
        let hand = &entry.attachment.hand;
        hand.duration(entry.end, &entry.tls, classification)
            .observe(lifetime);
        entry.open.down();
    }
}

impl TransportEntry {
    pub(super) fn new(hand: &Rc<Hand>, labels: &TransportLabels<'_>) -> Self {
        let attachment = Attachment::new(hand, Kind::Transport, labels);
        Self {
            end: (labels.end.direction(), labels.end.peer()),
            tls: labels.tls.clone(),
            opened: Counter(attachment.block(Family::TcpOpenTotal, "")),
            open: Gauge(attachment.block(Family::TcpOpenConnections, "")),
            read: Counter(attachment.block(Family::TcpReadBytes, "")),
            written: Counter(attachment.block(Family::TcpWriteBytes, "")),
            closed: RefCell::default(),
            attachment,
        }
    }

    fn count_close(&self, classification: Classification, errno: &'static str) {
        let mut known = self.closed.borrow_mut();
        let is = |c: &Closed| c.classification == classification && same_text(c.errno, errno);
        let at = known.iter().position(is).unwrap_or_else(|| {
            let suffix = render::close_suffix(classification, errno);
            let block = self.attachment.block(Family::TcpCloseTotal, &suffix);
            known.push(Closed {
                classification,
                errno,
                count: Counter(block),
            });
            known.len() - 1
        });
        known[at].count.add(1);
    }
}

impl Attached for TransportEntry {
    fn attachment(&self) -> &Attachment {
        &self.attachment
    }

    fn at_rest(&self) -> bool {
        self.open.is_zero()
    }
}
