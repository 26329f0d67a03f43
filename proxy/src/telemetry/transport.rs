//! The TCP series of one label set, as a connection holds them. Made by `Recorder::transport`; every call is a few
//! plain stores on cells of this worker.

use std::cell::RefCell;
use std::hash::{Hash, Hasher};
use std::rc::Rc;
use std::time::Duration;

use indexmap::Equivalent;

use super::budget::Claim;
use super::cells::{Counter, Gauge};
use super::family::{Family, Kind};
use super::labels::{
    Classification, Dst, Stand, TransportEnd, TransportKey, TransportLabels, same_text,
};
use super::render;
use super::resolve::{Lookup, wider};
use super::rules::Rules;
use super::worker::{Attached, Attachment};

/// A pin on the TCP series of one label set: while any clone lives, they do not retire. Nor do they while a
/// connection that was opened has not been closed.
#[derive(Clone)]
pub struct TransportSeries(Rc<TransportEntry>);

pub(super) struct TransportEntry {
    key: TransportKey,
    attachment: Attachment,
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

    /// False once a new look-up could find something better: the rules have changed, or these stand for series that
    /// were refused and there is room now.
    pub fn is_current(&self) -> bool {
        self.0.attachment.is_current()
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
        let labels = entry.key.view();
        let end = (labels.end.direction(), labels.end.peer());
        let hand = &entry.attachment.hand;
        hand.lived(end, labels.tls, classification, lifetime);
        entry.open.down();
    }
}

impl TransportEntry {
    fn new(labels: &TransportLabels<'_>, attachment: Attachment) -> Self {
        let cells = |family| attachment.base(family, "");
        Self {
            opened: Counter(cells(Family::TcpOpenTotal)),
            open: Gauge(cells(Family::TcpOpenConnections)),
            read: Counter(cells(Family::TcpReadBytes)),
            written: Counter(cells(Family::TcpWriteBytes)),
            closed: RefCell::default(),
            key: TransportKey::new(labels),
            attachment,
        }
    }

    fn count_close(&self, classification: Classification, errno: &'static str) {
        let mut known = self.closed.borrow_mut();
        let is = |c: &Closed| c.classification == classification && same_text(c.errno, errno);
        let at = known.iter().position(is).unwrap_or_else(|| {
            let suffix = render::close_suffix(classification, errno);
            let (rules, own) = self.attachment.standing();
            let wider = |claim| wider(self.key.view(), (&rules, own), claim);
            let block = self
                .attachment
                .cells(Family::TcpCloseTotal, &suffix, &wider);
            self.attachment.grow(2 * size_of::<Closed>());
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

    fn claim(&self, rules: &Rules) -> Claim {
        self.key.view().claim(rules)
    }
}

impl Hash for TransportEntry {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key.view().hash(state);
    }
}

impl PartialEq for TransportEntry {
    fn eq(&self, other: &Self) -> bool {
        self.key.view().is(&other.key.view())
    }
}

impl Eq for TransportEntry {}

impl Equivalent<Rc<TransportEntry>> for TransportLabels<'_> {
    fn equivalent(&self, entry: &Rc<TransportEntry>) -> bool {
        self.is(&entry.key.view())
    }
}

impl<'a> Lookup<'a> for TransportLabels<'a> {
    const KIND: Kind = Kind::Transport;
    type Entry = TransportEntry;

    fn project(self, rules: &'a Rules) -> Self {
        rules.project_transport(self)
    }

    fn is(&self, other: &Self) -> bool {
        TransportLabels::is(self, other)
    }

    fn claim(&self, rules: &Rules) -> Claim {
        rules.claim(self.is_open(), self.authority(), self.target_port)
    }

    fn overflowed(self, stand: &'a Stand, vouched: bool) -> Self {
        TransportLabels::overflowed(self, stand, vouched)
    }

    fn without_ports(self) -> Self {
        TransportLabels::without_ports(self)
    }

    fn dst(&self) -> Option<&'a Dst> {
        match self.end {
            TransportEnd::OutboundDst { dst, .. } => Some(dst),
            _ => None,
        }
    }

    fn own_text(&self) -> usize {
        self.authority().len()
    }

    fn entry(self, attachment: Attachment) -> TransportEntry {
        TransportEntry::new(&self, attachment)
    }
}
