//! Wires the gRPC server and all that it serves from: its certificate, the Meshes' authorities, the
//! workloads and the permissions. Part of `app`. It decides nothing itself.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Api;
use kube::runtime::watcher;
use tokio::sync::watch;
use tonic::service::Routes;
use weir_crds::{Dataplane, TrafficPermission};

use super::Tasks;
use crate::ca::{Keeper, Publish};
use crate::index::{Changes, Discovery, MeshView};
use crate::leader::Leader;
use crate::mesh_ca::{self, SECRET_TYPE, Secrets, TRUST};
use crate::metrics::Watch;
use crate::serve;
use crate::serve::destination;
use crate::serve::identity::Certifier;
use crate::serve::settings;
use crate::serve::tls::Certificates;
use crate::token::{Reviewer, Tokens};
use crate::watch::{follow, in_pages, only};
use crate::workload::{Dataplanes, PermissionView, Permissions, Workloads};

impl Tasks {
    /// Keeps the authorities of Meshes.
    pub(super) fn spawn_authorities(
        &self,
        leader: &Leader,
        meshes: watch::Receiver<MeshView>,
    ) -> watch::Receiver<mesh_ca::View> {
        let namespace = self.config.own_ca.namespace.clone();
        let secrets = Secrets::default();
        let secret_view = secrets.view();
        let of_meshes = watcher::Config::default().fields(&format!("type={SECRET_TYPE}"));
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &namespace);
        let follower = self.follower(Watch::MeshSecrets, secrets);
        self.tracker.spawn(follow(api, of_meshes, follower));
        let trust = Changes::default();
        let sources = mesh_ca::Sources {
            meshes,
            secrets: secret_view,
            trust: trust.count(),
        };
        self.follow_map(Watch::Trust, TRUST, trust);
        let config = mesh_ca::Config { namespace };
        let keeper = mesh_ca::Keeper::new(self.client.clone(), &config, self.metrics.clone());
        let view = keeper.view();
        self.tracker
            .spawn(keeper.run(sources, leader.leading(), self.stop.clone()));
        view
    }

    /// Serves, and keeps what is served from.
    pub(super) fn spawn_server(
        &self,
        leader: &Leader,
        server: serve::Bound,
        discovery: &Discovery,
        (meshes, authorities): (watch::Receiver<MeshView>, watch::Receiver<mesh_ca::View>),
    ) {
        let security = if self.config.grpc.plaintext {
            serve::Security::Plaintext
        } else {
            self.spawn_own_certificates(leader)
        };
        let tokens: Arc<dyn Tokens> = Arc::new(Reviewer::new(self.client.clone()));
        let (workloads, permissions) = self.spawn_workloads(discovery);
        let trust_domain: Arc<str> = self.config.trust_domain.as_str().into();
        let certifier = Certifier {
            tokens: tokens.clone(),
            workloads: workloads.clone(),
            authorities: authorities.clone(),
            trust_domain: trust_domain.clone(),
            metrics: self.metrics.server.clone(),
        };
        let sources = settings::Sources {
            meshes,
            authorities,
            permissions,
            workloads,
            routes: discovery.clone(),
            trust_domain,
        };
        let (destination, routes) =
            destination::services(discovery.clone(), destination::MAX_STREAMS);
        let services = Routes::new(certifier.service())
            .add_service(settings::Service::server(tokens, sources))
            .add_service(destination)
            .add_service(routes);
        let ends = (self.metrics.server.clone(), self.stop.clone());
        let server = server.only_while(leader.contact());
        self.tracker.spawn(async move {
            if let Err(error) = server.run(services, security, ends).await {
                tracing::error!(%error, "the gRPC server does not run");
            }
        });
    }

    fn spawn_workloads(
        &self,
        discovery: &Discovery,
    ) -> (Arc<dyn Workloads>, watch::Receiver<PermissionView>) {
        let all = watcher::Config::default;
        let dataplanes = Dataplanes::default();
        let api: Api<Dataplane> = Api::all(self.client.clone());
        let index = (dataplanes.clone(), discovery.clone());
        let follower = self.follower(Watch::Dataplanes, index);
        self.tracker.spawn(follow(api, in_pages(), follower));
        let permissions = Permissions::default();
        let view = permissions.view();
        let api: Api<TrafficPermission> = Api::all(self.client.clone());
        let follower = self.follower(Watch::TrafficPermissions, permissions);
        self.tracker.spawn(follow(api, all(), follower));
        (Arc::new(dataplanes), view)
    }

    fn spawn_own_certificates(&self, leader: &Leader) -> serve::Security {
        let config = &self.config.own_ca;
        let changes = Changes::default();
        let count = changes.count();
        for (what, name) in [
            (Watch::OperatorAuthoritySecret, &config.authority_secret),
            (Watch::OperatorServingSecret, &config.serving_secret),
        ] {
            self.follow_secret(what, name, &changes);
        }
        if let Publish::ConfigMap(name) = &config.publish {
            self.follow_map(Watch::OperatorBundle, name, changes);
        }
        let keeper = Keeper::new(self.client.clone(), config.clone(), self.metrics.clone());
        let certificates = Certificates::new(keeper.serving());
        self.tracker
            .spawn(keeper.run(count, leader.leading(), self.stop.clone()));
        let security = serve::Security::Tls(certificates.config());
        let pending = self.readiness.register("the operator's certificate");
        let (served, stop) = (certificates.served(), self.stop.clone());
        self.tracker.spawn(async move {
            tokio::select! { () = served => drop(pending), () = stop.cancelled() => {} }
        });
        self.tracker.spawn(certificates.run(self.stop.clone()));
        security
    }

    fn follow_map(&self, what: Watch, name: &str, changes: Changes) {
        let namespace = &self.config.own_ca.namespace;
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
        let follower = self.follower(what, changes);
        self.tracker.spawn(follow(maps, only(name), follower));
    }
}
