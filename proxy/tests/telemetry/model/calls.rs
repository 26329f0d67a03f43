//! HTTP/2 in the models: connections with their streams, and gRPC calls with the messages that have passed. Used by both
//! proxies under test; what is counted it tells them, and they keep the truth.

use proptest::sample::Index;
use weir_proxy::telemetry::{
    Direction, GrpcLabels, GrpcRef, GrpcSeries, Http2Series, Peer, Recorder,
};

use crate::scrape::{Scrape, sum};

/// How a response ends: its status if it had a head, and its error.
pub(crate) const ENDS: [(Option<u16>, &str); 7] = [
    (Some(200), ""),
    (Some(404), ""),
    (Some(503), ""),
    (None, "canceled"),
    (Some(200), "canceled"),
    (Some(502), "reset"),
    (Some(200), "h2(INTERNAL_ERROR)"),
];

/// What happens to it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Event {
    /// A call to this authority begins with a message, on series resolved anew or through a reference that was kept.
    Call(usize, bool),
    /// So many messages pass, sent or received.
    Message(Index, bool, u8),
    HangUp(Index),
    Connect(bool),
    OpenStream(Index),
    /// Answered or reset: the gauges do not care.
    CloseStream(Index),
    Disconnect(Index),
}

/// What is open.
#[derive(Default)]
pub(crate) struct Calls {
    calls: Vec<(usize, GrpcSeries)>,
    /// Worker, authority and the reference that was kept.
    cached: Vec<(usize, usize, GrpcRef)>,
    connections: Vec<(Http2Series, usize)>,
}

impl Calls {
    /// Does it; answers the authority, the kind and the number of messages that were counted.
    pub(crate) fn apply(
        &mut self,
        (worker, recorder): (usize, &Recorder),
        authorities: &[&str],
        event: Event,
    ) -> Option<(usize, &'static str, u8)> {
        match event {
            Event::Call(authority, again) => {
                let authority = authority % authorities.len();
                let series = self.begin((worker, recorder), (authority, authorities), again);
                series.sent(1);
                self.calls.push((authority, series));
                return Some((authority, "sent", 1));
            }
            Event::Message(at, sent, messages) if !self.calls.is_empty() => {
                let (authority, series) = &self.calls[at.index(self.calls.len())];
                let kind = if sent {
                    series.sent(messages.into());
                    "sent"
                } else {
                    series.received(messages.into());
                    "received"
                };
                return Some((*authority, kind, messages));
            }
            Event::HangUp(at) if !self.calls.is_empty() => {
                self.calls.swap_remove(at.index(self.calls.len()));
            }
            Event::Connect(accepted) => {
                let peer = if accepted { Peer::Src } else { Peer::Dst };
                let series = recorder.http2(Direction::Inbound, peer);
                series.connection_opened();
                self.connections.push((series, 0));
            }
            Event::OpenStream(at) if !self.connections.is_empty() => {
                let at = at.index(self.connections.len());
                self.connections[at].0.stream_opened();
                self.connections[at].1 += 1;
            }
            Event::CloseStream(at) if !self.connections.is_empty() => {
                let at = at.index(self.connections.len());
                let (series, streams) = &mut self.connections[at];
                if *streams > 0 {
                    series.stream_closed();
                    *streams -= 1;
                }
            }
            Event::Disconnect(at) if !self.connections.is_empty() => {
                self.disconnect(at.index(self.connections.len()));
            }
            _ => {}
        }
        None
    }

    fn begin(
        &mut self,
        (worker, recorder): (usize, &Recorder),
        (authority, authorities): (usize, &[&str]),
        again: bool,
    ) -> GrpcSeries {
        let is = |cached: &(usize, usize, GrpcRef)| (cached.0, cached.1) == (worker, authority);
        let known = self.cached.iter().find(|cached| again && is(cached));
        let series = known.and_then(|(.., cached)| cached.pin());
        let series = series.unwrap_or_else(|| {
            recorder.grpc(&GrpcLabels {
                direction: Direction::Inbound,
                authority: authorities[authority],
                target_port: 8080,
            })
        });
        self.cached.retain(|cached| !is(cached));
        self.cached.push((worker, authority, series.downgrade()));
        series
    }

    fn disconnect(&mut self, at: usize) {
        let (series, streams) = self.connections.swap_remove(at);
        (0..streams).for_each(|_| series.stream_closed());
        series.connection_closed();
    }

    /// The authorities that are called now.
    pub(crate) fn in_use(&self) -> impl Iterator<Item = usize> {
        self.calls.iter().map(|(authority, _)| *authority)
    }

    /// Checks a complete exposition: the gauges are what is open.
    pub(crate) fn check(&self, got: &Scrape) {
        let streams: usize = self.connections.iter().map(|(_, streams)| streams).sum();
        assert_eq!(sum(got, "http2_active_streams", ""), streams as f64);
        let connections = self.connections.len() as f64;
        assert_eq!(sum(got, "http2_active_connections", ""), connections);
    }

    /// Ends everything.
    pub(crate) fn come_to_rest(&mut self) {
        self.calls.clear();
        while !self.connections.is_empty() {
            self.disconnect(0);
        }
    }
}
