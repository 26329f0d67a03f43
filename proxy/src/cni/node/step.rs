//! What there may be to do on a node, and how it is told: to whoever checks, and to the log. Made and done by `node`.

use std::fmt;
use std::path::PathBuf;

use super::Aim;
use crate::cni::PLUGIN;

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
}
