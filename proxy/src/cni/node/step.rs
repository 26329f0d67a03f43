//! What there may be to do on a node, and how it is told: to whoever checks, and to the log. Made and done by `node`.

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};

use super::{Aim, MODE};
use crate::cni::PLUGIN;
use crate::cni::files::{self, FileError, Like};

/// Something to be done. Its text says what is not as it should be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Copy the program.
    Copy(PathBuf),
    /// Write a network configuration, if it still is what it was.
    Edit {
        path: PathBuf,
        before: String,
        text: String,
        aim: Aim,
    },
    /// Write a list beside a configuration of one plugin.
    Chain {
        path: PathBuf,
        original: PathBuf,
        text: String,
    },
    Delete(PathBuf),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Copy(path) => write!(f, "{} is not this program", path.display()),
            Self::Edit { path, aim, .. } => {
                let place = match aim {
                    Aim::Installed => "is not the last plugin of",
                    Aim::Removed => "is a plugin of",
                };
                write!(f, "{PLUGIN} {place} {}", path.display())
            }
            Self::Chain { path, original, .. } => {
                let (path, original) = (path.display(), original.display());
                write!(f, "{path} does not chain {PLUGIN} to {original}")
            }
            Self::Delete(path) => write!(f, "{} is still there", path.display()),
        }
    }
}

impl Step {
    /// What the log says once it is done.
    pub(crate) fn done(&self) -> String {
        match self {
            Self::Copy(path) => format!("installed {}", path.display()),
            Self::Edit { path, aim, .. } => match aim {
                Aim::Installed => format!("added {PLUGIN} to {}", path.display()),
                Aim::Removed => format!("took {PLUGIN} out of {}", path.display()),
            },
            Self::Chain { path, original, .. } => {
                let (path, original) = (path.display(), original.display());
                format!("chained {PLUGIN} to {original}, in {path}")
            }
            Self::Delete(path) => format!("removed {}", path.display()),
        }
    }

    /// Does it, and says whether it was done: a configuration that somebody else has just written is looked at again
    /// first. `program` is what the plugin is a copy of.
    pub(crate) fn apply(&self, program: &Path) -> Result<bool, FileError> {
        match self {
            Self::Copy(path) => {
                let like = Like {
                    mode: MODE,
                    owner: None,
                };
                let program = File::open(program);
                let copied =
                    program.and_then(|mut program| files::put(path, &mut program, like, || true));
                copied.map_err(FileError::new("write", path))
            }
            Self::Edit {
                path, before, text, ..
            } => {
                let is_unchanged = || files::text(path).is_ok_and(|now| now == *before);
                write(path, text, path, is_unchanged)
            }
            Self::Chain {
                path,
                original,
                text,
            } => write(path, text, original, || true),
            Self::Delete(path) => {
                let removed = files::remove(path).map_err(FileError::new("remove", path));
                removed.map(|()| true)
            }
        }
    }
}

/// Writes a configuration with mode and owner of `model`.
fn write(
    path: &Path,
    text: &str,
    model: &Path,
    is_wanted: impl FnOnce() -> bool,
) -> Result<bool, FileError> {
    let like = files::like(model);
    like.and_then(|like| files::put(path, &mut text.as_bytes(), like, is_wanted))
        .map_err(FileError::new("write", path))
}
