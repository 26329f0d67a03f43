//! Does a piece of work in another network namespace, on a thread of its own, so that the caller's stays what it is.
//! Called by `plugin` with the pod's. It knows nothing of what is done there.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;

use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// The calling thread's own.
const OWN: &str = "/proc/thread-self/ns/net";

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum NamespaceError {
    #[error(
        "there is no network namespace {0} (CNI_NETNS): the pod has gone, or the container runtime does not show it"
    )]
    Unknown(PathBuf),
    #[error(
        "{0} (CNI_NETNS) is no network namespace: the container runtime has to name that of the pod"
    )]
    Other(PathBuf),
    #[error(
        "{0} (CNI_NETNS) is the network namespace of the node itself, which is never redirected: the container runtime \
         has to name that of the pod"
    )]
    Own(PathBuf),
    #[error("cannot open the network namespace {path} (CNI_NETNS): {source}")]
    Open { path: PathBuf, source: io::Error },
    #[error(
        "cannot enter the network namespace {path} (CNI_NETNS): {source}; the container runtime has to run its CNI \
         plugins as root with CAP_SYS_ADMIN"
    )]
    Enter { path: PathBuf, source: io::Error },
    #[error(
        "the work in the network namespace {0} ended without a result: see the log before this"
    )]
    Died(PathBuf),
}

impl NamespaceError {
    /// A short, stable name of the kind of failure.
    #[must_use]
    pub fn class(&self) -> &'static str {
        match self {
            Self::Unknown(_) => "unknown",
            Self::Other(_) | Self::Own(_) => "variable",
            Self::Open { .. } => "io",
            Self::Enter { .. } | Self::Died(_) => "enter",
        }
    }
}

/// The result of `work` in the network namespace at `path`, which must not be the caller's own: rules that are meant
/// for a pod would cut the node off.
pub(super) fn within<T: Send>(
    path: &Path,
    work: impl FnOnce() -> T + Send,
) -> Result<T, NamespaceError> {
    let to = || path.to_owned();
    let open = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => NamespaceError::Unknown(to()),
        _ => NamespaceError::Open { path: to(), source },
    };
    let enter = |source| NamespaceError::Enter { path: to(), source };
    let namespace = File::open(path).map_err(open)?;
    let identity = |file: &File| file.metadata().map(|data| (data.dev(), data.ino()));
    let own = File::open(OWN).and_then(|own| identity(&own));
    if identity(&namespace).map_err(open)? == own.map_err(enter)? {
        return Err(NamespaceError::Own(to()));
    }
    let inside = || {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        Ok(work())
    };
    let entered = thread::scope(|scope| {
        let thread = thread::Builder::new().spawn_scoped(scope, inside);
        let ended = thread.map_err(enter)?.join();
        ended.map_err(|_| NamespaceError::Died(to()))
    })?;
    entered.map_err(|errno: Errno| match errno {
        Errno::INVAL => NamespaceError::Other(to()),
        errno => enter(errno.into()),
    })
}
