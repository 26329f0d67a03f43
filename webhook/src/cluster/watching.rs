//! Fills the [`Cluster`]: one task for each thing watched, each the only writer of its value.
//! Called by `app`. It knows what to watch, and not what it is for.

use std::{
    fmt::Debug,
    future::{Future, ready},
    sync::Arc,
    time::Duration,
};

use backon::ExponentialBuilder;
use futures::{Stream, StreamExt, stream};
use k8s_openapi::{
    ByteString,
    api::{
        admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration},
        core::v1,
    },
};
use kube::{
    Api, Client, Resource,
    core::PartialObjectMeta,
    runtime::{
        WatchStreamExt, reflector,
        watcher::{self, Config, Event, ExponentialBackoff, watcher},
    },
};
use rustls::crypto::CryptoProvider;
use serde::de::DeserializeOwned;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, info, warn};
use weir_crds::{Mesh, names::OPERATOR_CA_KEY};
use weir_process::api_server::limited;

use super::{Cluster, LOOKUP_TIMEOUT};
use crate::{
    certificate::Serving,
    ready::{Hook, Hooks},
};

/// First and longest pause between attempts to watch. Short, because an installation waits for them.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// Pause between attempts to learn the API server's version.
const VERSION_RETRY: Duration = Duration::from_secs(2);
/// How often the version is asked for again: a cluster may be upgraded under us.
const VERSION_REFRESH: Duration = Duration::from_secs(600);
/// The first minor version of Kubernetes 1 with native sidecars on by default.
const NATIVE_SIDECARS_SINCE: u32 = 29;

/// Which objects are ours.
#[derive(Debug, Clone)]
pub struct Names {
    /// The namespace of the Secret.
    pub namespace: String,
    /// The Secret with `tls.crt` and `tls.key`.
    pub secret: String,
    /// Both webhook configurations.
    pub configuration: String,
    /// The ConfigMap with the authority of the operator's certificate; `None` where pods get no operator.
    pub operator_ca: Option<String>,
    /// The answer to whether the API server has native sidecars, where its version is not to be asked.
    pub native_sidecars: Option<bool>,
}

/// The tasks of a watch and the token that ends them.
type Tasks<'a> = (&'a TaskTracker, &'a CancellationToken);

/// Starts to watch.
pub fn start(
    client: &Client,
    names: Names,
    provider: Arc<CryptoProvider>,
    tasks: Tasks<'_>,
) -> Cluster {
    let (namespaces, writer) = reflector::store();
    let api = Api::<PartialObjectMeta<v1::Namespace>>::all(client.clone());
    let stream = watcher(api, limited(Config::default()));
    let stream = reflector::reflector(writer, stream.backoff(backoff()));
    spawn(tasks, drive("Namespaces", stream));

    let (meshes, writer) = reflector::store();
    let api = Api::<Mesh>::all(client.clone());
    let stream = watcher(api, limited(Config::default()));
    let stream = reflector::reflector(writer, stream.backoff(backoff()));
    spawn(tasks, drive("Meshes", stream));

    let (native, native_sidecars) = watch::channel(names.native_sidecars);
    if names.native_sidecars.is_none() {
        spawn(tasks, ask_version(client.clone(), native));
    }
    let (writer, serving) = watch::channel(Arc::new(Serving::placeholder(&provider)));
    spawn(
        tasks,
        watch_certificate(client.clone(), names.clone(), provider, writer),
    );

    let (writer, hooks) = watch::channel(Hooks::default());
    spawn(
        tasks,
        watch_hooks(client.clone(), names.configuration, writer),
    );
    let operator_ca = names.operator_ca.map(|name| {
        let (writer, authority) = watch::channel(None);
        let api = Api::<v1::ConfigMap>::namespaced(client.clone(), &names.namespace);
        spawn(tasks, watch_authority(api, name, writer));
        authority
    });
    Cluster {
        namespaces,
        meshes,
        native_sidecars,
        serving,
        hooks,
        operator_ca,
        client: Some(client.clone()),
    }
}

fn spawn((tracker, stop): Tasks<'_>, work: impl Future<Output = ()> + Send + 'static) {
    let stop = stop.clone();
    tracker.spawn(async move {
        tokio::select! { () = stop.cancelled() => {}, () = work => {} }
    });
}

fn backoff() -> ExponentialBackoff {
    let builder = ExponentialBuilder::default()
        .with_min_delay(RETRY.0)
        .with_max_delay(RETRY.1);
    builder.without_max_times().with_jitter().into()
}

/// Follows the object of this name: as it is now and at every change, `None` where there is none.
fn watch_one<K>(api: Api<K>, name: &str) -> impl Stream<Item = watcher::Result<Option<K>>> + use<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let config = limited(Config::default()).fields(&format!("metadata.name={name}"));
    let mut is_listed = false;
    let shown = watcher(api, config).map(move |event| match event {
        Ok(Event::Init) => {
            is_listed = false;
            None
        }
        Ok(Event::InitApply(object)) => {
            is_listed = true;
            Some(Ok(Some(object)))
        }
        Ok(Event::InitDone) => (!is_listed).then_some(Ok(None)),
        Ok(Event::Apply(object)) => Some(Ok(Some(object))),
        Ok(Event::Delete(_)) => Some(Ok(None)),
        Err(error) => Some(Err(error)),
    });
    shown.filter_map(ready)
}

async fn drive<T>(what: &str, stream: impl Stream<Item = watcher::Result<T>>) {
    let mut stream = std::pin::pin!(stream);
    while let Some(event) = stream.next().await {
        if let Err(error) = event {
            warn!(what, %error, "watching failed, trying again");
        }
    }
}

async fn ask_version(client: Client, native: watch::Sender<Option<bool>>) {
    loop {
        let pause = match timeout(LOOKUP_TIMEOUT, client.apiserver_version()).await {
            Ok(Ok(version)) => {
                let has = has_native_sidecars(&version.major, &version.minor);
                if native.send_replace(Some(has)) != Some(has) {
                    info!(
                        version = version.git_version,
                        native_sidecars = has,
                        "API server"
                    );
                }
                VERSION_REFRESH
            }
            Ok(Err(error)) => {
                warn!(%error, "cannot read the API server's version, trying again");
                VERSION_RETRY
            }
            Err(_) => VERSION_RETRY,
        };
        sleep(pause).await;
    }
}

/// Reads `major` and `minor` as API servers write them, some with a plus sign. What cannot be read is taken for new.
fn has_native_sidecars(major: &str, minor: &str) -> bool {
    let number = |text: &str| {
        let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<u32>().ok()
    };
    match (number(major), number(minor)) {
        (Some(1), Some(minor)) => minor >= NATIVE_SIDECARS_SINCE,
        _ => true,
    }
}

async fn watch_certificate(
    client: Client,
    names: Names,
    provider: Arc<CryptoProvider>,
    serving: watch::Sender<Arc<Serving>>,
) {
    let secret = names.secret;
    let api = Api::<v1::Secret>::namespaced(client, &names.namespace);
    let mut events = std::pin::pin!(watch_one(api, &secret).backoff(backoff()));
    while let Some(event) = events.next().await {
        let data = match event {
            Ok(Some(found)) => found.data.unwrap_or_default(),
            Ok(None) => {
                debug!(secret, "there is no certificate yet");
                continue;
            }
            Err(error) => {
                warn!(secret, %error, "watching failed, trying again");
                continue;
            }
        };
        let part = |key: &str| data.get(key).map_or(&[][..], |bytes| &bytes.0);
        match Serving::parse(part("tls.crt"), part("tls.key"), &provider) {
            Ok(new) => {
                info!(
                    secret,
                    expires = new.expires,
                    "serving the certificate of the Secret"
                );
                serving.send_replace(Arc::new(new));
            }
            // The one being served stays: it is better than none, and /ready tells whether it is trusted.
            Err(error) => warn!(secret, %error, "the Secret's certificate cannot be served"),
        }
    }
}

/// Follows the authority of the operator's certificate. A ConfigMap that goes leaves the last one: pods need it.
async fn watch_authority(
    api: Api<v1::ConfigMap>,
    name: String,
    authority: watch::Sender<Option<Arc<str>>>,
) {
    let mut events = std::pin::pin!(watch_one(api, &name).backoff(backoff()));
    while let Some(event) = events.next().await {
        match event {
            Ok(found) => {
                let data = found.and_then(|found| found.data?.remove(OPERATOR_CA_KEY));
                if let Some(pem) = data.filter(|pem| !pem.is_empty()) {
                    authority.send_replace(Some(pem.into()));
                } else {
                    debug!(
                        configmap = name,
                        "the operator's authority is not there yet"
                    );
                }
            }
            Err(error) => warn!(configmap = name, %error, "watching failed, trying again"),
        }
    }
}

/// One of the two configurations as it is now; `None` when it does not exist.
enum Seen {
    Mutating(Option<Vec<Hook>>),
    Validating(Option<Vec<Hook>>),
}

async fn watch_hooks(client: Client, name: String, hooks: watch::Sender<Hooks>) {
    let api = Api::<MutatingWebhookConfiguration>::all(client.clone());
    let mutating = watch_one(api, &name).backoff(backoff()).map(|event| {
        event.map(|found| {
            Seen::Mutating(found.map(|configuration| {
                let entries = configuration.webhooks.unwrap_or_default().into_iter();
                entries
                    .map(|entry| hook(entry.name, entry.client_config.ca_bundle))
                    .collect()
            }))
        })
    });
    let api = Api::<ValidatingWebhookConfiguration>::all(client);
    let validating = watch_one(api, &name).backoff(backoff()).map(|event| {
        event.map(|found| {
            Seen::Validating(found.map(|configuration| {
                let entries = configuration.webhooks.unwrap_or_default().into_iter();
                entries
                    .map(|entry| hook(entry.name, entry.client_config.ca_bundle))
                    .collect()
            }))
        })
    });
    let mut events = std::pin::pin!(stream::select(mutating, validating));
    while let Some(event) = events.next().await {
        match event {
            Ok(Seen::Mutating(entries)) => hooks.send_modify(|hooks| hooks.mutating = entries),
            Ok(Seen::Validating(entries)) => hooks.send_modify(|hooks| hooks.validating = entries),
            Err(error) => warn!(configuration = name, %error, "watching failed, trying again"),
        }
    }
}

fn hook(name: String, ca_bundle: Option<ByteString>) -> Hook {
    let ca_bundle = ca_bundle.map(|bundle| bundle.0).unwrap_or_default();
    Hook { name, ca_bundle }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn native_sidecars_come_with_1_29() {
        let versions = [
            ("1", "28", false),
            ("1", "28+", false),
            ("1", "29", true),
            ("1", "35+", true),
            ("2", "0", true),
            ("", "", true),
        ];
        for (major, minor, has) in versions {
            assert_eq!(has_native_sidecars(major, minor), has, "{major}.{minor}");
        }
    }
}
