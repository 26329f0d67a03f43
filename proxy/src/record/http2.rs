//! The accounts of an HTTP/2 connection: how many streams it has open, and the gRPC messages of
//! its calls.
//!
//! Made by the connection's ledger or book, used by `http2::session` and `terminate`. Dropping an
//! account closes it.

use std::cell::Cell;

use super::{Authority, Book, HttpLedger, authority, canonical};
use crate::telemetry::{Direction, GrpcLabels, GrpcSeries, Http2Series, Peer};

/// What is open of one HTTP/2 connection: itself and its streams. Dropping it closes all of it.
pub struct Http2Side {
    series: Http2Series,
    streams: Cell<usize>,
}

impl Http2Side {
    fn open(book: &Book, peer: Peer) -> Self {
        let series = book.recorder.http2(book.subject.direction(), peer);
        series.connection_opened();
        Self {
            series,
            streams: Cell::new(0),
        }
    }

    pub fn stream_opened(&self) {
        self.streams.set(self.streams.get() + 1);
        self.series.stream_opened();
    }

    pub fn stream_closed(&self) {
        self.streams.set(self.streams.get() - 1);
        self.series.stream_closed();
    }

    /// How many streams are open.
    pub fn streams(&self) -> usize {
        self.streams.get()
    }
}

impl Drop for Http2Side {
    fn drop(&mut self) {
        while self.streams() > 0 {
            self.stream_closed();
        }
        self.series.connection_closed();
    }
}

/// What is open of an HTTP/2 connection pair: every stream of one side is one of the other.
pub struct Http2Account {
    accepted: Http2Side,
    /// Not before there is a connection to the server.
    dialed: Option<Http2Side>,
    book: Book,
}

impl Http2Account {
    fn open(book: &Book) -> Self {
        Self {
            accepted: Http2Side::open(book, Peer::Src),
            dialed: None,
            book: book.clone(),
        }
    }

    /// The server's side is connected: what is open on the client's is open there, too.
    pub fn dialed(&mut self) {
        let dialed = Http2Side::open(&self.book, Peer::Dst);
        (0..self.accepted.streams()).for_each(|_| dialed.stream_opened());
        self.dialed = Some(dialed);
    }

    pub fn stream_opened(&mut self) {
        self.sides().for_each(Http2Side::stream_opened);
    }

    pub fn stream_closed(&mut self) {
        self.sides().for_each(Http2Side::stream_closed);
    }

    fn sides(&self) -> impl Iterator<Item = &Http2Side> {
        std::iter::once(&self.accepted).chain(&self.dialed)
    }
}

impl Book {
    /// Opens the account of one connection of HTTP/2, where its streams are not those of another.
    pub fn http2(&self, peer: Peer) -> Http2Side {
        Http2Side::open(self, peer)
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
    pub fn grpc(&mut self, to: Authority<'_>) -> GrpcAccount {
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
