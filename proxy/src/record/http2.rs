//! The accounts of an HTTP/2 connection: how many streams it has open, and the gRPC messages of
//! its calls.
//!
//! Made by the connection's ledger, used by `http2::session`. Dropping an account closes it.

use super::{Authority, Book, HttpLedger, authority, canonical};
use crate::telemetry::{Direction, GrpcLabels, GrpcSeries, Http2Series, Peer};

/// What is open of an HTTP/2 connection pair. Dropping it closes all of it.
pub struct Http2Account {
    accepted: Http2Series,
    /// Not before there is a connection to the server.
    dialed: Option<Http2Series>,
    book: Book,
    streams: usize,
}

impl Http2Account {
    fn open(book: &Book) -> Self {
        let direction = book.subject.direction();
        let accepted = book.recorder.http2(direction, Peer::Src);
        accepted.connection_opened();
        Self {
            accepted,
            dialed: None,
            book: book.clone(),
            streams: 0,
        }
    }

    /// The server's side is connected: what is open on the client's is open there, too.
    pub fn dialed(&mut self) {
        let direction = self.book.subject.direction();
        let dialed = self.book.recorder.http2(direction, Peer::Dst);
        dialed.connection_opened();
        (0..self.streams).for_each(|_| dialed.stream_opened());
        self.dialed = Some(dialed);
    }

    pub fn stream_opened(&mut self) {
        self.streams += 1;
        self.sides().for_each(Http2Series::stream_opened);
    }

    pub fn stream_closed(&mut self) {
        self.streams -= 1;
        self.sides().for_each(Http2Series::stream_closed);
    }

    fn sides(&self) -> impl Iterator<Item = &Http2Series> {
        std::iter::once(&self.accepted).chain(&self.dialed)
    }
}

impl Drop for Http2Account {
    fn drop(&mut self) {
        while self.streams > 0 {
            self.stream_closed();
        }
        self.sides().for_each(Http2Series::connection_closed);
    }
}

/// The messages of one gRPC call.
pub struct GrpcAccount {
    series: GrpcSeries,
    direction: Direction,
}

impl GrpcAccount {
    pub fn client_sent(&self, messages: u64) {
        match self.direction {
            Direction::Inbound => self.series.received(messages),
            Direction::Outbound => self.series.sent(messages),
        }
    }

    pub fn server_sent(&self, messages: u64) {
        match self.direction {
            Direction::Inbound => self.series.sent(messages),
            Direction::Outbound => self.series.received(messages),
        }
    }
}

impl HttpLedger {
    /// Opens the account of this connection as one of HTTP/2.
    pub fn http2(&self) -> Http2Account {
        Http2Account::open(&self.book)
    }

    /// The account of a gRPC call to this authority.
    pub fn grpc<'a>(&mut self, to: impl Into<Authority<'a>>) -> GrpcAccount {
        let to = to.into();
        let direction = self.book.subject.direction();
        if let Some((known, series)) = &self.last_grpc
            && known.is(to)
            && let Some(series) = series.pin()
        {
            return GrpcAccount { series, direction };
        }
        let series = self.book.recorder.grpc(&GrpcLabels {
            direction,
            authority: &canonical(to),
            target_port: self.book.target_port,
        });
        self.last_grpc = authority::Known::new(to).map(|known| (known, series.downgrade()));
        GrpcAccount { series, direction }
    }
}
