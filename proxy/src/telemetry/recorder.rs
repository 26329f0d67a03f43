//! What a worker records with. One per worker: made on any thread as a [`Seat`], taken by the worker's own thread,
//! and then used only there. The pipeline calls it; it never waits but for the store's lock when a label set is new.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use super::control::{ControlEntry, ControlLabels, ControlSeries};
use super::count::{CountRef, Counts};
use super::endpoints::{EndpointEntry, EndpointSeries};
use super::family::Family;
use super::http::{HttpEntry, HttpSeries};
use super::http2::{GrpcEntry, GrpcSeries, Http2Entry, Http2Labels, Http2Series};
use super::labels::{
    AuthzLabels, Direction, EndpointLabels, GrpcLabels, HttpErrorLabels, HttpLabels,
    NotFoundLabels, Peer, Server, TcpErrorLabels, TransportLabels,
};
use super::render::Unparsed;
use super::resolve::resolve;
use super::route::{Keyed, RouteEntry, RouteLabels, RouteSeries};
use super::store::Store;
use super::transport::{TransportEntry, TransportSeries};
use super::worker::{Hand, Renewal, Table};

/// The errors of answers that the proxy makes up itself.
const HTTP_ERRORS: [&str; 5] = ["bad request", "too large", "connect", "timeout", "loadshed"];
/// As above, of those that only the client's proxy makes up.
const OUTBOUND_HTTP_ERRORS: [&str; 1] = ["no backend"];

/// The right to be the only writer of one shard; move it to the worker's thread and [`take`](Seat::take) it there.
pub struct Seat {
    pub(super) store: Arc<Store>,
    pub(super) worker: usize,
}

impl Seat {
    /// Becomes the worker's recorder, which stays on this thread.
    pub fn take(self) -> Recorder {
        let hasher = || self.store.hasher.clone();
        let tables = Tables {
            http: Table::new(hasher()),
            transport: Table::new(hasher()),
            http2: Table::new(hasher()),
            grpc: Table::new(hasher()),
            endpoints: Table::new(hasher()),
            control: Table::new(hasher()),
            route: Table::new(hasher()),
            route_actual: Table::new(hasher()),
            counts: Counts::new(hasher()),
        };
        let recorder = Recorder {
            tables: Rc::new(tables),
            hand: Rc::new(Hand::new(self.store, self.worker)),
        };
        recorder.know_directions();
        recorder
    }
}

/// A worker's recorder; clones share everything.
#[derive(Clone)]
pub struct Recorder {
    hand: Rc<Hand>,
    tables: Rc<Tables>,
}

struct Tables {
    http: Table<HttpEntry>,
    transport: Table<TransportEntry>,
    http2: Table<Http2Entry>,
    grpc: Table<GrpcEntry>,
    endpoints: Table<EndpointEntry>,
    control: Table<ControlEntry>,
    route: Table<RouteEntry<false>>,
    route_actual: Table<RouteEntry<true>>,
    counts: Counts,
}

impl Recorder {
    /// Pins the HTTP series of these labels, registering them (at 0) if they are new. Past the budget they are those
    /// of the overflow.
    pub fn http(&self, labels: &HttpLabels<'_>) -> HttpSeries {
        let rules = self.hand.rules();
        HttpSeries::new(resolve(&self.hand, &self.tables.http, &rules, *labels))
    }

    /// Pins the TCP series of these labels, registering them (at 0) if they are new. Past the budget they are those
    /// of the overflow.
    pub fn transport(&self, labels: &TransportLabels<'_>) -> TransportSeries {
        let rules = self.hand.rules();
        TransportSeries::new(resolve(&self.hand, &self.tables.transport, &rules, *labels))
    }

    /// Registers what is known of a direction before anything happens, at 0 and for good.
    fn know_directions(&self) {
        for direction in [Direction::Inbound, Direction::Outbound] {
            self.tables
                .counts
                .know(&self.hand, Family::DetectTimeout, &direction);
            for peer in [Peer::Src, Peer::Dst] {
                self.http2(direction, peer);
            }
        }
        for error in HTTP_ERRORS.into_iter().chain(OUTBOUND_HTTP_ERRORS) {
            let labels = HttpErrorLabels {
                direction: Direction::Outbound,
                server: None,
                error,
            };
            self.tables
                .counts
                .know(&self.hand, Family::OutboundHttpErrors, &labels);
        }
    }

    /// Registers what is known of a server of this pod before anything happens, at 0 and for good.
    pub fn know_server(&self, server: &Server) {
        for error in HTTP_ERRORS {
            let labels = HttpErrorLabels {
                direction: Direction::Inbound,
                server: Some(server),
                error,
            };
            self.tables
                .counts
                .know(&self.hand, Family::InboundHttpErrors, &labels);
        }
    }

    /// The gauges of HTTP/2 with these labels, which never retire.
    pub fn http2(&self, direction: Direction, peer: Peer) -> Http2Series {
        let rules = self.hand.rules();
        let labels = Http2Labels(direction, peer);
        Http2Series::new(resolve(&self.hand, &self.tables.http2, &rules, labels))
    }

    /// Pins the gRPC series of these labels, registering them (at 0) if they are new.
    pub fn grpc(&self, labels: &GrpcLabels<'_>) -> GrpcSeries {
        let rules = self.hand.rules();
        GrpcSeries::new(resolve(&self.hand, &self.tables.grpc, &rules, *labels))
    }

    /// The gauges of a service's endpoints, which never retire.
    pub fn endpoints(&self, labels: &EndpointLabels<'_>) -> EndpointSeries {
        let rules = self.hand.rules();
        EndpointSeries::new(resolve(&self.hand, &self.tables.endpoints, &rules, *labels))
    }

    /// The series of calls to an operator, which never retire.
    pub fn control(&self, labels: &ControlLabels<'_>) -> ControlSeries {
        let rules = self.hand.rules();
        ControlSeries::new(resolve(&self.hand, &self.tables.control, &rules, *labels))
    }

    /// Pins the series of a route, registering them (at 0) if they are new. Past the budget they are those of the
    /// overflow.
    pub fn route(&self, labels: &RouteLabels<'_>) -> RouteSeries {
        let (rules, tables) = (self.hand.rules(), &self.tables);
        let effective = resolve(&self.hand, &tables.route, &rules, Keyed(*labels));
        let actual = resolve(&self.hand, &tables.route_actual, &rules, Keyed(*labels));
        RouteSeries::new(effective, actual)
    }

    /// Counts a connection that the proxy could not process.
    pub fn tcp_error(&self, labels: &TcpErrorLabels) {
        let family = match labels.direction {
            Direction::Inbound => Family::InboundTcpErrors,
            Direction::Outbound => Family::OutboundTcpErrors,
        };
        let (hand, rules) = (&self.hand, self.hand.rules());
        self.tables.counts.count(hand, &rules, family, *labels);
    }

    /// Counts a decision on who may connect. Answers what counts the same one again.
    pub fn authz(&self, labels: &AuthzLabels<'_>) -> CountRef {
        let family = match (labels.authority, labels.authz) {
            (Some(_), Some(_)) => Family::InboundHttpAuthzAllow,
            (Some(_), None) => Family::InboundHttpAuthzDeny,
            (None, Some(_)) => Family::InboundTcpAuthzAllow,
            (None, None) => Family::InboundTcpAuthzDeny,
        };
        let (hand, rules) = (&self.hand, self.hand.rules());
        self.tables.counts.count(hand, &rules, family, *labels)
    }

    /// Counts a request that its port has no route for.
    pub fn route_not_found(&self, labels: &NotFoundLabels<'_>) {
        let (hand, rules) = (&self.hand, self.hand.rules());
        self.tables
            .counts
            .count(hand, &rules, Family::InboundHttpRouteNotFound, *labels);
    }

    /// Counts an answer that the proxy made up itself.
    pub fn http_error(&self, labels: &HttpErrorLabels<'_>) {
        let family = match labels.direction {
            Direction::Inbound => Family::InboundHttpErrors,
            Direction::Outbound => Family::OutboundHttpErrors,
        };
        let (hand, rules) = (&self.hand, self.hand.rules());
        self.tables.counts.count(hand, &rules, family, *labels);
    }

    /// Counts a connection that began as HTTP and goes on unmeasured.
    pub fn unparsed(&self, direction: Direction, reason: &'static str) {
        let (hand, rules) = (&self.hand, self.hand.rules());
        self.tables
            .counts
            .count(hand, &rules, Family::Unparsed, Unparsed(direction, reason));
    }

    /// Counts a connection that was passed on unrecognised because it began like HTTP and did not end its request line
    /// in time.
    pub fn detect_timeout(&self, direction: Direction) {
        let (hand, rules) = (&self.hand, self.hand.rules());
        self.tables
            .counts
            .count(hand, &rules, Family::DetectTimeout, direction);
    }

    /// Call about once a second: tells the time, to which writes are dated, takes over a changed policy, and lets go of
    /// what is idle.
    pub fn tick(&self, now: Instant) {
        let tables = &self.tables;
        self.hand.tick(self.hand.store.millis(now));
        match self.hand.renew() {
            Renewal::Nothing => {}
            Renewal::Claims(rules) => {
                tables.http.restate(&rules);
                tables.transport.restate(&rules);
                tables.http2.restate(&rules);
                tables.grpc.restate(&rules);
                tables.endpoints.restate(&rules);
                tables.control.restate(&rules);
                tables.route.restate(&rules);
                tables.route_actual.restate(&rules);
                tables.counts.restate(&rules);
            }
            Renewal::Layout => {
                tables.http.renew();
                tables.transport.renew();
                tables.http2.renew();
                tables.grpc.renew();
                tables.endpoints.renew();
                tables.control.renew();
                tables.route.renew();
                tables.route_actual.renew();
                tables.counts.renew(&self.hand);
                self.know_directions();
            }
        }
        let mut gone = Vec::new();
        tables.http.let_go(&mut gone);
        tables.transport.let_go(&mut gone);
        tables.http2.let_go(&mut gone);
        tables.grpc.let_go(&mut gone);
        tables.endpoints.let_go(&mut gone);
        tables.control.let_go(&mut gone);
        tables.route.let_go(&mut gone);
        tables.route_actual.let_go(&mut gone);
        tables.counts.let_go(&mut gone);
        self.hand.store.detach(gone);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::super::labels::{Authz, HttpSide, NoTlsReason, Route, Tls};
    use super::super::{Config, new, policy};
    use super::*;

    /// Longer than any look-up takes, however busy the machine is.
    const DEADLINE: Duration = Duration::from_secs(10);

    /// Whoever waits for the store here waits for ever.
    #[test]
    fn a_flood_past_the_budget_does_not_wait_for_the_store() {
        let (telemetry, mut seats) = new(Config::default(), 1);
        let policy = policy("families: {request_total: {maxSeries: 100}}");
        telemetry.set_policy(&policy.unwrap());
        let seat = seats.remove(0);
        let (filled, is_filled) = mpsc::channel();
        let (hold, is_held) = mpsc::channel();
        let (done, is_done) = mpsc::channel();
        let worker = std::thread::spawn(move || {
            let recorder = seat.take();
            let request = |n: u32| {
                let labels = HttpLabels {
                    authority: &format!("{n}.example"),
                    target_port: 80,
                    tls: &Tls::NoIdentity(NoTlsReason::NoTlsFromRemote),
                    side: HttpSide::Inbound {
                        server: &Server::new("", "default", "all", 80),
                        route: &Route::new("", "default", "default"),
                        authz: &Authz::new("", "default", "all"),
                    },
                };
                recorder.http(&labels).request();
            };
            (0..200).for_each(request);
            filled.send(()).unwrap();
            is_held.recv().unwrap();
            // The filter is made for 10,000 label sets: that it takes a stranger for one of these 100 is out of the question.
            (200..210).for_each(request);
            done.send(()).unwrap();
        });
        is_filled.recv_timeout(DEADLINE).unwrap();
        let held = telemetry.store.hold();
        hold.send(()).unwrap();
        let in_time = is_done.recv_timeout(DEADLINE);
        drop(held);
        in_time.expect("a look-up waits for the store");
        worker.join().unwrap();
        assert_eq!(
            telemetry.store.budget.counts(Family::RequestTotal).refused,
            110
        );
    }
}
