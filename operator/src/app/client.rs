//! The client of the API server, which gives no answer more time than this. Called by `main` and by tests. It knows no
//! resource.

use std::time::Duration;

use kube::Client;

use crate::watch::WATCH_LIMIT;

/// Longest silence of the API server within an answer: a list, or a watch, which it ends before that itself. A connection
/// that has died without a word, as with a node, is given up then, and what was asked is asked again.
pub const READ_TIMEOUT: Duration = Duration::from_secs(75);

/// How long the other end of a watch takes to end it, at most.
const MARGIN: Duration = Duration::from_secs(10);
const _: () = assert!(READ_TIMEOUT.as_secs() >= WATCH_LIMIT.as_secs() + MARGIN.as_secs());

/// A client with [`READ_TIMEOUT`], unless the configuration has its own.
///
/// # Errors
/// Where the configuration cannot be used.
pub fn client(mut config: kube::Config) -> kube::Result<Client> {
    config.read_timeout.get_or_insert(READ_TIMEOUT);
    // Counted from the request, not from the end of what its connection carried before.
    config.reset_reader_on_write = true;
    Client::try_from(config)
}
