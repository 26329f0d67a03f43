//! From a destination to an open connection: an address is dialed, a service's endpoints one
//! after the other until one accepts.
//!
//! `detect::wait` and `connection` call it. Nothing has been sent yet, so another endpoint
//! may always be tried; whoever refuses is set aside for the connections to come.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::Instant;

use super::{Config, DialError, dial};
use crate::endpoints::{Claim, EndpointSet, Search};
use crate::telemetry::Dst;

/// Where a connection is to go.
#[derive(Clone, Debug)]
pub enum Destination {
    Address(SocketAddr),
    Service(Rc<EndpointSet>),
}

/// An open connection.
#[derive(Debug)]
pub struct Connected {
    pub stream: TcpStream,
    /// The claim on its endpoint, to be held as long as the connection lives.
    pub claim: Option<Claim>,
    /// How long its endpoint took to accept.
    pub took: Duration,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct Failed {
    #[source]
    pub error: DialError,
    /// The labels of the endpoint that was tried last, if any was.
    pub dst: Option<Dst>,
}

/// Opens a connection within `config.connect_timeout`.
///
/// # Errors
/// That of the endpoint tried last: every one has been tried that there was time for, but of
/// those set aside only the last resorts.
pub async fn connect(to: &Destination, config: &Config) -> Result<Connected, Failed> {
    let set = match to {
        Destination::Address(addr) => return connect_to(*addr, config).await,
        Destination::Service(set) => set,
    };
    let deadline = Instant::now() + config.connect_timeout;
    let mut search = Search::new(Rc::clone(set));
    let mut failed = Failed {
        error: DialError::NoEndpoint(Rc::clone(&set.name)),
        dst: None,
    };
    loop {
        let now = Instant::now();
        let left = deadline.saturating_duration_since(now);
        if left.is_zero() {
            return Err(failed);
        }
        let Some(claim) = search.next(now.into_std()) else {
            return Err(failed);
        };
        let limit = if search.has_other(claim.addr, now.into_std()) {
            left.min(config.attempt_timeout)
        } else {
            left
        };
        match dial(claim.addr, limit, config).await {
            Ok(stream) => {
                claim.accepted();
                return Ok(Connected {
                    stream,
                    claim: Some(claim),
                    took: now.elapsed(),
                });
            }
            Err(error) => {
                tracing::debug!(%error, service = %set.name, "an endpoint is left for another");
                let is_over = matches!(error, DialError::Socket(_));
                if error.is_of_endpoint() {
                    claim.refused(Instant::now().into_std());
                }
                search.failed(claim.addr);
                let dst = Some(claim.dst.clone());
                failed = Failed { error, dst };
                if is_over {
                    return Err(failed);
                }
            }
        }
    }
}

async fn connect_to(addr: SocketAddr, config: &Config) -> Result<Connected, Failed> {
    let start = Instant::now();
    match dial(addr, config.connect_timeout, config).await {
        Ok(stream) => Ok(Connected {
            stream,
            claim: None,
            took: start.elapsed(),
        }),
        Err(error) => Err(Failed { error, dst: None }),
    }
}
