//! Writes what the authorities are made of: two files or Secrets a builtin root, and who is trusted. Called by `keeper`,
//! in a cluster on the leader. `cluster` writes to the API server, `files` into the state directory of an operator without
//! Kubernetes. It decides nothing.

mod cluster;
mod files;

use std::collections::BTreeMap;

use weir_crds::Mesh;

use super::root::RootError;
use crate::object::ObjectError;
use crate::state::StateError;

pub(super) use cluster::Cluster;
pub use files::{Files, SECRETS};

/// Why a pass over the authorities failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A request failed.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// The state directory failed.
    #[error(transparent)]
    State(#[from] StateError),
    /// A root could not be made.
    #[error(transparent)]
    Root(#[from] RootError),
}

impl StoreError {
    /// A word for metrics.
    #[must_use]
    pub fn class(&self) -> &'static str {
        match self {
            Self::Object(error) => error.class(),
            Self::State(_) => "state",
            Self::Root(_) => "certificate",
        }
    }

    /// Another try would fail, too: what is to be kept cannot be kept, or not by us.
    #[must_use]
    pub fn is_final(&self) -> bool {
        match self {
            Self::Object(error) => error.is_final(),
            Self::State(error) => matches!(error, StateError::Name(_)),
            Self::Root(_) => false,
        }
    }
}

/// Who is trusted, as it is kept: JSON of each Mesh.
#[derive(Clone, Debug, Default)]
pub(super) struct Kept {
    pub(super) trusts: BTreeMap<String, String>,
    /// What was read, where whoever keeps it tells versions apart.
    pub(super) version: Option<String>,
}

/// Where the authorities are kept.
pub(super) enum Store {
    Cluster(Box<Cluster>),
    Files(Files),
}

impl Store {
    /// Writes a part of a root of `mesh`, over the version that was read where there was one.
    pub(super) async fn write_secret(
        &self,
        mesh: &Mesh,
        (name, value): (&str, String),
        version: Option<String>,
    ) -> Result<(), StoreError> {
        match self {
            Self::Cluster(cluster) => cluster.write_secret(mesh, (name, value), version).await,
            Self::Files(files) => Ok(files.write_secret(name, value)?),
        }
    }

    pub(super) async fn read_trust(&self) -> Result<Kept, StoreError> {
        match self {
            Self::Cluster(cluster) => cluster.read_trust().await,
            Self::Files(files) => Ok(files.read_trust()?),
        }
    }

    /// Writes who is trusted, over what was read.
    pub(super) async fn write_trust(&self, kept: Kept) -> Result<(), StoreError> {
        match self {
            Self::Cluster(cluster) => cluster.write_trust(kept).await,
            Self::Files(files) => Ok(files.write_trust(&kept)?),
        }
    }
}
