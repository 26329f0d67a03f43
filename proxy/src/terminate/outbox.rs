//! What is to be written to a socket, gathered: the `h2` crate writes frame by frame, and many of
//! them are ready at a time.
//!
//! `socket` fills it, and empties it at the end of each turn of its connection.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

/// Bytes that are gathered before they are written: the data of one record of the mesh's TLS.
pub(super) const MOST: usize = 16 * 1024 - 22;
/// Writes of this size are not worth a copy, in bytes.
const LARGE: usize = 4 * 1024;

#[derive(Default)]
pub(super) struct Outbox {
    bytes: Vec<u8>,
    /// How many of them are written.
    written: usize,
}

impl Outbox {
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Takes the bytes, or some of them: gathers what is small, and writes what is not, unless the head of a frame
    /// would be written by itself. `count` is told what is written.
    pub(super) fn poll_take(
        &mut self,
        cx: &mut Context<'_>,
        mut to: impl AsyncWrite + Unpin,
        slices: &[IoSlice<'_>],
        count: impl Fn(usize),
    ) -> Poll<io::Result<usize>> {
        let len: usize = slices.iter().map(|slice| slice.len()).sum();
        if self.bytes.len() + len > MOST {
            // What was gathered comes first.
            ready!(self.poll_empty(cx, &mut to, &count))?;
            if len >= LARGE && to.is_write_vectored() {
                let written = ready!(Pin::new(&mut to).poll_write_vectored(cx, slices))?;
                count(written);
                return Poll::Ready(Ok(written));
            }
        }
        if self.bytes.is_empty() {
            self.bytes.reserve_exact(MOST);
        }
        let before = self.bytes.len();
        for slice in slices {
            let n = slice.len().min(MOST - self.bytes.len());
            self.bytes.extend_from_slice(&slice[..n]);
        }
        Poll::Ready(Ok(self.bytes.len() - before))
    }

    /// Writes what was gathered; ready once all of it is.
    pub(super) fn poll_empty(
        &mut self,
        cx: &mut Context<'_>,
        mut to: impl AsyncWrite + Unpin,
        count: impl Fn(usize),
    ) -> Poll<io::Result<()>> {
        while self.written < self.bytes.len() {
            let rest = &self.bytes[self.written..];
            let written = ready!(Pin::new(&mut to).poll_write(cx, rest))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            count(written);
            self.written += written;
        }
        // An idle connection holds nothing.
        *self = Self::default();
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io::{self, IoSlice};
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWrite, DuplexStream};

    use super::{LARGE, MOST, Outbox};

    const DEADLINE: Duration = Duration::from_secs(10);

    /// Gives it pieces of these sizes as one vectored write; answers how much was taken.
    fn take(
        outbox: &mut Outbox,
        to: &mut DuplexStream,
        sizes: &[usize],
        count: &Cell<usize>,
    ) -> Poll<usize> {
        let pieces: Vec<Vec<u8>> = sizes.iter().map(|n| vec![*n as u8; *n]).collect();
        let slices: Vec<_> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
        let mut cx = Context::from_waker(Waker::noop());
        let taken = outbox.poll_take(&mut cx, to, &slices, |n| count.set(count.get() + n));
        taken.map(|taken| taken.expect("written"))
    }

    fn empty(outbox: &mut Outbox, to: &mut DuplexStream, count: &Cell<usize>) -> Poll<()> {
        let mut cx = Context::from_waker(Waker::noop());
        let emptied = outbox.poll_empty(&mut cx, to, |n| count.set(count.get() + n));
        emptied.map(|emptied| emptied.expect("written"))
    }

    #[tokio::test]
    async fn what_is_small_is_written_at_once_and_in_order() {
        let (mut to, mut from) = tokio::io::duplex(1 << 20);
        let (mut outbox, count) = (Outbox::default(), Cell::new(0));
        for n in 1..=10 {
            assert_eq!(
                take(&mut outbox, &mut to, &[9, n], &count),
                Poll::Ready(9 + n)
            );
        }
        assert_eq!(count.get(), 0, "nothing is written yet");
        assert_eq!(empty(&mut outbox, &mut to, &count), Poll::Ready(()));
        assert_eq!((count.get(), outbox.bytes.capacity()), (145, 0));
        let mut bytes = vec![0; 145];
        from.read_exact(&mut bytes).await.expect("all of it");
        let expected = (1..=10u8).flat_map(|n| [vec![9; 9], vec![n; n.into()]].concat());
        assert!(bytes.into_iter().eq(expected));
    }

    #[tokio::test]
    async fn what_is_large_is_not_gathered_and_comes_after_what_was() {
        let (mut to, mut from) = tokio::io::duplex(1 << 20);
        let (mut outbox, count) = (Outbox::default(), Cell::new(0));
        assert_eq!(take(&mut outbox, &mut to, &[7], &count), Poll::Ready(7));
        // A duplex takes one slice at a time.
        assert_eq!(
            take(&mut outbox, &mut to, &[MOST], &count),
            Poll::Ready(MOST)
        );
        assert_eq!((count.get(), outbox.is_empty()), (7 + MOST, true));
        let mut bytes = vec![0; 7 + MOST];
        from.read_exact(&mut bytes).await.expect("all of it");
        assert_eq!(bytes[..8], [7, 7, 7, 7, 7, 7, 7, MOST as u8]);
    }

    /// A socket that takes one slice at a time, as one with TLS does.
    #[derive(Default)]
    struct Records(Vec<Vec<u8>>);

    impl AsyncWrite for Records {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.0.push(bytes.to_vec());
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn the_head_of_a_frame_is_no_record_of_its_own() {
        let (mut outbox, mut to) = (Outbox::default(), Records::default());
        let mut cx = Context::from_waker(Waker::noop());
        let bytes: Vec<u8> = (0..100_009).map(|n| n as u8).collect();
        let mut taken = 0;
        while taken < bytes.len() {
            let (head, data) = bytes[taken..].split_at(9.min(bytes.len() - taken));
            let slices = [IoSlice::new(head), IoSlice::new(data)];
            match outbox.poll_take(&mut cx, &mut to, &slices, |_| {}) {
                Poll::Ready(Ok(n)) if n > 0 => taken += n,
                other => panic!("{other:?}"),
            }
        }
        assert!(outbox.poll_empty(&mut cx, &mut to, |_| {}).is_ready());
        let (_last, whole) = to.0.split_last().expect("records");
        assert!(whole.iter().all(|record| record.len() == MOST));
        assert_eq!(to.0.concat(), bytes);
    }

    #[tokio::test]
    async fn a_socket_that_takes_nothing_bounds_what_is_gathered() {
        let (mut to, mut from) = tokio::io::duplex(1000);
        let (mut outbox, count) = (Outbox::default(), Cell::new(0));
        let mut taken = 0;
        while let Poll::Ready(n) = take(&mut outbox, &mut to, &[LARGE - 1], &count) {
            taken += n;
            assert!(outbox.bytes.len() <= MOST);
        }
        assert_eq!(count.get(), 1000);
        assert!(empty(&mut outbox, &mut to, &count).is_pending());
        let mut bytes = Vec::new();
        while bytes.len() < taken {
            let read = tokio::time::timeout(DEADLINE, from.read_buf(&mut bytes));
            read.await.expect("in time").expect("some");
            let _emptied = empty(&mut outbox, &mut to, &count);
        }
        assert!(outbox.is_empty());
        assert_eq!((bytes.len(), count.get()), (taken, taken));
    }
}
