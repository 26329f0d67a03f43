//! What the detection of one connection teaches about its destination, for the next ones. Asked and told by `connection`.

use super::Routed;
use crate::detect::wait::Detected;
use crate::forward::Destination;
use crate::worker::Worker;

/// Whether the servers of this destination are known to speak before their clients.
pub(super) fn speaks_first(worker: &Worker, to: &Destination) -> bool {
    match to {
        Destination::Address(addr) => worker.server_first.borrow().contains(*addr),
        Destination::Service(set) => set.server_first.get(),
    }
}

pub(super) fn learn(worker: &Worker, routed: &Routed, detected: &Detected, dialed_at_once: bool) {
    let known = &worker.server_first;
    match &routed.to {
        _ if !detected.server_first && (!dialed_at_once || detected.up.is_empty()) => {}
        Destination::Address(addr) if detected.server_first => known.borrow_mut().learn(*addr),
        Destination::Address(addr) => known.borrow_mut().forget(*addr),
        Destination::Service(set) => set.server_first.set(detected.server_first),
    }
    if detected.timed_out {
        worker
            .recorder
            .detect_timeout(routed.book.subject.direction());
    }
}
