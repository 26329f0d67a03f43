//! What the webhook knows of the cluster: Namespaces and Meshes, the API server's version, our certificate and our
//! webhook configurations. `watch` fills it, `serve` reads it. Only this module and `watch` hold a client.

use std::{future::Future, sync::Arc, time::Duration};

use futures::FutureExt;
use k8s_openapi::api::core::v1;
use kube::{
    Api, Client,
    api::ListParams,
    core::{ObjectMeta, PartialObjectMeta},
    runtime::reflector::{ObjectRef, Store},
};
use thiserror::Error;
use tokio::{sync::watch, time::timeout};
use weir_crds::{Dataplane, Mesh, mesh::MeshSpec};

use crate::{certificate::Serving, namespace::Namespace, ready::Hooks};

pub mod watching;

/// Dataplanes asked for at once.
const PAGE: u32 = 250;
/// How long a question to the API server may take within a review, which has 3 s.
pub const LOOKUP_TIMEOUT: Duration = Duration::from_secs(1);

/// Why the cluster's state is not known; the review fails, and the API server admits the pod as it is.
#[derive(Debug, Error)]
pub enum LookupError {
    /// A cache is not filled yet.
    #[error("the webhook has not read the API server's {0} yet")]
    Pending(String),
    /// The API server did not answer in time.
    #[error("looking up {0} took longer than {LOOKUP_TIMEOUT:?}")]
    Timeout(String),
    /// The API server answered with an error.
    #[error("looking up {0}: {1}")]
    Api(String, #[source] Box<kube::Error>),
}

/// Readers of everything that is watched.
#[derive(Clone)]
pub struct Cluster {
    /// Metadata of all Namespaces.
    pub namespaces: Store<PartialObjectMeta<v1::Namespace>>,
    /// All Meshes.
    pub meshes: Store<Mesh>,
    /// Whether the API server has native sidecars; `None` until its version is known.
    pub native_sidecars: watch::Receiver<Option<bool>>,
    /// The certificate of the moment.
    pub serving: watch::Receiver<Arc<Serving>>,
    /// Our webhook configurations.
    pub hooks: watch::Receiver<Hooks>,
    /// The authority of the operator's certificate, PEM, once it is known; `None` where pods get no operator.
    pub operator_ca: Option<watch::Receiver<Option<Arc<str>>>>,
    /// For what the caches do not hold yet; `None` in tests.
    pub client: Option<Client>,
}

impl Cluster {
    /// The names of what has not been read yet; empty once everything has been read.
    pub fn pending(&self) -> Vec<&'static str> {
        let filled = |ready: Option<bool>| ready == Some(true);
        let namespaces = self
            .namespaces
            .wait_until_ready()
            .now_or_never()
            .map(|r| r.is_ok());
        let meshes = self
            .meshes
            .wait_until_ready()
            .now_or_never()
            .map(|r| r.is_ok());
        let version = Some(self.native_sidecars.borrow().is_some());
        let authority = self.operator_ca.as_ref();
        let authority = authority.map_or(Some(true), |ca| Some(ca.borrow().is_some()));
        [
            ("Namespaces", namespaces),
            ("Meshes", meshes),
            ("version", version),
            ("ConfigMap with the operator's authority", authority),
        ]
        .into_iter()
        .filter_map(|(name, ready)| (!filled(ready)).then_some(name))
        .collect()
    }

    /// Whether the API server has native sidecars.
    pub fn native_sidecars(&self) -> Result<bool, LookupError> {
        let known = *self.native_sidecars.borrow();
        known.ok_or_else(|| LookupError::Pending("version".to_owned()))
    }

    /// The authority of the operator's certificate, PEM; `None` while it is not known.
    pub fn operator_ca(&self) -> Option<Arc<str>> {
        self.operator_ca.as_ref()?.borrow().clone()
    }

    /// A Namespace from the cache, or from the API server where it is too new for the cache.
    pub async fn namespace(&self, name: &str) -> Result<Namespace, LookupError> {
        if let Some(found) = self.namespaces.get(&ObjectRef::new(name)) {
            return Ok(namespace(name, &found.metadata));
        }
        let what = format!("Namespace {name:?}");
        let Some(client) = self.client.clone() else {
            return Err(LookupError::Pending(what));
        };
        let api = Api::<v1::Namespace>::all(client);
        let found = ask(what.clone(), api.get_metadata_opt(name)).await?;
        let found = found.ok_or(LookupError::Pending(what))?;
        Ok(namespace(name, &found.metadata))
    }

    /// A Mesh's content, likewise; `None` when the API server has no such Mesh, and where no Mesh can have that name.
    pub async fn mesh(&self, name: &str) -> Result<Option<MeshSpec>, LookupError> {
        if !is_object_name(name) {
            return Ok(None);
        }
        if let Some(found) = self.meshes.get(&ObjectRef::new(name)) {
            return Ok(Some(found.spec.clone()));
        }
        let what = format!("Mesh {name:?}");
        let Some(client) = self.client.clone() else {
            return match self.pending().contains(&"Meshes") {
                true => Err(LookupError::Pending(what)),
                false => Ok(None),
            };
        };
        let api = Api::<Mesh>::all(client);
        ask(what, api.get_opt(name))
            .await
            .map(|found| found.map(|mesh| mesh.spec))
    }

    /// Whether a Dataplane names a Mesh; asked of the API server each time, as Meshes are rarely deleted, page by page, as
    /// there may be thousands.
    pub async fn has_dataplanes(&self, mesh: &str) -> Result<bool, LookupError> {
        let what = format!("the Dataplanes of Mesh {mesh:?}");
        let Some(client) = self.client.clone() else {
            return Err(LookupError::Pending(what));
        };
        let api = Api::<Dataplane>::all(client);
        let mut page = ListParams::default().limit(PAGE);
        loop {
            let found = ask(what.clone(), api.list(&page)).await?;
            if found.iter().any(|one| one.mesh_name() == mesh) {
                return Ok(true);
            }
            match found.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page.continue_token = Some(token),
                None => return Ok(false),
            }
        }
    }
}

/// Waits for an answer of the API server, for no longer than a review can.
async fn ask<T>(
    what: String,
    answer: impl Future<Output = kube::Result<T>>,
) -> Result<T, LookupError> {
    match timeout(LOOKUP_TIMEOUT, answer).await {
        Err(_) => Err(LookupError::Timeout(what)),
        Ok(Err(error)) => Err(LookupError::Api(what, Box::new(error))),
        Ok(Ok(found)) => Ok(found),
    }
}

/// Whether an object can have this name (a DNS subdomain): no other is asked for, as it would be a part of an address.
fn is_object_name(name: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let ends = (name.bytes().next(), name.bytes().last());
    let (Some(first), Some(last)) = ends else {
        return false;
    };
    let middle = |byte: u8| is_allowed(byte) || byte == b'-' || byte == b'.';
    is_allowed(first) && is_allowed(last) && name.len() <= 253 && name.bytes().all(middle)
}

fn namespace(name: &str, metadata: &ObjectMeta) -> Namespace {
    Namespace {
        name: name.to_owned(),
        labels: metadata.labels.clone().unwrap_or_default(),
        annotations: metadata.annotations.clone().unwrap_or_default(),
    }
}
