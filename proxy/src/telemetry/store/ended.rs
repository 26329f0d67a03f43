//! Destinations that are gone: their label sets need not wait until they have been idle for as long as others. Called
//! on the service thread when endpoints are replaced; a set that is used again goes on as if nothing had been.

use super::{CHUNK, Store};
use crate::telemetry::labels::Dst;

impl Store {
    /// Marks the label sets of these destinations as ended, some in each hold of the lock.
    pub(in crate::telemetry) fn end(&self, gone: &[Dst]) {
        let mut from = 0;
        loop {
            let registry = self.registry();
            let mut seen = 0;
            for (id, slot) in registry.slots.range(from..).take(CHUNK / 8) {
                seen += 1;
                from = *id + 1;
                let dst = slot.set.dst.as_ref();
                if dst.is_some_and(|dst| gone.contains(dst)) {
                    slot.set.set_ended(true);
                }
            }
            if seen < CHUNK / 8 {
                return;
            }
        }
    }
}
