//! The state directory of an operator without Kubernetes: keys, certificates and who is trusted, each a file that only
//! its owner reads. Used by `ca`, `mesh_ca` and `token` where there is no cluster to keep them. It knows no content.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Most that is read of a file here, in bytes.
const FILE_SIZE: u64 = 1024 * 1024;
/// Only its owner reads and writes a file.
const MODE: u32 = 0o600;
/// And lists the directory.
const DIRECTORY_MODE: u32 = 0o700;
/// What others may do, if anything of it is set.
const OTHERS: u32 = 0o077;
/// How names of files begin that are not finished.
const DRAFT: &str = ".draft-";
/// What is in every file that nobody else may read.
const KEY: &str = "PRIVATE KEY";

/// Why something is not kept, or not found.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The file system refused.
    #[error("--state-dir: {path}: {error}")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A name that would lead elsewhere.
    #[error(
        "--state-dir: {0:?} cannot be the name of a file: use letters, digits, `-`, `_` and `.` in names of Meshes and backends"
    )]
    Name(String),
    /// Longer than anything that is kept.
    #[error("--state-dir: {0} is longer than {FILE_SIZE} bytes")]
    Long(PathBuf),
}

/// What lies in a directory.
#[derive(Debug, Default)]
pub struct Listing {
    /// The names of its files.
    pub names: Vec<String>,
    /// What is no file, or has a name that cannot be one; hidden ones are nobody's business.
    pub passed_over: BTreeSet<PathBuf>,
}

/// A directory that only its owner reads.
#[derive(Clone, Debug)]
pub struct StateDir(PathBuf);

impl StateDir {
    /// Opens it for the one process that writes there, and makes it where it is missing. What a crash has left
    /// half done is removed.
    ///
    /// # Errors
    /// When it cannot be made, or read.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        let mut builder = DirBuilder::new();
        let made = builder.recursive(true).mode(DIRECTORY_MODE).create(path);
        made.map_err(|error| failed(path, error))?;
        // Not everybody may list what it lies in.
        let _ = path.parent().map(sync);
        let state = Self(path.to_owned());
        state.tidy().map_err(|error| failed(path, error))?;
        Ok(state)
    }

    /// One that somebody else has made, or not yet: nothing is made or removed.
    #[must_use]
    pub fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }

    fn tidy(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.0)? {
            let entry = entry?;
            if entry
                .file_name()
                .as_encoded_bytes()
                .starts_with(DRAFT.as_bytes())
            {
                fs::remove_file(entry.path())?;
            }
        }
        for path in self.exposed()? {
            let path = path.display();
            tracing::warn!(%path, "others than its owner may read it: chmod 700 for a directory, 600 for a key");
        }
        Ok(())
    }

    /// The directory and the keys in it, where they are not their owner's alone.
    fn exposed(&self) -> io::Result<BTreeSet<PathBuf>> {
        let mut exposed = BTreeSet::new();
        if fs::metadata(&self.0)?.mode() & OTHERS != 0 {
            exposed.insert(self.0.clone());
        }
        for entry in fs::read_dir(&self.0)? {
            let path = entry?.path();
            let is_open = |of: fs::Metadata| of.is_file() && of.mode() & OTHERS != 0;
            if fs::metadata(&path).is_ok_and(is_open) && holds_key(&path) {
                exposed.insert(path);
            }
        }
        Ok(exposed)
    }

    /// A directory inside, made where it is missing.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn below(&self, name: &str) -> Result<Self, StateError> {
        Self::open(&self.place(name)?)
    }

    /// Where a file lies.
    ///
    /// # Errors
    /// When the name would lead elsewhere.
    pub fn place(&self, name: &str) -> Result<PathBuf, StateError> {
        let is_plain =
            |byte: u8| byte.is_ascii_alphanumeric() || [b'-', b'_', b'.'].contains(&byte);
        match name.bytes().all(is_plain) && !name.is_empty() && !name.starts_with('.') {
            true => Ok(self.0.join(name)),
            false => Err(StateError::Name(name.to_owned())),
        }
    }

    /// What a file holds; `None` where there is none.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(&self, name: &str) -> Result<Option<String>, StateError> {
        let path = self.place(name)?;
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(&path, error)),
        };
        let mut text = String::new();
        let read = file.take(FILE_SIZE + 1).read_to_string(&mut text);
        read.map_err(|error| failed(&path, error))?;
        match text.len() as u64 > FILE_SIZE {
            true => Err(StateError::Long(path)),
            false => Ok(Some(text)),
        }
    }

    /// What lies in it.
    ///
    /// # Errors
    /// When it cannot be listed.
    pub fn list(&self) -> Result<Listing, StateError> {
        let list = || -> io::Result<Listing> {
            let mut listing = Listing::default();
            for entry in fs::read_dir(&self.0)? {
                let entry = entry?;
                let is_file = match fs::metadata(entry.path()) {
                    Ok(metadata) => metadata.is_file(),
                    // A link to what is not there (yet): a file without content.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => true,
                    Err(error) => return Err(error),
                };
                match entry.file_name().into_string() {
                    Ok(name) if name.starts_with('.') => {}
                    Ok(name) if is_file && self.place(&name).is_ok() => listing.names.push(name),
                    _ => drop(listing.passed_over.insert(entry.path())),
                }
            }
            Ok(listing)
        };
        list().map_err(|error| failed(&self.0, error))
    }

    /// Writes a file as a whole, in the place of one that is there.
    ///
    /// # Errors
    /// When it cannot be written; then what was there stands.
    pub fn write(&self, name: &str, text: &str) -> Result<(), StateError> {
        let path = self.place(name)?;
        let written = self.draft(text).and_then(|draft| {
            fs::rename(&draft, &path).inspect_err(|_| drop(fs::remove_file(&draft)))?;
            sync(&self.0)
        });
        written.map_err(|error| failed(&path, error))
    }

    /// What a file holds; where there is none it is made, once, whoever else does the same.
    ///
    /// # Errors
    /// When it can be neither read nor written, or `make` fails.
    pub fn read_or_make<E: From<StateError>>(
        &self,
        name: &str,
        make: impl FnOnce() -> Result<String, E>,
    ) -> Result<String, E> {
        if let Some(text) = self.read(name)? {
            return Ok(text);
        }
        let (path, text) = (self.place(name)?, make()?);
        let made = self.draft(&text).and_then(|draft| {
            let linked = fs::hard_link(&draft, &path);
            drop(fs::remove_file(&draft));
            linked?;
            sync(&self.0)
        });
        match made {
            Ok(()) => Ok(text),
            // Somebody was quicker; theirs counts.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Ok(self.read(name)?.unwrap_or(text))
            }
            Err(error) => Err(failed(&path, error).into()),
        }
    }

    /// The text in a file of its own name; one that cannot be finished is removed.
    fn draft(&self, text: &str) -> io::Result<PathBuf> {
        let path = self.0.join(format!("{DRAFT}{:016x}", fastrand::u64(..)));
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(MODE)
            .open(&path)?;
        let written = file
            .write_all(text.as_bytes())
            .and_then(|()| file.sync_all());
        written.inspect_err(|_| drop(fs::remove_file(&path)))?;
        Ok(path)
    }
}

/// Keeps what was named, linked or removed in a directory through a loss of power.
fn sync(directory: &Path) -> io::Result<()> {
    match File::open(directory)?.sync_all() {
        // Some file systems know no such thing.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported
            ) =>
        {
            Ok(())
        }
        done => done,
    }
}

/// Whether a file holds a private key; one that cannot be read is nobody's secret here.
fn holds_key(path: &Path) -> bool {
    let read = || -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(path)?.take(FILE_SIZE).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains(KEY))
}

fn failed(path: &Path, error: io::Error) -> StateError {
    let path = path.to_owned();
    StateError::Io { path, error }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::folder::Folder;

    #[test]
    fn what_is_kept_is_its_owners_alone_and_made_once() {
        let folder = Folder::new("state");
        let state = StateDir::open(&folder.path().join("a/b")).unwrap();
        assert_eq!(state.read("key").unwrap(), None);
        let make = |text: &'static str| move || Ok::<_, StateError>(text.to_owned());
        assert_eq!(state.read_or_make("key", make("first")).unwrap(), "first");
        assert_eq!(state.read_or_make("key", make("second")).unwrap(), "first");
        let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(state.place("key").unwrap()), MODE);
        assert_eq!(mode(folder.path().join("a/b")), DIRECTORY_MODE);
        state.write("key", "third").unwrap();
        assert_eq!(state.read("key").unwrap().as_deref(), Some("third"));
        assert_eq!(mode(state.place("key").unwrap()), MODE);
        assert_eq!(state.list().unwrap().names, ["key"]);
    }

    #[test]
    fn what_a_crash_has_left_is_removed_when_it_is_opened_to_write() {
        let folder = Folder::new("drafts");
        folder.write(".draft-0123", "-----BEGIN PRIVATE KEY-----");
        folder.write("key", "kept");
        let draft = folder.path().join(".draft-0123");
        let reader = StateDir::at(folder.path());
        assert_eq!(reader.read("key").unwrap().as_deref(), Some("kept"));
        assert!(draft.exists());
        StateDir::open(folder.path()).unwrap();
        assert!(!draft.exists() && folder.path().join("key").exists());
    }

    #[test]
    fn what_is_not_there_is_not_made_to_be_read() {
        let folder = Folder::new("reader");
        let nowhere = folder.path().join("nowhere");
        assert_eq!(StateDir::at(&nowhere).read("key").unwrap(), None);
        assert!(!nowhere.exists());
    }

    #[test]
    fn keys_and_directories_that_others_may_read_are_found() {
        let folder = Folder::new("exposed");
        let state = StateDir::open(&folder.path().join("state")).unwrap();
        state.write("key", "-----BEGIN PRIVATE KEY-----").unwrap();
        state.write("cert", "-----BEGIN CERTIFICATE-----").unwrap();
        let open = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        open(&state.place("cert").unwrap(), 0o644);
        assert_eq!(state.exposed().unwrap(), [].into());
        let (directory, key) = (folder.path().join("state"), state.place("key").unwrap());
        open(&key, 0o640);
        open(&directory, 0o750);
        assert_eq!(state.exposed().unwrap(), [directory, key].into());
    }

    #[test]
    fn a_name_leads_nowhere_else() {
        let folder = Folder::new("names");
        let state = StateDir::open(folder.path()).unwrap();
        for name in ["", ".", "..", "../key", "a/b", ".hidden", "a b"] {
            let error = state.write(name, "x").unwrap_err();
            assert!(matches!(error, StateError::Name(_)), "{name}: {error}");
        }
    }

    #[test]
    fn what_cannot_be_kept_names_its_place() {
        let folder = Folder::new("place");
        fs::write(
            folder.path().join("file"),
            "x".repeat(FILE_SIZE as usize + 1),
        )
        .unwrap();
        let error = StateDir::open(&folder.path().join("file")).unwrap_err();
        assert!(error.to_string().contains("/file: "), "{error}");
        let state = StateDir::open(folder.path()).unwrap();
        assert!(matches!(state.read("file"), Err(StateError::Long(_))));
    }
}
