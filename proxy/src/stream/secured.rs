//! A socket with TLS on it. Ciphertext is in a worker's buffers only while it is on its way, so that an idle connection
//! holds nothing but the state of TLS. What is read and written is plaintext.
//!
//! An end is `close_notify` and then the socket's; an end of the socket alone is a connection that broke off.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use rustls::Error;
use tokio::io::{AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::records::{Out, Records, Sink, Turn, Wish};
use crate::buffer::{Flow, Pool};

/// A socket with TLS on it.
pub struct Secured {
    socket: TcpStream,
    records: Records,
    /// Ciphertext that was read and not taken.
    incoming: Flow,
    /// Ciphertext that is not written yet.
    outgoing: Flow,
    /// Plaintext that nobody has asked for, of at most one buffer of ciphertext.
    rest: Vec<u8>,
    /// How much of it was given out.
    given: usize,
    /// The peer has said that it writes nothing more.
    ended: bool,
    /// We have said so.
    closed: bool,
    pool: Rc<Pool>,
}

impl Secured {
    /// Whose handshake is still to be done; of the ciphertext `incoming` was read already.
    pub(super) fn new(
        (socket, incoming): (TcpStream, Flow),
        records: Records,
        pool: &Rc<Pool>,
    ) -> Self {
        Self {
            socket,
            records,
            incoming,
            outgoing: Flow::default(),
            rest: Vec::new(),
            given: 0,
            ended: false,
            closed: false,
            pool: Rc::clone(pool),
        }
    }

    pub(super) fn tcp(&self) -> &TcpStream {
        &self.socket
    }

    /// Whether all that was read of the socket was given out, and its end was not among it.
    pub(super) fn is_drained(&self) -> bool {
        !self.ended && self.incoming.is_empty() && self.rest.is_empty()
    }

    pub(super) fn records(&self) -> &Records {
        &self.records
    }

    pub(super) fn is_unsent(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Puts as much ciphertext there as can wait.
    #[cfg(test)]
    pub(super) fn fill_outgoing(&mut self) {
        loop {
            let room = self.outgoing.room(crate::buffer::LARGE, &self.pool).len();
            if room == 0 {
                return;
            }
            self.outgoing.filled(room);
        }
    }

    /// Exchanges the handshake; what fails there was told to the peer as far as it listens.
    pub(super) fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        while self.records.state().is_handshaking() {
            match self.turns(Wish::Read, None) {
                Ok(Turn::Blocked) if self.records.state().is_handshaking() => {
                    ready!(self.poll_out(cx))?;
                    ready!(self.poll_fill(cx))?;
                }
                Ok(_) => {}
                Err(error) => {
                    // At most an alert: either it fits into the socket's buffer now, or nobody reads.
                    let _told = self.poll_out(cx);
                    return Poll::Ready(Err(Failure::Tls(error)));
                }
            }
        }
        self.poll_out(cx).map_err(Failure::Io)
    }

    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        loop {
            self.give(buf);
            if buf.filled().len() > before || buf.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            if !self.ended {
                let turned = self.turns(Wish::Read, Some(&mut *buf));
                if self.is_unsent()
                    && let Poll::Ready(Err(error)) = self.poll_out(cx)
                    && turned.is_ok()
                {
                    return Poll::Ready(Err(error));
                }
                turned.map_err(broken)?;
                if buf.filled().len() > before {
                    return Poll::Ready(Ok(()));
                }
            }
            if self.ended {
                return Poll::Ready(Ok(()));
            }
            ready!(self.poll_fill(cx))?;
        }
    }

    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_out(cx))?;
        if self.closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let written = match self.turns(Wish::Write(bytes), None).map_err(broken)? {
            Turn::Wrote(n) => n,
            _ => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        };
        match self.poll_out(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(written)),
        }
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_out(cx)
    }

    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_out(cx))?;
        if !std::mem::replace(&mut self.closed, true) {
            // A connection that cannot say it any more has been broken off, and is seen to be.
            let _said = self.turns(Wish::Close, None);
        }
        ready!(self.poll_out(cx))?;
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }

    /// Gives out plaintext that was kept.
    fn give(&mut self, buf: &mut ReadBuf<'_>) {
        let kept = &self.rest[self.given..];
        let n = kept.len().min(buf.remaining());
        buf.put_slice(&kept[..n]);
        self.given += n;
        if self.given == self.rest.len() {
            self.rest = Vec::new();
            self.given = 0;
        }
    }

    /// Takes turns until the wish is fulfilled, or needs more ciphertext, or there is no room for more plaintext.
    fn turns(&mut self, wish: Wish<'_>, mut to: Option<&mut ReadBuf<'_>>) -> Result<Turn, Error> {
        loop {
            let mut sink = Sink {
                to: to.as_deref_mut(),
                rest: &mut self.rest,
            };
            let mut out = Out {
                flow: &mut self.outgoing,
                pool: &self.pool,
            };
            let turned = self
                .records
                .turn(&mut self.incoming, (wish, &mut sink), &mut out);
            match turned {
                Ok(Turn::Again) => {}
                Ok(Turn::Data) => {
                    let is_read = matches!(wish, Wish::Read);
                    let is_full = to.as_ref().is_none_or(|to| to.remaining() == 0);
                    if is_read && (is_full || !self.rest.is_empty()) {
                        return Ok(Turn::Data);
                    }
                }
                Ok(Turn::Ended) => {
                    let is_new = !std::mem::replace(&mut self.ended, true);
                    if matches!(wish, Wish::Read) || !is_new {
                        return Ok(Turn::Ended);
                    }
                }
                Ok(turn) => return Ok(turn),
                Err(error) => {
                    self.alert();
                    return Err(error);
                }
            }
        }
    }

    /// Has the alert written that tells the peer what is wrong. Only what is first is asked for: with anything more
    /// rustls would go on to judge a connection that it has given up.
    fn alert(&mut self) {
        let mut nowhere = Sink {
            to: None,
            rest: &mut self.rest,
        };
        let mut out = Out {
            flow: &mut self.outgoing,
            pool: &self.pool,
        };
        let _told = self
            .records
            .turn(&mut self.incoming, (Wish::Read, &mut nowhere), &mut out);
    }

    /// Reads ciphertext once.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let read = self.incoming.poll_read(cx, &mut self.socket, &self.pool);
        if read.is_pending() {
            self.incoming.release(&self.pool);
        }
        match ready!(read)? {
            0 => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            _ => Poll::Ready(Ok(())),
        }
    }

    /// Writes the ciphertext that there is; ready once it is written.
    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outgoing.is_empty() {
            let write = Pin::new(&mut self.socket).poll_write(cx, self.outgoing.approved());
            self.outgoing.consume(ready!(write)?);
        }
        self.outgoing.release(&self.pool);
        Poll::Ready(Ok(()))
    }
}

/// How a handshake ended that failed.
#[derive(Debug)]
pub(super) enum Failure {
    Tls(Error),
    Io(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// A connection whose peer does not keep to TLS, or has sent an alert.
fn broken(error: Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl std::fmt::Debug for Secured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secured")
            .field("socket", &self.socket)
            .finish_non_exhaustive()
    }
}
