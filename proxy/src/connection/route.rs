//! Route: from a connection's target to where it goes and what it is counted under.

use std::rc::Rc;

use crate::accept::Target;
use crate::forward::Destination;
use crate::record::{Book, Standing, Subject};
use crate::worker::Worker;

/// A destination and the labels of the connection, as far as they are known before it is looked at, and before an endpoint
/// has accepted.
pub(super) fn route(worker: &Worker, target: Target) -> (Destination, Book) {
    let labels = &worker.labels;
    let (to, port, subject) = match target {
        Target::Application { addr, hop, server } => {
            let port = hop.port();
            let server = server.or_else(|| worker.gate.server(port));
            let server = server.unwrap_or_else(|| labels.default_server(port));
            let subject = Subject::Inbound { server };
            (Destination::Address(addr), port, subject)
        }
        Target::Address(addr) => {
            let subject = Subject::Outbound {
                service: "".into(),
                dst: labels.unknown_destination(),
            };
            (Destination::Address(addr), addr.port(), subject)
        }
        Target::Service { set, port } => {
            let subject = Subject::Outbound {
                service: set.name.clone(),
                dst: labels.unknown_destination(),
            };
            (Destination::Service(set), port, subject)
        }
    };
    let book = Book {
        recorder: Rc::clone(&worker.recorder),
        labels: Rc::clone(labels),
        subject,
        target_port: port,
        standing: Standing::default(),
    };
    (to, book)
}
