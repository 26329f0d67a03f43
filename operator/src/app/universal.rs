//! Wires the operator without Kubernetes: documents in a directory in the place of the API server, a state directory in
//! the place of Secrets, and the same gRPC server. Called by `main` for `weir-operator run`, and by tests. It decides
//! nothing itself, and there is no client, no election and no webhook.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;
use weir_crds::identity::TRUST_DOMAIN;

use super::Grpc;
use crate::ca::{Local, Source};
use crate::documents::{self, Documents};
use crate::health::{self, Readiness};
use crate::index::Discovery;
use crate::mesh_ca;
use crate::metrics::Metrics;
use crate::serve;
use crate::serve::destination::{self, offers};
use crate::serve::identity::Certifier;
use crate::serve::settings;
use crate::serve::tls::Certificates;
use crate::state::StateDir;
use crate::token::{KEY_PATIENCE, Signed, TokenRequest, Tokens};
use crate::workload::Workloads;

/// Everything an operator without Kubernetes can be told.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where `/live`, `/ready` and `/metrics` are served; none: every address of the host.
    pub http_address: Option<SocketAddr>,
    /// How long tasks may take to end.
    pub shutdown: Duration,
    /// The gRPC server.
    pub grpc: Grpc,
    /// The documents.
    pub documents: documents::Config,
    /// Where keys and certificates are kept.
    pub state_dir: PathBuf,
    /// Where the serving certificate comes from.
    pub serving: Source,
}

/// A data plane token, signed with the operator's key.
///
/// # Errors
/// When there is none.
pub fn make_token(request: &TokenRequest) -> anyhow::Result<String> {
    let signed = Signed::existing(&request.state_dir, KEY_PATIENCE)?;
    Ok(signed.sign(&request.grant, Timestamp::now(), request.life)?)
}

/// An operator with its ports open that does nothing yet.
pub struct Bound {
    /// The real address of the health server.
    pub http: SocketAddr,
    /// The real address of the gRPC server.
    pub grpc: SocketAddr,
    listener: TcpListener,
    server: serve::Bound,
    local: Option<Local>,
    tokens: Arc<dyn Tokens>,
    roots: mesh_ca::Files,
    metrics: Metrics,
    config: Config,
}

impl Bound {
    /// Opens the ports and the state directory.
    ///
    /// # Errors
    /// When one cannot be had.
    pub async fn new(config: Config) -> anyhow::Result<Self> {
        let metrics = Metrics::default();
        let state = StateDir::open(&config.state_dir)?;
        let tokens = Signed::open(&state)?;
        let local = match config.grpc.plaintext {
            true => None,
            false => Some(Local::open(
                config.serving.clone(),
                &state,
                metrics.clone(),
            )?),
        };
        let roots = mesh_ca::Files::open(state)?;
        let (listener, server) = super::open(config.http_address, &config.grpc).await?;
        Ok(Self {
            http: listener.local_addr()?,
            grpc: server.address,
            listener,
            server,
            local,
            tokens: Arc::new(tokens),
            roots,
            metrics,
            config,
        })
    }

    /// Runs until `shutdown`. The gRPC server ends first, then the health server.
    pub async fn run(self, shutdown: CancellationToken) {
        let limit = self.config.shutdown;
        let readiness = Readiness::default();
        let [working, serving] = std::array::from_fn(|_| CancellationToken::new());
        let (workers, last) = (TaskTracker::new(), TaskTracker::new());
        let health = health::serve(
            self.listener,
            readiness.clone(),
            self.metrics.clone(),
            serving.clone(),
        );
        last.spawn(health);
        let tasks = Tasks {
            tokens: self.tokens,
            roots: self.roots,
            metrics: self.metrics,
            config: self.config,
            stop: working.clone(),
            tracker: workers.clone(),
        };
        tasks.spawn(self.server, self.local, &readiness);
        shutdown.cancelled().await;
        let _not_ready = readiness.register("shutdown");
        tracing::info!("shutting down");
        super::end(&workers, &working, limit).await;
        serving.cancel();
        last.close();
        last.wait().await;
    }
}

/// What the tasks share while they are started.
struct Tasks {
    tokens: Arc<dyn Tokens>,
    roots: mesh_ca::Files,
    metrics: Metrics,
    config: Config,
    stop: CancellationToken,
    tracker: TaskTracker,
}

impl Tasks {
    fn spawn(self, server: serve::Bound, local: Option<Local>, readiness: &Readiness) {
        // The one that there is.
        self.metrics.set_leader(true);
        let documents = Documents::new(self.config.documents.clone(), self.metrics.clone());
        let security = match local {
            None => serve::Security::Plaintext,
            Some(local) => self.secure(local),
        };
        let services = self.services(&documents);
        let ends = (self.metrics.server.clone(), self.stop.clone());
        self.tracker.spawn(async move {
            if let Err(error) = server.run(services, security, ends).await {
                tracing::error!(%error, "the gRPC server does not run");
            }
        });
        let pending = readiness.register("the documents");
        self.tracker
            .spawn(documents.run(pending, self.stop.clone()));
    }

    /// Keeps the serving certificate.
    fn secure(&self, local: Local) -> serve::Security {
        let certificates = Certificates::new(local.serving());
        let security = serve::Security::Tls(certificates.config());
        self.tracker.spawn(local.run(self.stop.clone()));
        self.tracker.spawn(certificates.run(self.stop.clone()));
        security
    }

    /// The services, and the authorities behind them.
    fn services(&self, documents: &Documents) -> Routes {
        let workloads: Arc<dyn Workloads> = Arc::new(documents.workloads());
        // Nobody has a name in it: names are those of services.
        let trust_domain: Arc<str> = TRUST_DOMAIN.into();
        let sources = settings::Sources {
            meshes: documents.meshes(),
            authorities: self.keep_authorities(documents),
            permissions: documents.permissions(),
            workloads: workloads.clone(),
            // No document has any, and no workload is closed.
            routes: Discovery::default(),
            trust_domain: trust_domain.clone(),
        };
        let certifier = Certifier {
            tokens: self.tokens.clone(),
            workloads,
            authorities: sources.authorities.clone(),
            trust_domain,
            metrics: self.metrics.server.clone(),
        };
        let offers = offers::service(documents.offers(), destination::MAX_STREAMS);
        Routes::new(certifier.service())
            .add_service(settings::Service::server(self.tokens.clone(), sources))
            .add_service(offers)
    }

    fn keep_authorities(&self, documents: &Documents) -> watch::Receiver<mesh_ca::View> {
        let sources = mesh_ca::Sources {
            meshes: documents.meshes(),
            secrets: self.roots.view(),
            // Nobody else writes who is trusted.
            trust: watch::Sender::new(0).subscribe(),
        };
        let keeper = mesh_ca::Keeper::on_files(
            self.roots.clone(),
            self.config.documents.look,
            self.metrics.clone(),
        );
        let view = keeper.view();
        // It leads.
        let leading = watch::Sender::new(true).subscribe();
        self.tracker
            .spawn(keeper.run(sources, leading, self.stop.clone()));
        let looking = self
            .roots
            .clone()
            .follow(self.config.documents.look, self.stop.clone());
        self.tracker.spawn(looking);
        view
    }
}
