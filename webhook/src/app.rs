//! Wires the webhook together: binds first, watches, serves when asked to. Called by `main` and tests.

use std::{
    future::Future,
    io::{self, Read},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail};
use kube::Client;
use serde_json::Value;
use tokio::{net::TcpListener, time::sleep};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::info;
use weir_crds::{Mesh, names, ports};

use crate::{
    cluster::watching::{self, Names},
    config::{Offline, Serve},
    inject::{self, Context, Operator},
    metrics::Metrics,
    namespace::Namespace,
    pod::Pod,
    serve::{Service, router},
    server,
};

/// After the signal to end, connections are still taken for this long: the Service's endpoints need to hear of it.
pub const SHUTDOWN_DELAY: Duration = Duration::from_secs(5);

/// A webhook that listens and watches, and does not serve yet.
pub struct Bound {
    /// The real address, also where port 0 was asked for.
    pub address: SocketAddr,
    listener: TcpListener,
    service: Arc<Service>,
    tls: rustls::ServerConfig,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// Binds the port and starts to watch the cluster.
pub async fn bind(config: Serve, client: Client) -> anyhow::Result<Bound> {
    let listener = listen(config.listen).await?;
    let address = listener.local_addr()?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let watched = Names {
        namespace: config.namespace.clone(),
        secret: config.secret,
        configuration: config.configuration,
        operator_ca: (!config.inject.control_plane_url.is_empty()).then_some(config.operator_ca),
        native_sidecars: config.native_sidecars.known(),
    };
    let cluster = watching::start(&client, watched, provider.clone(), (&tasks, &stop));
    let tls = server::tls(provider, cluster.serving.clone());
    let service = Arc::new(Service {
        cluster,
        config: config.inject,
        metrics: Metrics::default(),
        name: format!("{}.{}.svc", config.service, config.namespace),
        stopping: CancellationToken::new(),
    });
    info!(%address, image = service.config.proxy_image, name = service.name, "listening");
    Ok(Bound {
        address,
        listener,
        service,
        tls,
        tasks,
        stop,
    })
}

/// Binds the given address, or 9443 of both families, or of IPv4 where the host has no IPv6.
async fn listen(address: Option<SocketAddr>) -> anyhow::Result<TcpListener> {
    let wanted = address.unwrap_or_else(|| (Ipv6Addr::UNSPECIFIED, ports::WEBHOOK).into());
    match TcpListener::bind(wanted).await {
        Ok(listener) => Ok(listener),
        Err(error) if address.is_none() && error.kind() != io::ErrorKind::AddrInUse => {
            let wanted = SocketAddr::from((Ipv4Addr::UNSPECIFIED, ports::WEBHOOK));
            TcpListener::bind(wanted)
                .await
                .with_context(|| format!("cannot listen on {wanted}"))
        }
        Err(error) => Err(error).with_context(|| format!("cannot listen on {wanted}")),
    }
}

impl Bound {
    /// Serves until `signal`; then says that it is not ready, goes on for [`SHUTDOWN_DELAY`], and drains.
    pub async fn run(self, signal: impl Future<Output = ()>) {
        let Self {
            listener,
            service,
            tls,
            tasks,
            stop,
            ..
        } = self;
        let serving = server::serve(
            listener,
            tls,
            router(service.clone()),
            (tasks.clone(), stop.clone()),
        );
        tasks.spawn(serving);
        signal.await;
        info!("ending: no longer ready, open reviews are answered");
        service.stopping.cancel();
        sleep(SHUTDOWN_DELAY).await;
        stop.cancel();
        tasks.close();
        tasks.wait().await;
    }
}

/// Reads a pod, injects it as if it were asked for, and returns it as YAML.
pub fn inject_offline(offline: &Offline) -> anyhow::Result<String> {
    let document = read(&offline.file)?;
    if document.is_null() {
        bail!(
            "{} is empty: give a document of kind Pod",
            offline.file.display()
        );
    }
    if let Some(kind) = document["kind"].as_str().filter(|kind| *kind != "Pod") {
        bail!(
            "kind: {kind:?} is not a Pod: give a document of kind Pod, with the metadata and spec of its pod template"
        );
    }
    let pod = Pod::parse(document)?;
    let mesh = match &offline.mesh_file {
        None => Mesh::initial(),
        Some(path) => serde_json::from_value(read(path)?)
            .with_context(|| format!("{}: not a Mesh", path.display()))?,
    };
    let namespace = Namespace {
        name: namespace_of(&pod, offline.namespace.as_deref()).to_owned(),
        ..Namespace::default()
    };
    let name = mesh.metadata.name.as_deref().unwrap_or(names::DEFAULT_MESH);
    let (wanted, field) = inject::mesh_of(&pod, &namespace);
    if wanted != name {
        bail!(
            "{field}: the pod belongs to Mesh {wanted:?}, and the Mesh given is {name:?}: give --mesh-file"
        );
    }
    let authority = match &offline.operator_ca_file {
        None => None,
        Some(path) => Some(text(path)?),
    };
    let context = Context {
        namespace: &namespace,
        asked_by: "weir-webhook inject",
        mesh: name,
        spec: &mesh.spec,
        native_sidecars: !offline.no_native_sidecars,
        config: &offline.inject,
        operator: authority.as_deref().map(|authority| Operator {
            url: &offline.inject.control_plane_url,
            authority,
        }),
    };
    let injected = inject::inject(pod, &context)?;
    for warning in &injected.warnings {
        tracing::warn!("{warning}");
    }
    Ok(serde_yaml::to_string(injected.pod.value())?)
}

/// The namespace that was asked for, else the one the pod names, else the one kubectl would take.
fn namespace_of<'a>(pod: &'a Pod, asked: Option<&'a str>) -> &'a str {
    let own = pod.value()["metadata"]["namespace"].as_str();
    asked.or(own).unwrap_or("default")
}

fn text(path: &Path) -> anyhow::Result<String> {
    let text = match path == Path::new("-") {
        true => io::read_to_string(io::stdin().take(crate::serve::MAX_BODY as u64)),
        false => std::fs::read_to_string(path),
    };
    text.with_context(|| format!("cannot read {}", path.display()))
}

fn read(path: &Path) -> anyhow::Result<Value> {
    serde_yaml::from_str(&text(path)?)
        .with_context(|| format!("{} is neither YAML nor JSON", path.display()))
}
