//! Reads and writes what the keeper keeps: two Secrets, and the bundle in the two webhook
//! configurations or in a ConfigMap. Called by `keeper` and, for the watches, by `app`. It decides nothing.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration, WebhookClientConfig,
};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::material::Pair;
use super::plan::{Authority, Previous, Serving};
use super::{CertificateError, Config, Publish};
use crate::FIELD_MANAGER;
use crate::object::{self, ObjectError};

const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";
const BUNDLE: &str = weir_crds::names::OPERATOR_CA_KEY;
const PREVIOUS: &str = "previous.crt";
const PREVIOUS_KEY: &str = "previous.key";

/// Why a pass over the certificates failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A request failed.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// A certificate could not be made.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
}

impl StoreError {
    /// A word for metrics.
    #[must_use]
    pub fn class(&self) -> &'static str {
        match self {
            Self::Object(error) => error.class(),
            Self::Certificate(_) => "certificate",
        }
    }
}

/// A Secret as it was read: what it says, and the version for the write that follows.
#[derive(Debug)]
pub(super) struct Read<T> {
    pub(super) value: Option<T>,
    version: Option<String>,
    /// Cannot be changed, so a Secret that is there keeps its own.
    secret_type: Option<String>,
}

/// The objects of the keeper in one cluster.
#[derive(Clone)]
pub(super) struct Store {
    secrets: Api<Secret>,
    bundles: Api<ConfigMap>,
    mutating: Api<MutatingWebhookConfiguration>,
    validating: Api<ValidatingWebhookConfiguration>,
    config: Config,
}

impl Store {
    pub(super) fn new(client: Client, config: Config) -> Self {
        Self {
            secrets: Api::namespaced(client.clone(), &config.namespace),
            bundles: Api::namespaced(client.clone(), &config.namespace),
            mutating: Api::all(client.clone()),
            validating: Api::all(client),
            config,
        }
    }

    pub(super) async fn read_authority(&self) -> Result<Read<Authority>, StoreError> {
        let secret = self.read_secret(&self.config.authority_secret).await?;
        Ok(interpret(secret, |data| {
            Some(Authority {
                current: pair(data)?,
                previous: text(data, PREVIOUS).map(|certificate| Previous {
                    certificate,
                    key: text(data, PREVIOUS_KEY),
                }),
            })
        }))
    }

    pub(super) async fn read_serving(&self) -> Result<Read<Serving>, StoreError> {
        let secret = self.read_secret(&self.config.serving_secret).await?;
        Ok(interpret(secret, |data| {
            Some(Serving {
                pair: pair(data)?,
                bundle: text(data, BUNDLE).unwrap_or_default(),
            })
        }))
    }

    pub(super) async fn write_authority(
        &self,
        authority: &Authority,
        read: &Read<Authority>,
    ) -> Result<(), StoreError> {
        let mut data = pair_data(&authority.current);
        if let Some(previous) = &authority.previous {
            data.insert(PREVIOUS, previous.certificate.clone());
            if let Some(key) = &previous.key {
                data.insert(PREVIOUS_KEY, key.clone());
            }
        }
        self.write_secret(&self.config.authority_secret, data, read)
            .await
    }

    pub(super) async fn write_serving(
        &self,
        serving: &Serving,
        read: &Read<Serving>,
    ) -> Result<(), StoreError> {
        let mut data = pair_data(&serving.pair);
        data.insert(BUNDLE, serving.bundle.clone());
        self.write_secret(&self.config.serving_secret, data, read)
            .await
    }

    /// Puts the bundle where clients find it. A webhook configuration that does not exist is no
    /// error. Returns how many objects were changed.
    pub(super) async fn publish_bundle(&self, bundle: &str) -> Result<usize, StoreError> {
        match &self.config.publish {
            Publish::Webhooks(name) => {
                let mutating = set_bundle(&self.mutating, name, bundle).await?;
                let validating = set_bundle(&self.validating, name, bundle).await?;
                Ok(usize::from(mutating) + usize::from(validating))
            }
            Publish::ConfigMap(name) => self.write_bundle(name, bundle).await.map(usize::from),
        }
    }

    /// The bundle that clients have copies of; `None` where there is none, or where nobody keeps a copy.
    pub(super) async fn copied_bundle(&self) -> Result<Option<String>, StoreError> {
        let Publish::ConfigMap(name) = &self.config.publish else {
            return Ok(None);
        };
        let read = object::read(&self.bundles, name).await?;
        let bundle = read.and_then(|map| map.data?.remove(BUNDLE));
        Ok(bundle.filter(|bundle| !bundle.is_empty()))
    }

    async fn write_bundle(&self, name: &str, bundle: &str) -> Result<bool, StoreError> {
        let read = object::read(&self.bundles, name).await?;
        let stored = read.as_ref().and_then(|map| map.data.as_ref()?.get(BUNDLE));
        if stored.is_some_and(|stored| stored == bundle) {
            return Ok(false);
        }
        let data = BTreeMap::from([(BUNDLE.to_owned(), bundle.to_owned())]);
        let map = ConfigMap {
            metadata: object::metadata(
                &self.config.namespace,
                name,
                read.as_ref().and_then(ResourceExt::resource_version),
            ),
            data: Some(data),
            ..ConfigMap::default()
        };
        object::write(&self.bundles, &map).await?;
        Ok(true)
    }

    async fn read_secret(&self, name: &str) -> Result<Option<Secret>, StoreError> {
        Ok(object::read(&self.secrets, name).await?)
    }

    async fn write_secret<T>(
        &self,
        name: &str,
        data: BTreeMap<&'static str, String>,
        read: &Read<T>,
    ) -> Result<(), StoreError> {
        let secret = Secret {
            metadata: object::metadata(&self.config.namespace, name, read.version.clone()),
            type_: Some(
                read.secret_type
                    .clone()
                    .unwrap_or_else(|| "kubernetes.io/tls".to_owned()),
            ),
            data: Some(
                data.into_iter()
                    .map(|(key, value)| (key.to_owned(), ByteString(value.into_bytes())))
                    .collect(),
            ),
            ..Secret::default()
        };
        object::write(&self.secrets, &secret).await?;
        Ok(())
    }
}

/// A webhook configuration of either kind: the entries' names and how each reaches its webhook.
pub trait Watched: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned {
    /// Name and client configuration of every entry.
    fn entries(&self) -> Vec<(&str, &WebhookClientConfig)>;
}

impl Watched for MutatingWebhookConfiguration {
    fn entries(&self) -> Vec<(&str, &WebhookClientConfig)> {
        let entries = self.webhooks.iter().flatten();
        entries
            .map(|entry| (entry.name.as_str(), &entry.client_config))
            .collect()
    }
}

impl Watched for ValidatingWebhookConfiguration {
    fn entries(&self) -> Vec<(&str, &WebhookClientConfig)> {
        let entries = self.webhooks.iter().flatten();
        entries
            .map(|entry| (entry.name.as_str(), &entry.client_config))
            .collect()
    }
}

async fn set_bundle<K>(api: &Api<K>, name: &str, bundle: &str) -> Result<bool, StoreError>
where
    K: Watched + Serialize,
{
    let Some(configuration) = object::read(api, name).await? else {
        return Ok(false);
    };
    let wanted = ByteString(bundle.as_bytes().to_vec());
    let stale: Vec<_> = configuration
        .entries()
        .into_iter()
        .filter(|(_, client)| client.ca_bundle.as_ref() != Some(&wanted))
        .map(|(entry, _)| json!({"name": entry, "clientConfig": {"caBundle": wanted}}))
        .collect();
    if stale.is_empty() {
        return Ok(false);
    }
    // Merged by the entries' names: nothing else of them is touched.
    let patch = json!({
        "metadata": {"resourceVersion": configuration.resource_version()},
        "webhooks": stale,
    });
    let params = PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    object::about::<K, _>(name, api.patch(name, &params, &Patch::Strategic(patch))).await?;
    Ok(true)
}

fn interpret<T>(
    secret: Option<Secret>,
    read: impl Fn(&BTreeMap<String, ByteString>) -> Option<T>,
) -> Read<T> {
    let Some(secret) = secret else {
        return Read {
            value: None,
            version: None,
            secret_type: None,
        };
    };
    Read {
        value: secret.data.as_ref().and_then(read),
        version: secret.metadata.resource_version,
        secret_type: secret.type_,
    }
}

fn pair(data: &BTreeMap<String, ByteString>) -> Option<Pair> {
    Some(Pair {
        certificate: text(data, CERTIFICATE)?,
        key: text(data, KEY)?,
    })
}

fn text(data: &BTreeMap<String, ByteString>, key: &str) -> Option<String> {
    String::from_utf8(data.get(key)?.0.clone()).ok()
}

fn pair_data(pair: &Pair) -> BTreeMap<&'static str, String> {
    BTreeMap::from([
        (CERTIFICATE, pair.certificate.clone()),
        (KEY, pair.key.clone()),
    ])
}
