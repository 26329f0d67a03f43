//! The Secrets of Meshes as the watch shows them: their content, and what a write needs. Fed by
//! `watch`, read by `keeper`. Only Secrets of [`super::SECRET_TYPE`] are asked for. It judges nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use tokio::sync::watch;

use super::names::VALUE;
use crate::index::Indexed;

/// One Secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its content; `None` where there is none, or none in UTF-8.
    pub value: Option<String>,
    /// `metadata.resourceVersion`.
    pub version: Option<String>,
}

impl std::fmt::Debug for Stored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The content may be a key.
        f.debug_struct("Stored")
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// Secrets by name.
pub type SecretSet = BTreeMap<String, Arc<Stored>>;

/// What readers see: `None` until the first complete list.
pub type SecretView = Option<Arc<SecretSet>>;

/// The Secrets of Meshes; there are few of them.
#[derive(Debug)]
pub struct Secrets {
    secrets: SecretSet,
    view: watch::Sender<SecretView>,
}

impl Default for Secrets {
    fn default() -> Self {
        Self {
            secrets: SecretSet::new(),
            view: watch::Sender::new(None),
        }
    }
}

impl Secrets {
    /// The Secrets now and at every change.
    #[must_use]
    pub fn view(&self) -> watch::Receiver<SecretView> {
        self.view.subscribe()
    }

    fn publish(&self) {
        self.view.send_replace(Some(Arc::new(self.secrets.clone())));
    }
}

fn stored(secret: Secret) -> (String, Arc<Stored>) {
    let name = secret.name_any();
    let version = secret.metadata.resource_version;
    let value = secret.data.and_then(|mut data| data.remove(VALUE));
    let value = value.and_then(|value| String::from_utf8(value.0).ok());
    (name, Arc::new(Stored { value, version }))
}

impl Indexed<Secret> for Secrets {
    fn apply(&mut self, secret: Secret) {
        let (name, stored) = stored(secret);
        if self.secrets.get(&name) != Some(&stored) {
            self.secrets.insert(name, stored);
            self.publish();
        }
    }

    fn delete(&mut self, secret: &Secret) {
        if self.secrets.remove(&secret.name_any()).is_some() {
            self.publish();
        }
    }

    fn reset(&mut self, secrets: Vec<Secret>) {
        self.secrets = secrets.into_iter().map(stored).collect();
        self.publish();
    }
}
