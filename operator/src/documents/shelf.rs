//! The files of a directory with the documents in each that were last right. A file that cannot be read keeps all its
//! documents; one with a wrong document keeps what it had and has not now, because that may be the wrong one. Called by
//! `documents`; it compares no document with another file's.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use weir_crds::universal::{self, Document};

/// Most that is read of one file, in bytes: 16 MiB, as proxies read.
pub const FILE_SIZE: u64 = 16 * 1024 * 1024;
/// Most that is read of all files together, in bytes: 64 MiB. A Dataplane is some 300 bytes.
pub const TOTAL_SIZE: u64 = 64 * 1024 * 1024;
/// Most files that are read.
pub const MOST_FILES: usize = 10_000;

/// How long everything waits for files that keep changing. Default: 10 s; then the others are taken over without them.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a directory is not taken over; nothing of it changes then.
#[derive(Debug, thiserror::Error)]
pub enum ShelfError {
    /// It cannot be listed.
    #[error("--documents: cannot be listed: {0}")]
    List(#[from] io::Error),
    /// More than can be kept.
    #[error(
        "--documents: has more than {MOST_FILES} files *.yaml and *.yml: put several documents into one"
    )]
    Many,
    /// Rather not mounted than meant.
    #[error(
        "--documents: has no file *.yaml or *.yml any more: put one there, or start anew where that is meant"
    )]
    Empty,
}

/// Why a file is not taken over; its documents stay then.
#[derive(Debug, thiserror::Error)]
enum FileError {
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
    #[error("is no file")]
    Kind,
    #[error("is longer than {FILE_SIZE} bytes: divide it")]
    Long,
    #[error("all files together are longer than {TOTAL_SIZE} bytes: remove what is not used")]
    Full,
    #[error("is not UTF-8")]
    Text,
    #[error("has kept changing for {PATIENCE:?}, and is read once it does not")]
    Restless,
}

/// What is wrong with a document, or a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The file's name.
    pub file: String,
    /// Which document, where it is known, the field, and what would be right.
    pub what: String,
}

impl Problem {
    pub(super) fn of(file: &str, what: impl fmt::Display) -> Self {
        Self {
            file: file.to_owned(),
            what: what.to_string(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file, self.what)
    }
}

/// What a document is known by: of its kind and Mesh there is one of a name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    Mesh(String),
    /// Mesh and name.
    Dataplane(String, String),
    /// One without `networking`: what it changes of its Mesh's metrics for the Dataplane of that name.
    Override(String, String),
    Permission(String, String),
}

impl Key {
    fn of(document: &Document) -> Self {
        match document {
            Document::Mesh(entry) => Self::Mesh(entry.name.clone()),
            Document::Dataplane(entry) => {
                let (mesh, name) = (entry.mesh.clone(), entry.name.clone());
                match entry.spec.networking() {
                    Ok(None) => Self::Override(mesh, name),
                    _ => Self::Dataplane(mesh, name),
                }
            }
            Document::TrafficPermission(entry) => {
                Self::Permission(entry.mesh.clone(), entry.name.clone())
            }
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mesh(name) => write!(f, "Mesh {name:?}"),
            Self::Dataplane(mesh, name) => write!(f, "Dataplane {name:?} of Mesh {mesh:?}"),
            Self::Override(mesh, name) => {
                write!(
                    f,
                    "Dataplane {name:?} of Mesh {mesh:?} (without networking)"
                )
            }
            Self::Permission(mesh, name) => {
                write!(f, "TrafficPermission {name:?} of Mesh {mesh:?}")
            }
        }
    }
}

/// One file.
#[derive(Default)]
struct Kept {
    /// What was last read; `None` where it could not be.
    digest: Option<Vec<u8>>,
    /// What it holds instead, `None` where it is gone, and since when that is known.
    unsettled: Option<(Option<Vec<u8>>, Instant)>,
    documents: BTreeMap<Key, Document>,
    problems: Vec<Problem>,
}

/// All files by name.
#[derive(Default)]
pub(super) struct Shelf {
    files: BTreeMap<String, Kept>,
    /// Since when one or another has been changing.
    unsettled_since: Option<Instant>,
}

/// What a look has found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Something is not what it was.
    pub(super) is_changed: bool,
    /// A file has changed so short a time ago that it may be half written; everything is left as it was.
    pub(super) is_unsettled: bool,
}

/// How a file compares with what was last read of it.
enum State {
    Same,
    /// It may be half written, or be replaced by another just now.
    Unsettled,
    Changed,
}

impl Shelf {
    /// Looks at a directory. While a file has not been as it is for `settle` nothing is taken over, because what belongs
    /// together may be in several files; after [`PATIENCE`] the others are.
    pub(super) fn look(&mut self, directory: &Path, settle: Duration) -> Result<Found, ShelfError> {
        let names = list(directory)?;
        if names.is_empty() && !self.files.is_empty() {
            return Err(ShelfError::Empty);
        }
        let now = Instant::now();
        let mut room = TOTAL_SIZE;
        let (mut changed, mut unsettled) = (Vec::new(), Vec::new());
        let known: BTreeSet<String> = self.files.keys().cloned().collect();
        for name in names.union(&known) {
            let read = || read(&directory.join(name), &mut room);
            let held = names.contains(name).then(read);
            let kept = self.files.entry(name.clone()).or_default();
            match kept.compare(held.as_ref(), now, settle) {
                State::Same => {}
                State::Unsettled => unsettled.push(name),
                State::Changed => changed.push((name, held)),
            }
        }
        let since = *self.unsettled_since.get_or_insert(now);
        let is_patient = now.duration_since(since) < PATIENCE;
        if unsettled.is_empty() {
            self.unsettled_since = None;
        } else if is_patient {
            return Ok(Found {
                is_changed: false,
                is_unsettled: true,
            });
        }
        let mut found = Found::default();
        for (name, held) in changed {
            found.is_changed |= self.take(name, held);
        }
        for name in unsettled {
            let kept = self.files.entry(name.clone()).or_default();
            found.is_changed |= kept.complain(Problem::of(name, FileError::Restless));
        }
        Ok(found)
    }

    /// Takes over what a file holds now, or that it is gone.
    fn take(&mut self, name: &str, held: Option<Result<Read, FileError>>) -> bool {
        match held {
            None => self.files.remove(name).is_some(),
            Some(held) => {
                let kept = self.files.entry(name.to_owned()).or_default();
                kept.take(name, held.map(|read| read.text))
            }
        }
    }

    /// Every document with its file, in the order of the files.
    pub(super) fn documents(&self) -> impl Iterator<Item = (&str, &Key, &Document)> {
        self.files.iter().flat_map(|(file, kept)| {
            let documents = kept.documents.iter();
            documents.map(move |(key, document)| (file.as_str(), key, document))
        })
    }

    /// What is wrong with the files.
    pub(super) fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.files.values().flat_map(|kept| &kept.problems)
    }
}

fn digest_of(text: &str) -> Vec<u8> {
    digest(&SHA256, text.as_bytes()).as_ref().to_vec()
}

impl Kept {
    /// Compares it with what it holds now; `None` where it is gone. What its own time says is not enough: the clock that
    /// wrote that may be ahead.
    fn compare(
        &mut self,
        held: Option<&Result<Read, FileError>>,
        now: Instant,
        settle: Duration,
    ) -> State {
        let (digest, is_old) = match held {
            // Its documents stay.
            Some(Err(_)) => return State::Changed,
            Some(Ok(read)) => (Some(digest_of(&read.text)), read.age >= settle),
            None => (None, settle.is_zero()),
        };
        if digest.is_some() && self.digest == digest {
            self.unsettled = None;
            return State::Same;
        }
        let since = match &self.unsettled {
            Some((seen, since)) if *seen == digest => *since,
            _ => now,
        };
        self.unsettled = Some((digest, since));
        match is_old || now.duration_since(since) >= settle {
            true => State::Changed,
            false => State::Unsettled,
        }
    }

    /// This alone is wrong with it; its documents stay.
    fn complain(&mut self, problem: Problem) -> bool {
        let problems = vec![problem];
        let is_changed = self.problems != problems;
        self.problems = problems;
        self.digest = None;
        is_changed
    }

    /// Takes over what a file holds now.
    fn take(&mut self, name: &str, text: Result<String, FileError>) -> bool {
        let text = match text {
            Ok(text) => text,
            Err(error) => return self.complain(Problem::of(name, error)),
        };
        self.unsettled = None;
        self.digest = Some(digest_of(&text));
        self.problems.clear();
        let before = std::mem::take(&mut self.documents);
        let mut is_whole = true;
        for (called, judged) in universal::judged(&text) {
            match judged {
                Ok(document) => self.add(name, document),
                Err(errors) => {
                    is_whole = false;
                    let problem = |error| Problem::of(name, format!("{called}: {error}"));
                    self.problems.extend(errors.into_iter().map(problem));
                }
            }
        }
        if !is_whole {
            for (key, document) in before {
                self.documents.entry(key).or_insert(document);
            }
        }
        true
    }

    fn add(&mut self, file: &str, document: Document) {
        let key = Key::of(&document);
        if self.documents.contains_key(&key) {
            let what = format!("{key} is in this file twice: the first counts, remove one");
            self.problems.push(Problem::of(file, what));
            return;
        }
        self.documents.insert(key, document);
    }
}

/// The names of the files that may hold documents. Hidden ones are somebody's drafts.
fn list(directory: &Path) -> Result<BTreeSet<String>, ShelfError> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(directory)? {
        let Ok(name) = entry?.file_name().into_string() else {
            continue;
        };
        if name.starts_with('.') || !(name.ends_with(".yaml") || name.ends_with(".yml")) {
            continue;
        }
        names.insert(name);
        if names.len() > MOST_FILES {
            return Err(ShelfError::Many);
        }
    }
    Ok(names)
}

/// What a file holds, and how long ago it was changed.
struct Read {
    text: String,
    age: Duration,
}

fn read(path: &Path, room: &mut u64) -> Result<Read, FileError> {
    // A pipe would be waited for.
    if !fs::metadata(path)?.is_file() {
        return Err(FileError::Kind);
    }
    let most = FILE_SIZE.min(*room);
    let mut bytes = Vec::new();
    let file = File::open(path)?;
    (&file).take(most + 1).read_to_end(&mut bytes)?;
    let age = file.metadata()?.modified()?.elapsed().unwrap_or_default();
    let length = bytes.len() as u64;
    if length > most {
        return Err(match most < FILE_SIZE {
            true => FileError::Full,
            false => FileError::Long,
        });
    }
    *room -= length;
    let text = String::from_utf8(bytes).map_err(|_| FileError::Text)?;
    Ok(Read { text, age })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::folder::Folder;

    #[test]
    fn all_files_together_have_a_bound_and_so_has_their_number() {
        let folder = Folder::new("shelf");
        folder.write("a.yaml", "type: Mesh");
        let mut room = 15;
        let path = folder.path().join("a.yaml");
        assert!(read(&path, &mut room).is_ok());
        assert_eq!(room, 5);
        assert!(matches!(read(&path, &mut room), Err(FileError::Full)));
        for number in 0..MOST_FILES {
            folder.write(&format!("{number}.yml"), "");
        }
        let mut shelf = Shelf::default();
        let looked = shelf.look(folder.path(), Duration::ZERO);
        assert!(matches!(looked, Err(ShelfError::Many)));
        std::fs::remove_file(&path).unwrap();
        assert!(shelf.look(folder.path(), Duration::ZERO).is_ok());
    }

    #[test]
    fn a_file_is_settled_by_what_it_holds_where_its_time_tells_nothing() {
        let mut kept = Kept::default();
        let (start, settle) = (Instant::now(), Duration::from_secs(1));
        let mut at = |millis: u64, text: &str| {
            let read = Read {
                text: text.to_owned(),
                age: Duration::ZERO,
            };
            let now = start + Duration::from_millis(millis);
            let state = kept.compare(Some(&Ok(read)), now, settle);
            matches!(state, State::Changed)
        };
        assert!(!at(0, "one") && !at(900, "one"));
        assert!(!at(1000, "other"), "it has changed since");
        assert!(!at(1900, "other") && at(2000, "other"));
    }

    #[test]
    fn a_file_that_never_settles_does_not_hold_the_others_up_for_ever() {
        let folder = Folder::new("restless");
        let mesh = |name: &str| format!("{{type: Mesh, name: {name}}}");
        folder.write("a.yaml", &mesh("a"));
        folder.write("b.yaml", &mesh("b"));
        let file = File::options()
            .write(true)
            .open(folder.path().join("a.yaml"));
        let old = std::time::SystemTime::now() - Duration::from_secs(7200);
        file.unwrap().set_modified(old).unwrap();
        let mut shelf = Shelf::default();
        let settle = Duration::from_secs(3600);
        let look = |shelf: &mut Shelf| shelf.look(folder.path(), settle).unwrap();
        assert!(look(&mut shelf).is_unsettled && shelf.documents().count() == 0);
        shelf.unsettled_since = Instant::now().checked_sub(PATIENCE);
        let found = look(&mut shelf);
        assert!(found.is_changed && !found.is_unsettled);
        let files: Vec<&str> = shelf.documents().map(|(file, ..)| file).collect();
        assert_eq!(files, ["a.yaml"]);
        let problems: Vec<&Problem> = shelf.problems().collect();
        assert!(problems[0].what.contains("kept changing"), "{problems:?}");
        assert!(!look(&mut shelf).is_changed, "it is told once");
    }
}
