//! From what the pipeline saw to the series it is counted in: the labels of a
//! connection, and guards that close its accounts however it ends.
//!
//! Made once per connection by `connection`; used by the session and the relay. It is
//! the only module of the pipeline that builds labels.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::permission::Verdict;
use crate::telemetry::{
    Authz, AuthzLabels, Classification, CountRef, Direction, Dst, GrpcRef, HttpErrorLabels,
    HttpLabels, HttpRef, HttpSeries, HttpSide, NoTlsReason, NotFoundLabels, Peer, Recorder, Route,
    Server, TcpErrorLabels, Tls, TransportEnd, TransportLabels, TransportSeries,
};

mod authority;
mod calls;
mod census;
mod errno;
mod http2;
mod known;
mod routed;

pub use authority::{Authority, MAX_AUTHORITY, Scheme};
pub use calls::{CALL_EVENTS, CallEvent, CallLog, CallSource, Calls};
pub use census::Census;
pub use http2::{GrpcAccount, Http2Account, Http2Side};
pub use known::Known;
pub use routed::Account;

use authority::canonical;

/// Servers whose rendered labels a worker remembers; a pod has few ports.
const KNOWN_SERVERS: usize = 256;

/// The labels that all connections of a worker share.
#[derive(Debug)]
pub struct Labels {
    route: Route,
    authz: Authz,
    no_authz: Authz,
    not_tls: Tls,
    loopback: Tls,
    undiscovered: Tls,
    unknown: Dst,
    policy: String,
    servers: RefCell<HashMap<u16, Server>>,
}

impl Labels {
    /// Of a mesh whose default policy has this name.
    pub fn new(policy: &str) -> Self {
        Self {
            route: Route::new("", "default", "default"),
            authz: Authz::new("", "default", policy),
            no_authz: Authz::new("", "", ""),
            not_tls: Tls::NoIdentity(NoTlsReason::NoTlsFromRemote),
            loopback: Tls::NoIdentity(NoTlsReason::Loopback),
            undiscovered: Tls::NoIdentity(NoTlsReason::NotProvidedByServiceDiscovery),
            unknown: Dst::unknown(),
            policy: policy.to_owned(),
            servers: RefCell::default(),
        }
    }

    /// The server of a port that no Dataplane describes.
    pub fn default_server(&self, port: u16) -> Server {
        let mut servers = self.servers.borrow_mut();
        if servers.len() >= KNOWN_SERVERS {
            servers.clear();
        }
        let make = || Server::new("", "default", &self.policy, port);
        servers.entry(port).or_insert_with(make).clone()
    }

    /// A destination of which nothing is known.
    pub fn unknown_destination(&self) -> Dst {
        self.unknown.clone()
    }
}

/// What a connection is counted under.
#[derive(Clone, Debug)]
pub enum Subject {
    Inbound { server: Server },
    Outbound { service: Rc<str>, dst: Dst },
}

impl Subject {
    pub fn direction(&self) -> Direction {
        match self {
            Self::Inbound { .. } => Direction::Inbound,
            Self::Outbound { .. } => Direction::Outbound,
        }
    }

    /// The endpoint, where the connection goes out.
    pub fn dst(&self) -> Option<&Dst> {
        match self {
            Self::Inbound { .. } => None,
            Self::Outbound { dst, .. } => Some(dst),
        }
    }
}

/// What a peer's certificate, or the lack of one, changes in the labels of its connection.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    /// Of the client's connection (inbound) or the endpoint's (outbound); none is what plaintext is counted under.
    pub tls: Option<Tls>,
    /// The permission that let it in; none is the default policy.
    pub authz: Option<Authz>,
    /// Whether it may not connect.
    pub is_denied: bool,
}

impl Standing {
    /// What is counted from now on goes by this judgement.
    pub fn judge(&mut self, verdict: &Verdict) {
        (self.is_denied, self.authz) = match verdict {
            Verdict::Allowed(authz) => (false, authz.clone()),
            Verdict::Denied => (true, None),
        };
    }
}

/// The book-keeper of one connection: it knows the labels, and hands out the accounts.
#[derive(Clone)]
pub struct Book {
    pub recorder: Rc<Recorder>,
    pub labels: Rc<Labels>,
    pub subject: Subject,
    pub target_port: u16,
    pub standing: Standing,
}

impl Book {
    /// Opens the account of the connection that was accepted.
    pub fn accepted(&self, now: Instant) -> Side {
        Side::open(self.recorder.transport(&self.src()), now)
    }

    /// Enters the endpoint that the connection goes to, where it was not known before.
    pub fn settle(&mut self, endpoint: Option<Dst>, tls: Tls) {
        if let Subject::Outbound { dst, .. } = &mut self.subject {
            self.standing.tls = Some(tls);
            *dst = endpoint.unwrap_or_else(|| dst.clone());
        }
    }

    /// The same before an endpoint was known.
    #[must_use]
    pub fn unsettled(mut self) -> Self {
        if let Subject::Outbound { dst, .. } = &mut self.subject {
            *dst = self.labels.unknown_destination();
            self.standing.tls = None;
        }
        self
    }

    /// Opens the account of the connection that was dialed.
    pub fn dialed(&self, now: Instant) -> Side {
        Side::open(self.recorder.transport(&self.dst()), now)
    }

    fn src(&self) -> TransportLabels<'_> {
        match &self.subject {
            Subject::Inbound { server } => {
                self.end(self.tls(), TransportEnd::InboundSrc { server })
            }
            Subject::Outbound { .. } => self.end(&self.labels.loopback, TransportEnd::OutboundSrc),
        }
    }

    fn dst(&self) -> TransportLabels<'_> {
        match &self.subject {
            Subject::Inbound { .. } => self.end(&self.labels.loopback, TransportEnd::InboundDst),
            Subject::Outbound { service, dst } => {
                let end = TransportEnd::OutboundDst {
                    authority: service,
                    dst,
                };
                self.end(self.tls(), end)
            }
        }
    }

    /// The security of the connection that leaves the pod.
    fn tls(&self) -> &Tls {
        let usual = match self.subject {
            Subject::Inbound { .. } => &self.labels.not_tls,
            Subject::Outbound { .. } => &self.labels.undiscovered,
        };
        self.standing.tls.as_ref().unwrap_or(usual)
    }

    fn end<'a>(&'a self, tls: &'a Tls, end: TransportEnd<'a>) -> TransportLabels<'a> {
        TransportLabels {
            target_port: self.target_port,
            tls,
            end,
        }
    }

    /// What let the connection in; none if it was denied.
    fn authz(&self) -> Option<&Authz> {
        let authz = self.standing.authz.as_ref().unwrap_or(&self.labels.authz);
        (!self.standing.is_denied).then_some(authz)
    }

    /// Counts that a connection without HTTP was let in, or was not.
    pub fn tcp_judged(&self) {
        self.judged(None);
    }

    /// Answers what counts the next one with this authority.
    fn judged(&self, authority: Option<&str>) -> Option<CountRef> {
        let Subject::Inbound { server } = &self.subject else {
            return None;
        };
        Some(self.recorder.authz(&AuthzLabels {
            authority,
            target_port: self.target_port,
            server,
            route: &self.labels.route,
            authz: self.authz(),
            tls: self.tls(),
        }))
    }

    /// Counts a request that its port has no route for.
    fn route_not_found(&self, authority: &str) {
        if let Subject::Inbound { server } = &self.subject {
            self.recorder.route_not_found(&NotFoundLabels {
                authority,
                target_port: self.target_port,
                server,
                tls: self.tls(),
            });
        }
    }

    /// Counts a connection that the proxy could not process.
    pub fn tcp_error(&self, peer: Peer, error: &'static str) {
        self.recorder.tcp_error(&TcpErrorLabels {
            direction: self.subject.direction(),
            peer,
            error,
            target_port: self.target_port,
        });
    }

    /// Counts an answer that the proxy made up itself.
    pub fn http_error(&self, error: &'static str) {
        let server = match &self.subject {
            Subject::Inbound { server } => Some(server),
            Subject::Outbound { .. } => None,
        };
        let direction = self.subject.direction();
        self.recorder.http_error(&HttpErrorLabels {
            direction,
            server,
            error,
        });
    }
}

/// One end of a relayed connection. Dropping it closes its account as ended well.
pub struct Side {
    series: TransportSeries,
    opened: Instant,
    is_open: bool,
}

impl Side {
    fn open(series: TransportSeries, opened: Instant) -> Self {
        series.opened();
        Self {
            series,
            opened,
            is_open: true,
        }
    }

    pub fn read(&self, bytes: usize) {
        self.series.read(bytes as u64);
    }

    pub fn written(&self, bytes: usize) {
        self.series.written(bytes as u64);
    }

    /// Closes the account; `error` is what ended the connection, if it was an error.
    pub fn close(mut self, error: Option<&io::Error>) {
        match error {
            None => self.end(Classification::Success, ""),
            Some(e) => self.end(Classification::Failure, errno::symbol(e)),
        }
    }

    fn end(&mut self, classification: Classification, errno: &'static str) {
        self.is_open = false;
        let lifetime: Duration = self.opened.elapsed();
        self.series.closed(classification, errno, lifetime);
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        if self.is_open {
            self.end(Classification::Success, "");
        }
    }
}

/// The HTTP series of one connection: most requests repeat the authority of the last.
pub struct HttpLedger {
    book: Book,
    last: Option<Last>,
    last_grpc: Option<(authority::Known, GrpcRef)>,
    told_apart: routed::By,
    /// Boxed, because few connections have routes.
    last_route: Option<Box<routed::LastRoute>>,
}

/// What the last request was counted in.
struct Last {
    authority: authority::Known,
    series: HttpRef,
    /// The decision on it; none of what leaves the pod.
    judged: Option<CountRef>,
}

impl HttpLedger {
    pub fn new(book: Book) -> Self {
        Self {
            book,
            last: None,
            last_grpc: None,
            told_apart: routed::By::Nothing,
            last_route: None,
        }
    }

    /// The series of a request to this authority.
    pub fn series(&mut self, authority: Authority<'_>) -> HttpSeries {
        if let Some(last) = &mut self.last
            && last.authority.is(authority)
            && let Some(series) = last.series.pin()
        {
            let is_counted = last.judged.as_ref().is_some_and(CountRef::count);
            if !is_counted && matches!(self.book.subject, Subject::Inbound { .. }) {
                last.judged = self.book.judged(Some(&canonical(authority)));
            }
            return series;
        }
        let label = canonical(authority);
        let judged = self.book.judged(Some(&label));
        let series = self.resolve(&label);
        self.last = authority::Known::new(authority).map(|authority| Last {
            authority,
            series: series.downgrade(),
            judged,
        });
        series
    }

    /// The series of a request that its port has no route for, which is neither let in nor denied.
    fn not_found(&self, authority: Authority<'_>) -> HttpSeries {
        let label = canonical(authority);
        self.book.route_not_found(&label);
        self.resolve(&label)
    }

    /// What its connection is counted under.
    pub fn book(&self) -> &Book {
        &self.book
    }

    pub fn error(&self, error: &'static str) {
        self.book.http_error(error);
    }

    pub fn unparsed(&self, why: &'static str) {
        self.book
            .recorder
            .unparsed(self.book.subject.direction(), why);
    }

    fn resolve(&self, authority: &str) -> HttpSeries {
        let Book {
            recorder,
            labels,
            subject,
            target_port,
            ..
        } = &self.book;
        let side = match subject {
            Subject::Inbound { server } => HttpSide::Inbound {
                server,
                route: &labels.route,
                authz: self.book.authz().unwrap_or(&labels.no_authz),
            },
            Subject::Outbound { dst, .. } => HttpSide::Outbound { dst },
        };
        recorder.http(&HttpLabels {
            authority,
            target_port: *target_port,
            tls: self.book.tls(),
            side,
        })
    }
}

#[cfg(test)]
mod tests;
