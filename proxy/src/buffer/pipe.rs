//! Pipes for bulk: bytes that nobody has to look at go from one socket through a pipe to the
//! other without being copied to the proxy and back (splice(2)).
//!
//! `Flow` takes one for a direction that fills its buffers, and gives it back when it is
//! empty. Pipes are bounded, and none is kept by a worker without bulk.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

/// Capacity of a pipe in bytes, if its pages are full: four times the default, below which
/// the calls themselves cost more than what they save.
pub const PIPE: usize = 256 * 1024;
/// Most pipes of a worker at a time. Further directions copy: a reader that is slow holds its
/// pipe as long as there are bytes in it, and a user's pipes are limited by the system
/// (`fs.pipe-user-pages-soft`, shared by all proxies of a node).
pub const MAX_PIPES: usize = 32;

/// The pipes of one worker.
#[derive(Debug, Default)]
pub(super) struct Pipes {
    free: RefCell<Vec<Pipe>>,
    open: Rc<Cell<usize>>,
    is_used: Cell<bool>,
    /// The system does not splice sockets: a sandbox may forbid it, or know no such call.
    is_refused: Cell<bool>,
}

/// One pipe, and how many bytes are in it.
#[derive(Debug)]
pub(super) struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    held: usize,
    open: Rc<Cell<usize>>,
}

impl Pipes {
    /// An empty pipe; none where there are too many, or the system has none to give.
    pub(super) fn take(&self) -> Option<Pipe> {
        self.is_used.set(true);
        if let Some(pipe) = self.free.borrow_mut().pop() {
            return Some(pipe);
        }
        if self.is_refused.get() || self.open.get() >= MAX_PIPES {
            return None;
        }
        let (read, write) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC).ok()?;
        // Past the user's limit the system gives pipes of a page, which are worth nothing.
        fcntl_setpipe_size(&write, PIPE).ok()?;
        self.open.set(self.open.get() + 1);
        Some(Pipe {
            read,
            write,
            held: 0,
            open: Rc::clone(&self.open),
        })
    }

    /// Takes an empty pipe back.
    pub(super) fn give(&self, pipe: Pipe) {
        if pipe.held == 0 {
            self.free.borrow_mut().push(pipe);
        }
    }

    /// Whether this error of [`Pipe::fill`] says that sockets cannot be spliced here. Nothing
    /// was taken from the socket then, and no pipe is given out any more.
    pub(super) fn is_refusal(&self, error: &io::Error) -> bool {
        let refusals = [
            Errno::INVAL,
            Errno::NOSYS,
            Errno::PERM,
            Errno::ACCESS,
            Errno::OPNOTSUPP,
        ];
        let is_refusal = Errno::from_io_error(error).is_some_and(|e| refusals.contains(&e));
        if is_refusal {
            tracing::info!(%error, "bulk is copied: sockets cannot be spliced here");
            self.is_refused.set(true);
            self.free.borrow_mut().clear();
        }
        is_refusal
    }

    /// Closes the free pipes if none was needed since the last call.
    pub(super) fn tick(&self) {
        if !self.is_used.replace(false) {
            self.free.borrow_mut().clear();
        }
    }

    /// Pipes that are open.
    pub(super) fn count(&self) -> usize {
        self.open.get()
    }
}

impl Pipe {
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Fills an empty pipe from a socket: the number of bytes, 0 at its end.
    pub(super) fn fill(&mut self, from: impl AsFd, limit: usize) -> io::Result<usize> {
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        let n = splice(from, None, &self.write, None, limit, flags)?;
        self.held += n;
        Ok(n)
    }

    /// Empties it into a socket.
    pub(super) fn empty(&mut self, to: impl AsFd) -> io::Result<usize> {
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        let n = splice(&self.read, None, to, None, self.held, flags)?;
        self.held -= n;
        Ok(n)
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.open.set(self.open.get() - 1);
    }
}
