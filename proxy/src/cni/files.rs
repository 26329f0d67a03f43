//! Files that change at once or not at all, because a container runtime may read them at any time. Called by `node`.
//! It knows nothing of what is in them.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use super::PLUGIN;

/// The largest network configuration that is read, in bytes; containerd reads none that is larger.
pub(super) const MAX_TEXT: u64 = 2 << 20;

/// How much of two files is compared at a time.
const CHUNK: usize = 64 * 1024;

/// The bits of a mode that chmod sets.
const PERMISSIONS: u32 = 0o7777;

/// Why a file or a directory of the node could not be dealt with.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {path}: {source}{remedy}", path = path.display(), remedy = remedy(source.kind()))]
pub(super) struct FileError {
    pub(super) action: &'static str,
    pub(super) path: PathBuf,
    pub(super) source: io::Error,
}

fn remedy(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::NotFound | ErrorKind::NotADirectory => {
            "; give the pod the node's directory as a hostPath volume, or name where it is by --bin-dir and --conf-dir"
        }
        ErrorKind::ReadOnlyFilesystem => "; mount its hostPath volume without readOnly",
        ErrorKind::PermissionDenied => "; run as uid 0, to which the directories of a node belong",
        ErrorKind::StorageFull => "; make room on the node",
        _ => "",
    }
}

impl FileError {
    pub(super) fn new(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self {
            action,
            path,
            source,
        }
    }
}

/// Which file it is, and whether it has been written since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp([i64; 6]);

/// The stamp of a file, if it is there.
pub(super) fn stamp(path: &Path) -> io::Result<Option<Stamp>> {
    let data = match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        data => data?,
    };
    Ok(Some(Stamp([
        data.dev().cast_signed(),
        data.ino().cast_signed(),
        data.size().cast_signed(),
        data.mtime(),
        data.mtime_nsec(),
        i64::from(data.mode()),
    ])))
}

/// Whether a file has the bytes of another one, and this mode.
pub(super) fn is_copy(of: &Path, path: &Path, mode: u32) -> io::Result<bool> {
    let (mut one, mut other) = (File::open(of)?, File::open(path)?);
    let (first, second) = (one.metadata()?, other.metadata()?);
    if first.len() != second.len() || second.mode() & PERMISSIONS != mode {
        return Ok(false);
    }
    let (mut a, mut b) = (vec![0; CHUNK], vec![0; CHUNK]);
    loop {
        let length = one.read(&mut a)?;
        if length == 0 {
            return Ok(true);
        }
        match other.read_exact(&mut b[..length]) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(false),
            read => read?,
        }
        if a[..length] != b[..length] {
            return Ok(false);
        }
    }
}

/// The text of a file.
pub(super) fn text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let mut file = File::open(path)?.take(MAX_TEXT + 1);
    file.read_to_string(&mut text)?;
    if text.len() as u64 > MAX_TEXT {
        let limit = format!("it is longer than {MAX_TEXT} bytes");
        return Err(io::Error::new(ErrorKind::FileTooLarge, limit));
    }
    Ok(text)
}

/// Mode and owner of a file that is to be written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Like {
    pub(super) mode: u32,
    /// User and group; default those of this process.
    pub(super) owner: Option<(u32, u32)>,
}

/// Mode and owner of a file that is there.
pub(super) fn like(path: &Path) -> io::Result<Like> {
    let data = fs::metadata(path)?;
    Ok(Like {
        mode: data.mode() & PERMISSIONS,
        owner: Some((data.uid(), data.gid())),
    })
}

/// Writes a file and puts it in its place, unless `is_wanted` says no once it is written. Until then it has a name that
/// no runtime reads.
pub(super) fn put(
    path: &Path,
    content: &mut dyn Read,
    like: Like,
    is_wanted: impl FnOnce() -> bool,
) -> io::Result<bool> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = path.with_file_name(format!(".{name}.{PLUGIN}-new"));
    // What an earlier try has left, which was ended in the middle.
    let _gone = fs::remove_file(&beside);
    let written = write(&beside, content, like).and_then(|()| {
        let is_wanted = is_wanted();
        if is_wanted {
            fs::rename(&beside, path)?;
            sync(path)?;
        }
        Ok(is_wanted)
    });
    if !matches!(written, Ok(true)) {
        let _gone = fs::remove_file(&beside);
    }
    written
}

fn write(path: &Path, content: &mut dyn Read, like: Like) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    io::copy(content, &mut file)?;
    file.flush()?;
    let data = file.metadata()?;
    if let Some((user, group)) = like
        .owner
        .filter(|owner| *owner != (data.uid(), data.gid()))
    {
        fchown(&file, Some(user), Some(group))?;
    }
    file.set_permissions(Permissions::from_mode(like.mode))?;
    file.sync_all()
}

/// Removes a file, which may be gone already.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed.and_then(|()| sync(path)),
    }
}

/// Has the disk know what is in the directory of a file.
fn sync(path: &Path) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    File::open(directory)?.sync_all()
}
