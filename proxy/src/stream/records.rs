//! The state of a TLS connection, client's or server's, one turn at a time: from ciphertext in one buffer to plaintext,
//! and from plaintext to ciphertext in another. It does no I/O.

use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncryptError, UnbufferedStatus, WriteTraffic,
};
use rustls::{CommonState, Error};
use tokio::io::ReadBuf;

use crate::buffer::{Flow, LARGE, Pool, SMALL};
use crate::identity::RECORD;

/// Data that is encrypted at a time at most, in bytes: as many full records as a large buffer holds.
pub(super) const BATCH: usize = RECORD * (LARGE / SMALL);

/// A TLS connection without its socket.
pub(super) enum Records {
    Client(UnbufferedClientConnection),
    Server(UnbufferedServerConnection),
}

/// What a turn is for, beside what has to be done first.
#[derive(Clone, Copy)]
pub(super) enum Wish<'a> {
    Read,
    Write(&'a [u8]),
    /// Says that nothing more will be written.
    Close,
}

/// What a turn has brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// There is more to be done at once.
    Again,
    /// Plaintext was given out.
    Data,
    /// More ciphertext is needed.
    Blocked,
    /// So much plaintext was encrypted.
    Wrote(usize),
    /// The peer will write nothing more.
    Ended,
}

/// Where plaintext goes: to whoever asks, and what that has no room for is kept.
pub(super) struct Sink<'a, 'b> {
    pub(super) to: Option<&'a mut ReadBuf<'b>>,
    pub(super) rest: &'a mut Vec<u8>,
}

impl Sink<'_, '_> {
    fn give(&mut self, plaintext: &[u8]) {
        let room = self.to.as_ref().map_or(0, |to| to.remaining());
        let (now, later) = plaintext.split_at(plaintext.len().min(room));
        if let Some(to) = &mut self.to {
            to.put_slice(now);
        }
        self.rest.extend_from_slice(later);
    }
}

/// Where ciphertext goes.
pub(super) struct Out<'a> {
    pub(super) flow: &'a mut Flow,
    pub(super) pool: &'a Pool,
}

impl Records {
    /// Takes one turn with the ciphertext that has come and not been taken.
    pub(super) fn turn(
        &mut self,
        incoming: &mut Flow,
        (wish, sink): (Wish<'_>, &mut Sink<'_, '_>),
        out: &mut Out<'_>,
    ) -> Result<Turn, Error> {
        let (discard, turn) = match self {
            Self::Client(client) => {
                let status = client.process_tls_records(incoming.pending_mut());
                take(status, wish, sink, out)
            }
            Self::Server(server) => {
                let status = server.process_tls_records(incoming.pending_mut());
                take(status, wish, sink, out)
            }
        };
        incoming.discard(discard);
        turn
    }

    /// What is known of the connection.
    pub(super) fn state(&self) -> &CommonState {
        match self {
            Self::Client(client) => client,
            Self::Server(server) => server,
        }
    }
}

fn take<D>(
    status: UnbufferedStatus<'_, '_, D>,
    wish: Wish<'_>,
    sink: &mut Sink<'_, '_>,
    out: &mut Out<'_>,
) -> (usize, Result<Turn, Error>) {
    let UnbufferedStatus { mut discard, state } = status;
    let state = match state {
        Ok(state) => state,
        Err(error) => return (discard, Err(error)),
    };
    let turn = match state {
        ConnectionState::ReadTraffic(mut traffic) => {
            let mut read = Ok(Turn::Data);
            while let Some(record) = traffic.next_record() {
                match record {
                    Ok(record) => {
                        discard += record.discard;
                        sink.give(record.payload);
                    }
                    Err(error) => read = Err(error),
                }
            }
            read
        }
        ConnectionState::EncodeTlsData(mut data) => {
            let mut encoded = data.encode(out.flow.room(SMALL, out.pool));
            if let Err(EncodeError::InsufficientSize(size)) = encoded {
                encoded = data.encode(out.flow.room(size.required_size, out.pool));
            }
            // What does not fit now either, an alert, is behind 64 KiB that nobody reads.
            if let Ok(n) = encoded {
                out.flow.filled(n);
            }
            Ok(Turn::Again)
        }
        // It is on its way as far as TLS is concerned: `out` keeps the order.
        ConnectionState::TransmitTlsData(data) => {
            data.done();
            Ok(Turn::Again)
        }
        ConnectionState::WriteTraffic(traffic) => write(traffic, wish, out),
        ConnectionState::BlockedHandshake => Ok(Turn::Blocked),
        ConnectionState::PeerClosed | ConnectionState::Closed => Ok(Turn::Ended),
        // No early data is ever asked for.
        _ => Err(Error::General("an unexpected state of TLS".to_owned())),
    };
    (discard, turn)
}

fn write<D>(
    mut traffic: WriteTraffic<'_, D>,
    wish: Wish<'_>,
    out: &mut Out<'_>,
) -> Result<Turn, Error> {
    match wish {
        Wish::Read => Ok(Turn::Blocked),
        Wish::Close => {
            let closed = traffic.queue_close_notify(out.flow.room(SMALL / 16, out.pool));
            out.flow.filled(closed.map_err(exhausted)?);
            Ok(Turn::Wrote(0))
        }
        Wish::Write(data) => {
            let mut n = data.len().min(BATCH);
            loop {
                let room = n.div_ceil(RECORD).max(1) * SMALL;
                match traffic.encrypt(&data[..n], out.flow.room(room, out.pool)) {
                    Ok(written) => {
                        out.flow.filled(written);
                        return Ok(Turn::Wrote(n));
                    }
                    // An update of keys comes with it.
                    Err(EncryptError::InsufficientSize(_)) if n > RECORD / 2 => {
                        n = n.min(RECORD) / 2
                    }
                    Err(error) => return Err(exhausted(error)),
                }
            }
        }
    }
}

fn exhausted(error: EncryptError) -> Error {
    Error::General(error.to_string())
}
