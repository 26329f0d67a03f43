//! Whether the pod is redirected: told by whoever looks, read by the exposition; printed once it is known.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

const DIRECT: u8 = 1;
const REDIRECTED: u8 = 2;

/// The gauge; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Redirection(Arc<AtomicU8>);

impl Redirection {
    /// It is known from now on.
    pub fn set(&self, is_redirected: bool) {
        let state = if is_redirected { REDIRECTED } else { DIRECT };
        self.0.store(state, Ordering::Relaxed);
    }

    /// `None` while it is not known.
    pub(crate) fn read(&self) -> Option<bool> {
        match self.0.load(Ordering::Relaxed) {
            DIRECT => Some(false),
            REDIRECTED => Some(true),
            _ => None,
        }
    }
}
