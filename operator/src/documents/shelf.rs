//! The files of a directory with the documents in each that were last right. A file that cannot be read keeps all its
//! documents; one with a wrong document keeps what it had and has not now, because that may be the wrong one. Called by
//! `documents`; it compares no document with another file's.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use weir_crds::universal::{self, Document};

/// Most that is read of one file, in bytes: 16 MiB, as proxies read.
pub const FILE_SIZE: u64 = 16 * 1024 * 1024;
/// Most that is read of all files together, in bytes: 64 MiB. A Dataplane is some 300 bytes.
pub const TOTAL_SIZE: u64 = 64 * 1024 * 1024;
/// Most files that are read.
pub const MOST_FILES: usize = 10_000;

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
    documents: BTreeMap<Key, Document>,
    problems: Vec<Problem>,
}

/// All files by name.
#[derive(Default)]
pub(super) struct Shelf(BTreeMap<String, Kept>);

/// What a look has found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Something is not what it was.
    pub(super) is_changed: bool,
    /// A file has changed so short a time ago that it may be half written; it is left as it was.
    pub(super) is_unsettled: bool,
}

impl Shelf {
    /// Looks at a directory. What was changed less than `settle` ago is left for the next look.
    pub(super) fn look(&mut self, directory: &Path, settle: Duration) -> Result<Found, ShelfError> {
        let names = list(directory)?;
        let before = self.0.len();
        self.0.retain(|name, _| names.contains(name));
        let mut found = Found {
            is_changed: self.0.len() != before,
            is_unsettled: false,
        };
        let mut room = TOTAL_SIZE;
        for name in names {
            let read = read(&directory.join(&name), &mut room);
            let is_young = read.as_ref().is_ok_and(|(_, age)| *age < settle);
            let text = read.map(|(text, _)| text);
            let kept = self.0.entry(name.clone()).or_default();
            match text {
                Ok(text) if is_young && !kept.is_of(&text) => found.is_unsettled = true,
                text => found.is_changed |= kept.take(&name, text),
            }
        }
        Ok(found)
    }

    /// Every document with its file, in the order of the files.
    pub(super) fn documents(&self) -> impl Iterator<Item = (&str, &Key, &Document)> {
        self.0.iter().flat_map(|(file, kept)| {
            let documents = kept.documents.iter();
            documents.map(move |(key, document)| (file.as_str(), key, document))
        })
    }

    /// What is wrong with the files.
    pub(super) fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.0.values().flat_map(|kept| &kept.problems)
    }
}

fn digest_of(text: &str) -> Vec<u8> {
    digest(&SHA256, text.as_bytes()).as_ref().to_vec()
}

impl Kept {
    /// Whether this is what was last read.
    fn is_of(&self, text: &str) -> bool {
        self.digest.as_ref() == Some(&digest_of(text))
    }

    /// Takes over what a file holds now.
    fn take(&mut self, name: &str, text: Result<String, FileError>) -> bool {
        let text = match text {
            Ok(text) => text,
            Err(error) => {
                let problems = vec![Problem::of(name, error)];
                let is_changed = self.problems != problems;
                self.problems = problems;
                self.digest = None;
                return is_changed;
            }
        };
        if self.is_of(&text) {
            return false;
        }
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
fn read(path: &Path, room: &mut u64) -> Result<(String, Duration), FileError> {
    // A pipe would be waited for.
    if !fs::metadata(path)?.is_file() {
        return Err(FileError::Kind);
    }
    let most = FILE_SIZE.min(*room);
    let mut bytes = Vec::new();
    let file = File::open(path)?;
    (&file).take(most + 1).read_to_end(&mut bytes)?;
    // Clocks of file systems may be ahead.
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
    Ok((text, age))
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
}
