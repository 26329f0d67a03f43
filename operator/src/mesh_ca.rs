//! The certificate authorities of Meshes: a root a Mesh with mutual TLS, made by the leader or given by
//! the user, and the bundle its proxies trust. Wired by `app`, read by `serve` and `status`.
//! `root` makes, reads and uses roots, `resolve` finds the one a Mesh asks for, `trust` decides who
//! is trusted and when, `seen` what follows for each Mesh (pure, all four), `secrets` shows what is
//! stored, `store` writes, and `keeper` runs the passes. It knows no caller and no pod.

mod given;
mod keeper;
mod names;
mod resolve;
mod root;
mod secrets;
mod seen;
mod store;
mod trust;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use weir_crds::Violation;

pub use keeper::{Config, Keeper, Sources};
pub use names::{SECRET_TYPE, TRUST, VALUE, certificate_secret, key_secret};
pub use root::{Leaf, Root, RootError};
pub use secrets::{SecretSet, SecretView, Secrets};
pub use store::{Files, SECRETS, StoreError};
pub use trust::{LEAD, MARGIN, MOST_FORMER, Trust, Trusted};

/// What is known of the authority of one Mesh.
#[derive(Clone, Debug, PartialEq)]
pub struct Authority {
    /// The roots that proxies of the Mesh trust, PEM; empty before there is one.
    pub bundle: Arc<str>,
    /// Who signs, or why nobody does.
    pub signer: Result<Signer, NotReady>,
}

/// Signs the certificates of one Mesh.
#[derive(Clone, Debug)]
pub struct Signer {
    /// The root.
    pub root: Arc<Root>,
    /// Nothing is signed before: proxies must have got the bundle with a new root first.
    pub from: Timestamp,
    /// How long a proxy's certificate is valid.
    pub leaf_life: SignedDuration,
}

impl PartialEq for Signer {
    /// A root is read once, so the same root is the same object.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.root, &other.root)
            && (self.from, self.leaf_life) == (other.from, other.leaf_life)
    }
}

/// Why a Mesh has nobody who signs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotReady {
    /// Its mutual TLS is not enabled.
    Off,
    /// The root is being made or told to everyone.
    Soon,
    /// The root cannot be used; the field of the Mesh to blame and what would be right.
    Unusable(Violation),
}

/// The authorities by Mesh; a Mesh is missing where it does not exist or has never had one.
pub type Authorities = BTreeMap<String, Authority>;

/// What readers see: `None` until everything that it is made of was read once.
pub type View = Option<Arc<Authorities>>;
