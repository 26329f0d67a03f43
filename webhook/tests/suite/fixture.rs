//! A webhook without a cluster: caches filled by hand, an authority and certificates that are real.
//! Used by the tests that go through the router or through TLS.

use std::sync::Arc;

use axum::http::Request;
use clap::Parser;
use k8s_openapi::api::core::v1;
use kube::{
    Client, client,
    core::{ObjectMeta, PartialObjectMeta, PartialObjectMetaExt},
    runtime::{
        reflector::{self, store::Writer},
        watcher::Event,
    },
};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tower::service_fn;
use weir_crds::{Mesh, mesh::MeshSpec};
use weir_webhook::{
    certificate::Serving,
    cluster::Cluster,
    inject::Config,
    metrics::Metrics,
    ready::{Hook, Hooks},
    serve::Service,
};

pub(crate) const NAME: &str = "weir-webhook.kuma-system.svc";

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    config: Config,
}

/// The writers of everything that the cluster's watches write.
pub(crate) struct Fixture {
    pub(crate) namespaces: Writer<PartialObjectMeta<v1::Namespace>>,
    pub(crate) meshes: Writer<Mesh>,
    pub(crate) native_sidecars: watch::Sender<Option<bool>>,
    pub(crate) serving: watch::Sender<Arc<Serving>>,
    pub(crate) hooks: watch::Sender<Hooks>,
    pub(crate) operator_ca: watch::Sender<Option<Arc<str>>>,
    pub(crate) service: Arc<Service>,
}

/// A webhook that has read nothing yet.
pub(crate) fn empty(client: Option<Client>) -> Fixture {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let (namespace_store, namespaces) = reflector::store();
    let (mesh_store, meshes) = reflector::store();
    let (native_sidecars, native) = watch::channel(None);
    let (serving, served) = watch::channel(Arc::new(Serving::placeholder(&provider)));
    let (hooks, hooks_read) = watch::channel(Hooks::default());
    let (operator_ca, authority) = watch::channel(None);
    let cluster = Cluster {
        namespaces: namespace_store,
        meshes: mesh_store,
        native_sidecars: native,
        serving: served,
        hooks: hooks_read,
        operator_ca: Some(authority),
        client,
    };
    let service = Arc::new(Service {
        cluster,
        config: Flags::parse_from(["test", "--proxy-image=weir-proxy:dev"]).config,
        metrics: Metrics::default(),
        name: NAME.to_owned(),
        stopping: CancellationToken::new(),
    });
    Fixture {
        namespaces,
        meshes,
        native_sidecars,
        serving,
        hooks,
        operator_ca,
        service,
    }
}

/// A webhook that has read an enabled namespace `shop` with annotations, and the Mesh `default`.
pub(crate) fn filled(annotations: Value) -> Fixture {
    filled_beside(None, annotations)
}

/// The same, which asks an API server of what it has not read.
pub(crate) fn filled_beside(client: Option<Client>, annotations: Value) -> Fixture {
    let mut fixture = empty(client);
    let shop: PartialObjectMeta<v1::Namespace> = ObjectMeta {
        name: Some("shop".to_owned()),
        labels: Some([("kuma.io/sidecar-injection".to_owned(), "enabled".to_owned())].into()),
        annotations: serde_json::from_value(annotations).expect("a fixture is well formed"),
        ..ObjectMeta::default()
    }
    .into_response_partial();
    for event in [Event::Init, Event::InitApply(shop), Event::InitDone] {
        fixture.namespaces.apply_watcher_event(&event);
    }
    let mesh = Mesh::new("default", MeshSpec::initial());
    for event in [Event::Init, Event::InitApply(mesh), Event::InitDone] {
        fixture.meshes.apply_watcher_event(&event);
    }
    fixture.native_sidecars.send_replace(Some(true));
    fixture.operator_ca.send_replace(Some("PEM".into()));
    fixture
}

/// A certificate authority.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: Vec<u8>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("a fixture is well formed");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "test authority");
        let key = KeyPair::generate().expect("a fixture is well formed");
        let pem = params
            .self_signed(&key)
            .expect("a fixture is well formed")
            .pem()
            .into_bytes();
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    /// A certificate for the webhook's name.
    pub(crate) fn serving(&self) -> Arc<Serving> {
        let key = KeyPair::generate().expect("a fixture is well formed");
        let params =
            CertificateParams::new(vec![NAME.to_owned()]).expect("a fixture is well formed");
        let leaf = params
            .signed_by(&key, &self.issuer)
            .expect("a fixture is well formed")
            .pem();
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        Arc::new(
            Serving::parse(leaf.as_bytes(), key.serialize_pem().as_bytes(), &provider)
                .expect("a fixture is well formed"),
        )
    }

    /// Both configurations as the operator leaves them when it trusts this authority.
    pub(crate) fn hooks(&self) -> Hooks {
        let hook = |name: &str| Hook {
            name: name.to_owned(),
            ca_bundle: self.pem.clone(),
        };
        Hooks {
            mutating: Some(vec![hook("inject.weir.io")]),
            validating: Some(vec![hook("validate.weir.io")]),
        }
    }
}

/// An API server that knows one Namespace, one Mesh and two Dataplanes, for what the caches do not hold.
pub(crate) fn api_server() -> Client {
    let service = service_fn(|request: Request<client::Body>| async move {
        let dataplane = |mesh: &str| json!({"metadata": {"name": "d"}, "mesh": mesh, "spec": {}});
        let (status, body) = match request.uri().path() {
            "/api/v1/namespaces/new" => (
                200,
                json!({
                    "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
                    "metadata": {"name": "new", "annotations": {"linkerd.io/inject": "enabled"}},
                }),
            ),
            "/apis/kuma.io/v1alpha1/meshes/default" => {
                (200, json!({"metadata": {"name": "default"}, "spec": {}}))
            }
            "/apis/kuma.io/v1alpha1/dataplanes" => (
                200,
                json!({
                    "apiVersion": "kuma.io/v1alpha1", "kind": "DataplaneList", "metadata": {},
                    "items": [dataplane("used"), dataplane("other")],
                }),
            ),
            _ => (
                404,
                json!({"kind": "Status", "status": "Failure", "code": 404, "reason": "NotFound", "message": "no"}),
            ),
        };
        let response = axum::http::Response::builder()
            .status(status)
            .header("content-type", "application/json");
        Ok::<_, std::convert::Infallible>(
            response
                .body(client::Body::from(body.to_string().into_bytes()))
                .expect("a response is well formed"),
        )
    });
    Client::new(service, "default")
}
