//! From a destination to an open connection: an address is dialed, a service's endpoints one
//! after the other until one accepts.
//!
//! `detect::wait` and `connection` call it, and `terminate` has it search for its streams. Nothing has been sent yet, so another endpoint
//! may always be tried; whoever refuses is set aside for the connections to come.

use std::borrow::Borrow;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Config, DialError, Dialer};
use crate::endpoints::{Beside, Claim, EndpointSet, Search};
use crate::session::Hop;
use crate::stream::Stream;
use crate::telemetry::{Dst, NoTlsReason, Tls};

/// Where a connection is to go.
#[derive(Clone, Debug)]
pub enum Destination {
    Address(SocketAddr),
    Service(Rc<EndpointSet>),
}

impl Destination {
    /// Whether it may be another, by what its client asks for.
    pub fn is_steered(&self) -> bool {
        matches!(self, Self::Service(set) if set.has_branches())
    }
}

/// An open connection.
#[derive(Debug)]
pub struct Connected {
    pub stream: Stream,
    /// Whether it is secured, and by whom.
    pub tls: Tls,
    /// The claim on its endpoint, to be held as long as the connection lives.
    pub claim: Option<Claim>,
    /// How long its endpoint took to accept.
    pub took: Duration,
    /// Its endpoint, where the service has several.
    pub hop: Option<Hop>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct Failed<E = DialError> {
    #[source]
    pub error: E,
    /// The labels of the endpoint that was tried last, if any was.
    pub dst: Option<Dst>,
    /// Whether it was to be secured.
    pub tls: Tls,
}

/// Opens a connection within `config.connect_timeout` of the dialer; of a service, for a request that is sent again, `beside`
/// where it was.
///
/// # Errors
/// That of the address, or of a [`search`].
pub async fn connect(
    to: &Destination,
    beside: Option<Beside>,
    dialer: &Dialer,
) -> Result<Connected, Failed> {
    let set = match to {
        Destination::Address(addr) => return connect_to(*addr, dialer).await,
        Destination::Service(set) => set,
    };
    let beside = beside.unwrap_or_default();
    let refused = beside.refused.clone();
    let endpoints = Search::new(Rc::clone(set)).beside(beside);
    let dialed = search(endpoints, &dialer.config, async |claim, limit| {
        let start = Instant::now();
        let to = (claim.addr, claim.identity.as_ref());
        let (tls, dialed) = dialer.dial(to, limit).await;
        match dialed {
            Ok(stream) => Ok((stream, tls, start.elapsed())),
            Err(error) => Err((error, tls)),
        }
    });
    let (claim, (stream, tls, took)) = dialed.await?;
    let addr = claim.addr;
    let hop = set.has_other(addr, &[]).then(|| Hop {
        addr,
        has_other: set.has_other(addr, &refused),
    });
    Ok(Connected {
        stream,
        tls,
        claim: Some(claim),
        took,
        hop,
    })
}

/// Has `attempt` try the endpoints that a search gives out within `config.connect_timeout`, the best one first, until one takes
/// what it is tried with. It is told how long it may take.
///
/// # Errors
/// That of the endpoint tried last: every one has been tried that there was time for, but of
/// those set aside only the last resorts.
pub async fn search<T, E>(
    mut search: Search,
    config: &Config,
    mut attempt: impl AsyncFnMut(&Claim, Duration) -> Result<T, (E, Tls)>,
) -> Result<(Claim, T), Failed<E>>
where
    E: Borrow<DialError> + From<DialError>,
{
    let deadline = Instant::now() + config.connect_timeout;
    let mut failed = Failed {
        error: DialError::NoEndpoint(Rc::clone(search.service())).into(),
        dst: None,
        tls: Tls::NoIdentity(NoTlsReason::NotProvidedByServiceDiscovery),
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
        match attempt(&claim, limit).await {
            Ok(taken) => {
                claim.accepted();
                return Ok((claim, taken));
            }
            Err((error, tls)) => {
                let why: &DialError = error.borrow();
                tracing::debug!(error = %why, service = %search.service(), "an endpoint is left for another");
                let is_over = matches!(why, DialError::Socket(_));
                if why.is_of_endpoint() {
                    claim.refused(Instant::now().into_std());
                }
                match why.is_timeout() {
                    true => search.timed_out(claim.addr),
                    false => search.failed(claim.addr),
                }
                let dst = Some(claim.dst.clone());
                failed = Failed { error, dst, tls };
                if is_over {
                    return Err(failed);
                }
            }
        }
    }
}

async fn connect_to(addr: SocketAddr, dialer: &Dialer) -> Result<Connected, Failed> {
    let start = Instant::now();
    let limit = dialer.config.connect_timeout;
    let (tls, dialed) = dialer.dial((addr, None), limit).await;
    match dialed {
        Ok(stream) => Ok(Connected {
            stream,
            tls,
            claim: None,
            took: start.elapsed(),
            hop: None,
        }),
        Err(error) => Err(Failed {
            error,
            dst: None,
            tls,
        }),
    }
}

#[cfg(test)]
impl Destination {
    /// A service with these endpoints, some of whose requests go elsewhere.
    pub(crate) fn steered(endpoints: &[SocketAddr]) -> Self {
        use crate::endpoints::{self, Branch, Listed, Service};
        use crate::routes::Backend;

        let listed = |addr: &SocketAddr| Listed::plain(*addr, Dst::unknown());
        let backend = Backend {
            authority: "other".to_owned(),
            weight: 1,
        };
        let branch = Branch {
            backends: [backend].into(),
            endpoints: Vec::new(),
        };
        let service = Service {
            endpoints: endpoints.iter().map(listed).collect(),
            branches: vec![branch],
            ..Service::default()
        };
        let (config, random) = (endpoints::Config::default(), fastrand::Rng::with_seed(7));
        let set = EndpointSet::new(service, config, random, std::time::Instant::now());
        Self::Service(Rc::new(set))
    }
}
