//! The authorities of an operator without Kubernetes: a file each in the state directory, named as Kuma's Secrets, and
//! one with who is trusted. Made by `app`, used by `store`. A root that the user provides is put there as files, too.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Kept;
use crate::mesh_ca::names::TRUST;
use crate::mesh_ca::secrets::{SecretSet, SecretView, Stored};
use crate::state::{StateDir, StateError};

/// The directory in the state directory with a file for each Secret of a Mesh.
pub const SECRETS: &str = "secrets";

/// Where the authorities are kept; clones are the same.
#[derive(Clone, Debug)]
pub struct Files {
    state: StateDir,
    secrets: StateDir,
    view: Arc<watch::Sender<SecretView>>,
    /// What lies there and is no Secret, as it was logged.
    passed_over: BTreeSet<PathBuf>,
}

impl Files {
    /// Reads what is there.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn open(state: StateDir) -> Result<Self, StateError> {
        let mut files = Self {
            secrets: state.below(SECRETS)?,
            state,
            view: Arc::new(watch::Sender::new(None)),
            passed_over: BTreeSet::new(),
        };
        files.look()?;
        Ok(files)
    }

    /// What is kept, now and at every change.
    #[must_use]
    pub fn view(&self) -> watch::Receiver<SecretView> {
        self.view.subscribe()
    }

    /// Looks every so often whether the user has put something else there, until `stop`.
    pub async fn follow(mut self, look: Duration, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(look) => {}
            }
            if let Err(error) = self.look() {
                tracing::error!(%error, "what was known of the authorities stands");
            }
        }
    }

    fn look(&mut self) -> Result<(), StateError> {
        let mut found = SecretSet::new();
        let listing = self.secrets.list()?;
        for path in listing.passed_over.difference(&self.passed_over) {
            let path = path.display();
            tracing::warn!(%path, "is passed over: secrets are files, with letters, digits, `-`, `_` and `.` in their names");
        }
        self.passed_over = listing.passed_over;
        for name in listing.names {
            let value = self.secrets.read(&name)?;
            found.insert(name, stored(value));
        }
        self.view.send_if_modified(|known| {
            let changed = known.as_deref() != Some(&found);
            if changed {
                *known = Some(Arc::new(found));
            }
            changed
        });
        Ok(())
    }

    pub(super) fn write_secret(&self, name: &str, value: String) -> Result<(), StateError> {
        self.secrets.write(name, &value)?;
        self.view.send_modify(|known| {
            let mut set = known.as_deref().cloned().unwrap_or_default();
            set.insert(name.to_owned(), stored(Some(value)));
            *known = Some(Arc::new(set));
        });
        Ok(())
    }

    pub(super) fn read_trust(&self) -> Result<Kept, StateError> {
        let json = self.state.read(TRUST)?.unwrap_or_default();
        let trusts: BTreeMap<String, String> = match json.is_empty() {
            true => BTreeMap::new(),
            false => serde_json::from_str(&json).unwrap_or_else(|error| {
                tracing::error!(%error, "who was trusted cannot be read, and is forgotten");
                BTreeMap::new()
            }),
        };
        Ok(Kept {
            trusts,
            version: None,
        })
    }

    pub(super) fn write_trust(&self, kept: &Kept) -> Result<(), StateError> {
        let json = serde_json::to_string_pretty(&kept.trusts).expect("it holds only texts");
        self.state.write(TRUST, &json)
    }
}

fn stored(value: Option<String>) -> Arc<Stored> {
    Arc::new(Stored {
        value,
        version: None,
    })
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    use super::*;
    use crate::folder::Folder;

    #[test]
    fn what_is_no_secret_is_passed_over_and_the_others_are_read() {
        let folder = Folder::new("passed-over");
        let secrets = folder.path().join(SECRETS);
        let odd = [
            secrets.join("a-directory"),
            secrets.join("two words"),
            secrets.join(OsStr::from_bytes(b"latin-\xe9")),
        ];
        std::fs::create_dir_all(&odd[0]).unwrap();
        std::fs::write(&odd[1], "x").unwrap();
        std::fs::write(&odd[2], "x").unwrap();
        std::fs::write(secrets.join(".hidden"), "x").unwrap();
        std::fs::write(secrets.join("root-cert"), "pem").unwrap();
        let files = Files::open(StateDir::open(folder.path()).unwrap()).unwrap();
        let found = files.view().borrow().clone().unwrap();
        assert_eq!(found.keys().collect::<Vec<_>>(), ["root-cert"]);
        assert_eq!(files.passed_over, odd.into());
    }
}
