//! The proxy's connection to the operator: one, for all its calls, kept for as long as the proxy runs and made anew when
//! it breaks. `app` opens it on the service thread where a pod's variables name an operator; `discovery`, and whoever
//! else calls, holds a [`Client`]. It must not know what is called.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use tokio::sync::{Notify, watch};

use crate::record::CallLog;

mod client;
mod connect;
mod keep;
mod received;
mod retry;
mod target;

pub use client::{CallError, Client};
pub use keep::Connection;
pub use received::Received;
pub use retry::{Pause, Retry};
pub use target::{Target, TargetError};

/// How the operator is reached.
#[derive(Clone, Debug)]
pub struct Config {
    pub target: Target,
    /// The file with the bearer token of every call, read anew for each: what is in it is replaced before it expires.
    /// Default none: calls say nothing about who makes them.
    pub token: Option<PathBuf>,
    /// Longest time for the operator's name to be resolved, and for each of its addresses to be connected to, TLS and
    /// SETTINGS of HTTP/2 included. Default: 2 s.
    pub connect_timeout: Duration,
    /// Pauses between attempts to connect. Default: 100 ms to 4 s, so that a proxy is back within 10 s of the operator.
    pub retry: Retry,
    /// Silence after which the operator is asked whether it is still there (PING, RFC 9113 section 6.7).
    /// Default: 10 s.
    pub ping_interval: Duration,
    /// How long it may take to answer that. Default: 5 s; then the connection is given up.
    pub ping_timeout: Duration,
    /// How long calls may go on on a connection whose operator takes no new ones (GOAWAY). Default: 30 s.
    pub linger: Duration,
}

impl Config {
    /// The defaults for this target.
    pub fn new(target: Target) -> Self {
        Self {
            target,
            token: None,
            connect_timeout: Duration::from_secs(2),
            retry: Retry {
                min: Duration::from_millis(100),
                max: Duration::from_secs(4),
            },
            ping_interval: Duration::from_secs(10),
            ping_timeout: Duration::from_secs(5),
            linger: Duration::from_secs(30),
        }
    }
}

/// What calls are sent on, while there is a connection.
type Slot = Option<SendRequest<Bytes>>;

/// A client, and the connection that is to be kept for it. Every call is written to `log`.
pub fn open(config: Config, log: CallLog) -> (Client, Connection) {
    let (slot, calls) = watch::channel(None);
    let refused = Arc::new(Notify::new());
    let client = Client::new(&config, log, (calls, Arc::clone(&refused)));
    (client, Connection::new(config, slot, refused))
}
