//! When an incomplete head is worth another look: a peer that sends single bytes must not have
//! each of them cost a look at the whole head.
//!
//! Kept by `session`, one for each direction. It must not know what the bytes mean.

/// The last look at a head that was in vain.
#[derive(Debug, Default)]
pub(super) struct Attempt {
    /// Bytes that were looked at.
    len: usize,
}

impl Attempt {
    /// Whether these bytes, the first of which were looked at before, may say more now: where a
    /// line has ended, or where they have doubled.
    pub(super) fn is_due(&self, bytes: &[u8]) -> bool {
        let fresh = bytes.get(self.len..).unwrap_or(bytes);
        bytes.len() >= 2 * self.len || memchr::memchr(b'\n', fresh).is_some()
    }

    pub(super) fn was_in_vain(&mut self, bytes: &[u8]) {
        self.len = bytes.len();
    }

    /// The head was taken: what comes is another one.
    pub(super) fn succeeded(&mut self) {
        self.len = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::Attempt;

    #[test]
    fn a_head_in_single_bytes_is_looked_at_as_often_as_it_has_lines_and_doubles() {
        let head = "a: b\r\n".repeat(10) + &"x".repeat(1000);
        let (mut attempt, mut looks) = (Attempt::default(), 0);
        for n in 1..=head.len() {
            let bytes = &head.as_bytes()[..n];
            if attempt.is_due(bytes) {
                attempt.was_in_vain(bytes);
                looks += 1;
            }
        }
        assert!((14..=20).contains(&looks), "{looks}");
        attempt.succeeded();
        assert!(attempt.is_due(b"x"));
    }
}
