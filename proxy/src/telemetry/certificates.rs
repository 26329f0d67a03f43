//! The proxy's own certificate: when it ends, and how often it was renewed. Told by whoever keeps it, read by the
//! exposition; printed once there is such a keeper.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::SystemTime;

/// The figures; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Certificates(Arc<Cells>);

#[derive(Debug, Default)]
struct Cells {
    is_kept: AtomicBool,
    /// Seconds since the Unix epoch, as the bits of a float; 0 before the first.
    expires: AtomicU64,
    renewed: AtomicU64,
    failed: AtomicU64,
}

impl Certificates {
    /// There is somebody who keeps a certificate: from now on the families are printed.
    pub fn known(&self) {
        self.0.is_kept.store(true, Ordering::Relaxed);
    }

    /// A certificate that ends then is in force.
    pub fn renewed(&self, expires: SystemTime) {
        let expires = expires.duration_since(SystemTime::UNIX_EPOCH);
        let seconds = expires.map_or(0.0, |since| since.as_secs_f64());
        self.0.expires.store(seconds.to_bits(), Ordering::Relaxed);
        self.0.renewed.fetch_add(1, Ordering::Relaxed);
    }

    /// No certificate was to be had, or none that holds.
    pub fn failed(&self) {
        self.0.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// When the certificate ends, and how many were taken and not taken; `None` where nobody keeps one.
    pub(crate) fn read(&self) -> Option<(f64, u64, u64)> {
        let cells = &*self.0;
        cells.is_kept.load(Ordering::Relaxed).then(|| {
            let expires = f64::from_bits(cells.expires.load(Ordering::Relaxed));
            let counts = [&cells.renewed, &cells.failed].map(|cell| cell.load(Ordering::Relaxed));
            (expires, counts[0], counts[1])
        })
    }
}
