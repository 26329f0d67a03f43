//! How the API server is asked: no answer has more time than this, and no watch is older. It knows no resource.

use std::time::Duration;

use kube::runtime::watcher;
use kube::{Client, Config};

/// Longest silence of the API server within an answer: a list, or a watch, which it ends before that itself. A connection
/// that has died without a word, as with a node, is given up then, and what was asked is asked again.
pub const READ_TIMEOUT: Duration = Duration::from_secs(75);

/// When the API server ends a watch, and it is begun again: one whose connection has died without a word is missed soon.
pub const WATCH_LIMIT: Duration = Duration::from_secs(60);

/// How long the other end of a watch takes to end it, at most.
const MARGIN: Duration = Duration::from_secs(10);
const _: () = assert!(READ_TIMEOUT.as_secs() >= WATCH_LIMIT.as_secs() + MARGIN.as_secs());

/// A client with [`READ_TIMEOUT`], unless the configuration has its own.
///
/// # Errors
/// Where the configuration cannot be used.
pub fn client(mut config: Config) -> kube::Result<Client> {
    config.read_timeout.get_or_insert(READ_TIMEOUT);
    // Counted from the request, not from the end of what its connection carried before.
    config.reset_reader_on_write = true;
    Client::try_from(config)
}

/// A watch that ends after [`WATCH_LIMIT`].
#[must_use]
pub fn limited(config: watcher::Config) -> watcher::Config {
    let seconds = u32::try_from(WATCH_LIMIT.as_secs()).expect("a minute fits");
    config.timeout(seconds)
}
