//! What a worker has of buffers and pipes while nobody needs them: taken and given back by `Flow`, and by nobody else. It
//! keeps what was needed lately, and knows nothing of connections.

use std::cell::RefCell;
use std::hint::black_box;

use super::SMALL;
use super::pipe::Pipes;

/// Most free buffers of each size that a worker keeps; the rest go back to the allocator.
pub const KEEP: usize = 16;

/// Bytes that a worker asks for and gives back at each tick, untouched. The allocator looks through what a thread has freed
/// and keeps to itself once for so many bytes that it asks for (jemalloc's `tcache_gc_incr_bytes`): one that rests after
/// a burst would keep all of it.
const LOOK_THROUGH: usize = 64 * 1024;

/// The free buffers of one worker.
#[derive(Debug, Default)]
pub struct Pool {
    small: RefCell<Free>,
    large: RefCell<Free>,
    pub(super) pipes: Pipes,
}

/// Free buffers of one size.
#[derive(Debug, Default)]
struct Free {
    buffers: Vec<Box<[u8]>>,
    /// The fewest that there were since the last tick: so many were needed by nobody.
    fewest: usize,
}

impl Free {
    fn take(&mut self) -> Option<Box<[u8]>> {
        let buffer = self.buffers.pop();
        self.fewest = self.fewest.min(self.buffers.len());
        buffer
    }

    fn give(&mut self, buffer: Box<[u8]>) {
        if self.buffers.len() < KEEP {
            self.buffers.push(buffer);
        }
    }

    /// Gives back those that nobody needed since the last call.
    fn tick(&mut self) {
        self.buffers.truncate(self.buffers.len() - self.fewest);
        self.fewest = self.buffers.len();
    }
}

impl Pool {
    fn of(&self, size: usize) -> &RefCell<Free> {
        match size {
            SMALL => &self.small,
            _ => &self.large,
        }
    }

    pub(super) fn take(&self, size: usize) -> Box<[u8]> {
        let free = self.of(size).borrow_mut().take();
        free.unwrap_or_else(|| vec![0; size].into_boxed_slice())
    }

    pub(super) fn give(&self, buffer: Box<[u8]>) {
        self.of(buffer.len()).borrow_mut().give(buffer);
    }

    /// How many buffers of that size are free.
    #[cfg(test)]
    pub(super) fn free(&self, size: usize) -> usize {
        self.of(size).borrow().buffers.len()
    }

    /// Pipes that are open now, at most [`MAX_PIPES`](super::MAX_PIPES).
    pub fn pipes(&self) -> usize {
        self.pipes.count()
    }

    /// To be called now and then: gives back what was needed and is not any more.
    pub fn tick(&self) {
        self.small.borrow_mut().tick();
        self.large.borrow_mut().tick();
        self.pipes.tick();
        drop(black_box(Vec::<u8>::with_capacity(LOOK_THROUGH)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_buffers_are_only_kept_while_they_are_needed() {
        let pool = Pool::default();
        let use_of = |n: usize| {
            let taken: Vec<_> = (0..n).map(|_| pool.take(SMALL)).collect();
            taken.into_iter().for_each(|buffer| pool.give(buffer));
            pool.tick();
        };
        use_of(5);
        assert_eq!(pool.free(SMALL), 5, "they were needed since the last tick");
        use_of(2);
        assert_eq!(pool.free(SMALL), 2);
        use_of(2);
        assert_eq!(pool.free(SMALL), 2);
        use_of(0);
        assert_eq!(pool.free(SMALL), 0);
    }
}
