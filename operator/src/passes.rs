//! The loop of whoever writes about Meshes: a pass over all of them whenever one has changed, or who leads; what fails is
//! tried again with growing pauses. Run by `apply` and `status`. It knows no write.

use std::future::{Future, pending};

use jiff::Timestamp;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::backoff::{Backoff, pause};
use crate::index::{MeshSet, MeshView};

/// What is done in a pass.
pub(crate) trait Pass {
    /// One pass over all Meshes. Returns whether nothing is left to try again.
    fn pass(&mut self, meshes: &MeshSet, now: Timestamp) -> impl Future<Output = bool> + Send;

    /// Waits for what else a pass depends on. Dropped when a pass is due anyway.
    fn changed(&mut self) -> impl Future<Output = ()> + Send {
        pending()
    }
}

/// Follows `meshes` until `stop`, writing while `leading`.
pub(crate) async fn run(
    mut writer: impl Pass,
    mut meshes: watch::Receiver<MeshView>,
    mut leading: watch::Receiver<bool>,
    stop: CancellationToken,
) {
    let mut backoff = Backoff::default();
    loop {
        let view = meshes.borrow_and_update().clone();
        let may_write = *leading.borrow_and_update();
        let mut retry = None;
        if let (true, Some(view)) = (may_write, view) {
            if writer.pass(&view, Timestamp::now()).await {
                backoff.reset();
            } else {
                retry = Some(backoff.next_pause());
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = pause(retry) => {}
            () = writer.changed() => {}
            Ok(()) = meshes.changed() => {}
            Ok(()) = leading.changed() => {}
        }
    }
}
