//! The buffers of a worker: taken while bytes are in flight, given back when a
//! connection has none, so that an idle connection holds no memory. Bulk needs none: it goes
//! through pipes of the system.
//!
//! `forward::relay` is the user. A buffer must not know what its bytes mean.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, Interest, ReadBuf};
use tokio::net::TcpStream;

mod pipe;
mod pool;

use pipe::Pipe;
pub use pipe::{MAX_PIPES, PIPE};
pub use pool::{KEEP, Pool};

/// A first buffer, in bytes: more than most requests and responses.
pub const SMALL: usize = 16 * 1024;
/// The buffer of a direction that filled a small one, in bytes.
pub const LARGE: usize = 64 * 1024;
/// Bytes in reads that filled their buffers, one after the other, after which a direction is
/// bulk: it is worth a pipe.
pub const BULK: usize = SMALL + LARGE;

/// The bytes of one direction of a connection pair: `start..ready` may be written,
/// `ready..end` wait for a decision. While bulk goes through a pipe the buffer is empty.
#[derive(Debug, Default)]
pub struct Flow {
    bytes: Option<Box<[u8]>>,
    start: usize,
    ready: usize,
    end: usize,
    /// The last read filled the buffer: the next buffer is a large one.
    wants_large: bool,
    /// Bytes in full reads one after the other, this one included.
    streak: usize,
    pipe: Option<Pipe>,
}

impl Flow {
    /// Bytes that may be written now.
    pub fn approved(&self) -> &[u8] {
        self.bytes
            .as_ref()
            .map_or(&[], |b| &b[self.start..self.ready])
    }

    /// Bytes that were read and not yet approved.
    pub fn pending(&self) -> &[u8] {
        self.bytes
            .as_ref()
            .map_or(&[], |b| &b[self.ready..self.end])
    }

    /// Lets the first `n` pending bytes go.
    pub fn approve(&mut self, n: usize) {
        self.ready = (self.ready + n).min(self.end);
    }

    /// Forgets the first `n` approved bytes: they were written.
    pub fn consume(&mut self, n: usize) {
        self.start = (self.start + n).min(self.ready);
    }

    /// Forgets everything: nobody will read it.
    pub fn clear(&mut self) {
        self.start = self.end;
        self.ready = self.end;
        self.pipe = None;
    }

    /// Forgets what may be written: nobody will read it.
    pub fn drop_approved(&mut self) {
        self.start = self.ready;
        self.pipe = None;
    }

    /// Forgets what waits for a decision: it will never go on.
    pub fn drop_pending(&mut self) {
        self.end = self.ready;
    }

    pub fn is_empty(&self) -> bool {
        self.start == self.end && self.piped() == 0
    }

    /// Whether everything is written that may be.
    pub fn is_written(&self) -> bool {
        self.start == self.ready && self.piped() == 0
    }

    /// Bytes in the pipe; all of them may be written.
    pub fn piped(&self) -> usize {
        self.pipe.as_ref().map_or(0, Pipe::held)
    }

    /// Whether so much flows that unread bytes should go through a pipe.
    pub fn is_bulk(&self) -> bool {
        self.streak >= BULK && self.is_empty()
    }

    /// Whether a pending head has reached the largest size there is.
    pub fn is_full(&self) -> bool {
        self.end - self.ready >= LARGE
    }

    /// Gives the buffer and the pipe back when they hold nothing.
    pub fn release(&mut self, pool: &Pool) {
        if !self.is_empty() {
            return;
        }
        self.release_bytes(pool);
        if let Some(pipe) = self.pipe.take() {
            pool.pipes.give(pipe);
        }
    }

    fn release_bytes(&mut self, pool: &Pool) {
        if let Some(buffer) = self.bytes.take() {
            (self.start, self.ready, self.end) = (0, 0, 0);
            pool.give(buffer);
        }
    }

    /// Appends bytes of the proxy's own making, approved.
    pub fn append(&mut self, pool: &Pool, text: &[u8]) {
        let space = self.space(pool);
        let n = text.len().min(space.len());
        space[..n].copy_from_slice(&text[..n]);
        self.end += n;
        self.ready = self.end;
    }

    /// The bytes of [`Self::pending`], for whoever changes them in place.
    pub fn pending_mut(&mut self) -> &mut [u8] {
        let (ready, end) = (self.ready, self.end);
        self.bytes
            .as_mut()
            .map_or(&mut [], |bytes| &mut bytes[ready..end])
    }

    /// Forgets the first `n` pending bytes; nothing is approved and not written.
    pub fn discard(&mut self, n: usize) {
        self.approve(n);
        self.consume(n);
    }

    /// Room for bytes of the proxy's own making: at least so many where they fit into the largest buffer beside what
    /// is there, which is all approved.
    pub fn room(&mut self, n: usize, pool: &Pool) -> &mut [u8] {
        self.wants_large = self.end - self.start + n > SMALL;
        if self.wants_large && self.bytes.as_ref().is_some_and(|b| b.len() == SMALL) {
            self.grow(pool);
        }
        self.space(pool)
    }

    /// So many bytes were written into [`Self::room`]; they may go on.
    pub fn filled(&mut self, n: usize) {
        self.end += n;
        self.ready = self.end;
    }

    /// Moves what is held to a large buffer.
    fn grow(&mut self, pool: &Pool) {
        let held = self.end - self.start;
        let mut next = pool.take(LARGE);
        if let Some(old) = self.bytes.take() {
            next[..held].copy_from_slice(&old[self.start..self.end]);
            pool.give(old);
        }
        self.move_to_front();
        self.bytes = Some(next);
    }

    /// Reads once from `from`: the number of bytes, 0 at its end.
    pub fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
        pool: &Pool,
    ) -> Poll<std::io::Result<usize>> {
        let space = self.space(pool);
        let room = space.len();
        let mut buf = ReadBuf::new(space);
        let read = std::pin::Pin::new(from).poll_read(cx, &mut buf);
        let n = buf.filled().len();
        self.end += n;
        self.wants_large = n == room || (self.wants_large && n > SMALL);
        if read.is_ready() {
            self.streak = if n == room { self.streak + n } else { 0 };
        }
        read.map_ok(|()| n)
    }

    /// Waits for bytes of `from`: their number, 0 at its end. While there are none an empty flow holds no buffer.
    ///
    /// # Errors
    /// That of reading.
    pub async fn read(
        &mut self,
        from: &mut (impl AsyncRead + Unpin),
        pool: &Pool,
    ) -> io::Result<usize> {
        poll_fn(|cx| {
            let read = self.poll_read(cx, from, pool);
            if read.is_pending() {
                self.release(pool);
            }
            read
        })
        .await
    }

    /// Takes at most `limit` bytes from `socket` into a pipe, approved and unread: their number,
    /// 0 at its end. None where there is no pipe to be had; then they are to be read. Called
    /// only while the flow is empty.
    pub fn poll_splice(
        &mut self,
        cx: &mut Context<'_>,
        socket: &TcpStream,
        limit: usize,
        pool: &Pool,
    ) -> Poll<io::Result<Option<usize>>> {
        let Some(pipe) = self.pipe.take().or_else(|| pool.pipes.take()) else {
            self.streak = 0;
            return Poll::Ready(Ok(None));
        };
        self.release_bytes(pool);
        let pipe = self.pipe.insert(pipe);
        loop {
            std::task::ready!(socket.poll_read_ready(cx))?;
            match socket.try_io(Interest::READABLE, || pipe.fill(socket, limit)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if pool.pipes.is_refusal(&error) => {
                    self.pipe = None;
                    self.streak = 0;
                    return Poll::Ready(Ok(None));
                }
                filled => {
                    // What comes in small pieces is cheaper to copy.
                    if filled.as_ref().is_ok_and(|n| *n < SMALL) {
                        self.streak = 0;
                    }
                    return Poll::Ready(filled.map(Some));
                }
            }
        }
    }

    /// Writes from the pipe, once.
    pub fn poll_unsplice(
        &mut self,
        cx: &mut Context<'_>,
        socket: &TcpStream,
    ) -> Poll<io::Result<usize>> {
        let Some(pipe) = &mut self.pipe else {
            return Poll::Ready(Ok(0));
        };
        loop {
            std::task::ready!(socket.poll_write_ready(cx))?;
            match socket.try_io(Interest::WRITABLE, || pipe.empty(socket)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                emptied => return Poll::Ready(emptied),
            }
        }
    }

    /// Room to read into, never empty unless the flow is full.
    fn space(&mut self, pool: &Pool) -> &mut [u8] {
        let held = self.end - self.start;
        let size = self.bytes.as_ref().map_or(0, |b| b.len());
        let must_grow = size == SMALL && (held == size || (held == 0 && self.wants_large));
        if size == 0 {
            self.bytes = Some(pool.take(if self.wants_large { LARGE } else { SMALL }));
        } else if must_grow {
            self.grow(pool);
        } else if self.start > 0 {
            if let Some(bytes) = self.bytes.as_mut() {
                bytes.copy_within(self.start..self.end, 0);
            }
            self.move_to_front();
        }
        let end = self.end;
        self.bytes.as_mut().map_or(&mut [][..], |b| &mut b[end..])
    }

    fn move_to_front(&mut self) {
        self.ready -= self.start;
        self.end -= self.start;
        self.start = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};

    use tokio::io::AsyncWrite;

    use super::{Flow, LARGE, MAX_PIPES, Pool, SMALL};

    #[test]
    fn bytes_pass_in_order_and_the_buffer_goes_back() {
        let pool = Pool::default();
        let mut flow = Flow::default();
        flow.append(&pool, b"hello");
        assert_eq!(flow.approved(), b"hello");
        flow.consume(2);
        flow.append(&pool, b"!");
        assert_eq!(flow.approved(), b"llo!");
        flow.release(&pool);
        assert_eq!(flow.approved(), b"llo!");
        flow.consume(4);
        flow.release(&pool);
        assert!(flow.bytes.is_none());
        assert_eq!(pool.free(SMALL), 1);
    }

    #[test]
    fn a_full_buffer_grows_once_and_keeps_its_bytes() {
        let pool = Pool::default();
        let mut flow = Flow::default();
        flow.append(&pool, &[1; SMALL]);
        assert_eq!(flow.space(&pool).len(), LARGE - SMALL);
        assert_eq!(flow.approved(), &[1; SMALL][..]);
        assert_eq!(pool.free(SMALL), 1);
    }

    #[test]
    fn who_waits_for_bytes_holds_no_buffer() {
        let (pool, mut flow) = (Pool::default(), Flow::default());
        let (mut says, mut hears) = tokio::io::duplex(16);
        let mut cx = Context::from_waker(Waker::noop());
        let mut reading = Box::pin(flow.read(&mut hears, &pool));
        assert!(reading.as_mut().poll(&mut cx).is_pending());
        assert_eq!(pool.free(SMALL), 1, "it was given back");
        let written = Pin::new(&mut says).poll_write(&mut cx, b"hello");
        assert!(matches!(written, Poll::Ready(Ok(5))));
        let read = reading.as_mut().poll(&mut cx);
        assert!(matches!(read, Poll::Ready(Ok(5))));
        drop(reading);
        assert_eq!(flow.pending(), b"hello");
    }

    #[test]
    fn pipes_are_few_and_only_kept_while_they_are_used() {
        let pool = Pool::default();
        let mut taken: Vec<_> = (0..MAX_PIPES).filter_map(|_| pool.pipes.take()).collect();
        assert_eq!((taken.len(), pool.pipes()), (MAX_PIPES, MAX_PIPES));
        assert!(pool.pipes.take().is_none());
        taken.truncate(2);
        assert_eq!(pool.pipes(), 2, "those that are dropped are closed");
        taken.into_iter().for_each(|pipe| pool.pipes.give(pipe));
        pool.tick();
        assert_eq!(pool.pipes(), 2, "they were needed since the last tick");
        pool.tick();
        assert_eq!(pool.pipes(), 0);
    }

    #[test]
    fn where_sockets_cannot_be_spliced_there_are_no_pipes() {
        let pool = Pool::default();
        let pipe = pool.pipes.take().expect("a pipe");
        pool.pipes.give(pipe);
        let reset = io::Error::from_raw_os_error(104);
        assert!(!pool.pipes.is_refusal(&reset), "an error of the connection");
        let invalid = io::Error::from_raw_os_error(22);
        assert!(pool.pipes.is_refusal(&invalid));
        assert!(pool.pipes.take().is_none());
        assert_eq!(pool.pipes(), 0);
    }
}
