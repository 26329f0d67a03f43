//! How large a dynamic table may be: what the recipient of the blocks has announced, from when
//! their sender has acknowledged it (RFC 9113 section 6.5.3).
//!
//! The decoder asks. A sender that applies a larger size before its acknowledgement is sent
//! is not refused: what was announced may be used.

use std::collections::VecDeque;

/// Changes that may wait for their acknowledgement one by one; further ones wait together.
const MAX_PENDING: usize = 8;

/// The sizes that hold, and will.
#[derive(Clone, Debug)]
pub(super) struct Limit {
    current: u32,
    /// SETTINGS that were sent, and that were acknowledged.
    sent: u64,
    acknowledged: u64,
    /// What each SETTINGS frame that named a size has announced.
    pending: VecDeque<(u64, u32)>,
}

impl Limit {
    pub(super) fn new(size: u32) -> Self {
        Self {
            current: size,
            sent: 0,
            acknowledged: 0,
            pending: VecDeque::new(),
        }
    }

    pub(super) fn announce(&mut self, size: Option<u32>) {
        self.sent += 1;
        let Some(size) = size else { return };
        let is_full = self.pending.len() >= MAX_PENDING;
        match self.pending.back_mut() {
            Some((number, last)) if is_full => {
                *number = self.sent;
                *last = size.max(*last);
            }
            _ => self.pending.push_back((self.sent, size)),
        }
    }

    pub(super) fn acknowledge(&mut self) {
        self.acknowledged += 1;
        while let Some((number, size)) = self.pending.front()
            && *number <= self.acknowledged
        {
            self.current = *size;
            self.pending.pop_front();
        }
    }

    pub(super) fn allowed(&self) -> u32 {
        let pending = self.pending.iter().map(|(_, size)| *size);
        pending.fold(self.current, u32::max)
    }
}

#[cfg(test)]
mod tests {
    use super::Limit;

    #[test]
    fn a_smaller_size_holds_from_its_acknowledgement_and_a_larger_one_at_once() {
        let mut limit = Limit::new(4096);
        limit.announce(None);
        limit.announce(Some(100));
        limit.announce(Some(8192));
        assert_eq!(limit.allowed(), 8192);
        limit.acknowledge();
        assert_eq!(limit.allowed(), 8192);
        limit.acknowledge();
        limit.acknowledge();
        assert_eq!(limit.allowed(), 8192);
        limit.announce(Some(0));
        assert_eq!(limit.allowed(), 8192);
        limit.acknowledge();
        assert_eq!(limit.allowed(), 0);
    }

    #[test]
    fn a_flood_of_changes_is_remembered_in_little() {
        let mut limit = Limit::new(4096);
        for n in 0..100_000 {
            limit.announce(Some(n % 7));
        }
        assert_eq!(limit.pending.len(), super::MAX_PENDING);
        for _ in 0..100_000 {
            limit.acknowledge();
        }
        assert_eq!((limit.allowed(), limit.pending.len()), (6, 0));
    }
}
