//! Wires the operator: opens its ports, starts one task a concern, and ends them in order. Called by
//! `main` and by the tests. It decides nothing itself.

mod discovery;
mod serving;
mod signals;
pub mod universal;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::core::v1::Secret;
use kube::runtime::watcher;
use kube::{Api, Client};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use weir_crds::ports::{OPERATOR_HTTP, OPERATOR_MONITORING};

use crate::apply::{InitialMesh, PolicyWriter};
use crate::ca::{self, Keeper};
use crate::health::{self, Readiness};
use crate::index::{self, Changes, Discovery, Meshes};
use crate::leader::{self, Leader};
use crate::mesh_ca;
use crate::metrics::{Metrics, Watch};
use crate::monitoring;
use crate::serve;
use crate::status::StatusWriter;
use crate::watch::{Follow, follow, only};

pub use self::signals::Signals;

/// How long an operator that is to end goes on to serve, at the most: whoever watches endpoints needs a moment to send
/// nobody there any more. Its writers end meanwhile. With the default of [`Config::shutdown`], 5 s, all of it takes 15 s at
/// the most, which fits into the grace period of the manifests (20 s).
pub const SHUTDOWN_DELAY: Duration = Duration::from_secs(5);

/// Everything the operator can be told.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where `/live`, `/ready` and `/metrics` are served; none: every address of the host.
    pub http_address: Option<SocketAddr>,
    /// Where scrapers are told of the proxies; none: every address of the host.
    pub monitoring_address: Option<SocketAddr>,
    /// Whether Mesh `default` is created where an installation has no Mesh.
    pub create_default_mesh: bool,
    /// How long tasks may take to end; the servers go on for as long before, but not longer than [`SHUTDOWN_DELAY`].
    pub shutdown: Duration,
    /// The election.
    pub leader: leader::Config,
    /// The certificates of the webhook.
    pub ca: ca::Config,
    /// The certificates of the operator itself.
    pub own_ca: ca::Config,
    /// The gRPC server.
    pub grpc: Grpc,
    /// The last labels of every DNS name in a proxy's certificate.
    pub trust_domain: String,
    /// What discovery is told.
    pub index: index::Config,
    /// The value of the tag `kuma.io/zone` of generated Dataplanes; none: they have no such tag.
    pub zone: Option<String>,
}

/// The gRPC server.
#[derive(Clone, Debug)]
pub struct Grpc {
    /// Where it is served; none: every address of the host.
    pub address: Option<SocketAddr>,
    /// Whether it is served without TLS, on a loopback address.
    pub plaintext: bool,
    /// What it gives to whom.
    pub limits: serve::Limits,
}

/// Opens the ports of the health server and of the gRPC server.
async fn open(
    http: Option<SocketAddr>,
    grpc: &Grpc,
) -> anyhow::Result<(TcpListener, serve::Bound)> {
    let listener = health::bind(http, OPERATOR_HTTP)
        .await
        .context("cannot open the HTTP port; --http-address chooses another")?;
    let server = serve::Bound::new(grpc.address, grpc.limits.clone()).await?;
    Ok((listener, server))
}

/// Ends the tasks that work, which have `limit` to do so.
async fn end(workers: &TaskTracker, working: &CancellationToken, limit: Duration) {
    working.cancel();
    workers.close();
    if tokio::time::timeout(limit, workers.wait()).await.is_err() {
        tracing::warn!(?limit, "tasks did not end in time");
    }
}

/// An operator with its ports open that does nothing yet.
pub struct Bound {
    /// The real address of the health server.
    pub http: SocketAddr,
    /// The real address of the gRPC server.
    pub grpc: SocketAddr,
    /// The real address of the monitoring server.
    pub monitoring: SocketAddr,
    listener: TcpListener,
    monitoring_listener: TcpListener,
    server: serve::Bound,
    client: Client,
    config: Config,
}

impl Bound {
    /// Opens the ports.
    ///
    /// # Errors
    /// When one cannot be had.
    pub async fn new(client: Client, config: Config) -> anyhow::Result<Self> {
        let (listener, server) = open(config.http_address, &config.grpc).await?;
        let monitoring = health::bind(config.monitoring_address, OPERATOR_MONITORING)
            .await
            .context("cannot open the monitoring port; --monitoring-address chooses another")?;
        Ok(Self {
            http: listener.local_addr()?,
            grpc: server.address,
            monitoring: monitoring.local_addr()?,
            listener,
            monitoring_listener: monitoring,
            server,
            client,
            config,
        })
    }

    /// Runs until `shutdown`. The writers end first, and the Lease is given back; the gRPC server and the monitoring
    /// server serve on as those of a standby do, and end then, and the health server last.
    pub async fn run(self, shutdown: CancellationToken) {
        let limit = self.config.shutdown;
        let metrics = Metrics::default();
        let readiness = Readiness::default();
        let [writing, working, campaigning, serving] =
            std::array::from_fn(|_| CancellationToken::new());
        let [writers, workers, last] = std::array::from_fn(|_| TaskTracker::new());

        let leader = Leader::new(
            self.client.clone(),
            self.config.leader.clone(),
            metrics.clone(),
        );
        let tasks = Tasks {
            client: self.client,
            config: self.config,
            metrics: metrics.clone(),
            readiness: readiness.clone(),
            stop: working.clone(),
            tracker: workers.clone(),
            writing: writing.clone(),
            writers: writers.clone(),
        };
        tasks.spawn(&leader, self.server, self.monitoring_listener);
        last.spawn(readiness.clone().follow("the API server", leader.contact()));
        let campaign = last.spawn(leader.run(campaigning.clone()));
        last.spawn(health::serve(
            self.listener,
            readiness.clone(),
            metrics,
            serving.clone(),
        ));

        shutdown.cancelled().await;
        let _not_ready = readiness.register("shutdown");
        tracing::info!("shutting down");
        let resigned = async {
            end(&writers, &writing, limit).await;
            campaigning.cancel();
            if tokio::time::timeout(limit, campaign).await.is_err() {
                tracing::warn!(?limit, "the lease was not given back in time");
            }
        };
        tokio::join!(resigned, tokio::time::sleep(SHUTDOWN_DELAY.min(limit)));
        end(&workers, &working, limit).await;
        serving.cancel();
        last.close();
        last.wait().await;
    }
}

/// What the tasks share while they are started.
struct Tasks {
    client: Client,
    config: Config,
    metrics: Metrics,
    readiness: Readiness,
    stop: CancellationToken,
    tracker: TaskTracker,
    /// Of those who do nothing but write, and end before the Lease is given back.
    writing: CancellationToken,
    writers: TaskTracker,
}

impl Tasks {
    fn spawn(self, leader: &Leader, server: serve::Bound, monitoring: TcpListener) {
        let discovery = Discovery::new(self.config.index.clone());
        let known = monitoring::Known {
            index: discovery.clone(),
            contact: leader.contact(),
        };
        self.tracker.spawn(monitoring::serve(
            monitoring,
            known,
            monitoring::Limits::default(),
            (self.metrics.monitoring.clone(), self.stop.clone()),
        ));
        let index = Meshes::default();
        let meshes = index.specs();
        let authorities = self.spawn_authorities(leader, meshes.clone());
        self.spawn_discovery(leader, &discovery);
        self.spawn_meshes(leader, (index, discovery.clone()), authorities.clone());
        self.spawn_certificates(leader);
        self.spawn_server(leader, server, &discovery, (meshes, authorities));
    }

    fn spawn_meshes(
        &self,
        leader: &Leader,
        index: (Meshes, Discovery),
        authorities: watch::Receiver<mesh_ca::View>,
    ) {
        let view = index.0.view();
        let follower = self.follower(Watch::Meshes, index);
        self.tracker.spawn(follow(
            Api::all(self.client.clone()),
            watcher::Config::default(),
            follower,
        ));
        let status = StatusWriter::new(
            self.client.clone(),
            self.config.leader.identity.clone(),
            authorities,
            self.metrics.clone(),
        );
        self.writers
            .spawn(status.run(view.clone(), leader.leading(), self.writing.clone()));
        let policies = PolicyWriter::new(self.client.clone(), self.metrics.clone());
        self.writers
            .spawn(policies.run(view.clone(), leader.leading(), self.writing.clone()));
        if self.config.create_default_mesh {
            let initial = InitialMesh::new(
                self.client.clone(),
                &self.config.ca.namespace,
                self.metrics.clone(),
            );
            self.writers
                .spawn(initial.run(view, leader.leading(), self.writing.clone()));
        }
    }

    fn spawn_certificates(&self, leader: &Leader) {
        let config = &self.config.ca;
        let changes = Changes::default();
        let count = changes.count();
        for (what, name) in [
            (Watch::AuthoritySecret, &config.authority_secret),
            (Watch::ServingSecret, &config.serving_secret),
        ] {
            self.follow_secret(what, name, &changes);
        }
        let mutating: Api<MutatingWebhookConfiguration> = Api::all(self.client.clone());
        self.tracker.spawn(follow(
            mutating,
            only("weir-webhook"),
            self.follower(Watch::MutatingWebhook, changes.clone()),
        ));
        let validating: Api<ValidatingWebhookConfiguration> = Api::all(self.client.clone());
        self.tracker.spawn(follow(
            validating,
            only("weir-webhook"),
            self.follower(Watch::ValidatingWebhook, changes),
        ));
        let keeper = Keeper::new(self.client.clone(), config.clone(), self.metrics.clone());
        self.tracker
            .spawn(keeper.run(count, leader.leading(), self.stop.clone()));
    }

    fn follow_secret(&self, what: Watch, name: &str, changes: &Changes) {
        let namespace = &self.config.ca.namespace;
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        let follower = self.follower(what, changes.clone());
        self.tracker.spawn(follow(secrets, only(name), follower));
    }

    fn follower<I>(&self, what: Watch, index: I) -> Follow<I> {
        Follow {
            what,
            index,
            optional: false,
            metrics: self.metrics.clone(),
            pending: self.readiness.register(what.as_str()),
            stop: self.stop.clone(),
        }
    }
}
