//! `Settings.Watch` as its client sees it: the document at once and at every change that concerns the
//! pod, and every way to be refused.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use tokio::sync::watch;
use tonic::service::Routes;
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};
use weir_crds::grpc::v1::settings_client::SettingsClient;
use weir_crds::grpc::v1::{Document, WatchRequest};
use weir_crds::mesh::MeshSpec;
use weir_crds::permission::Candidate;
use weir_crds::routes::Condition;
use weir_crds::settings::{MtlsMode, SETTINGS_VERSION, Settings};
use weir_crds::{Mesh, annotations};
use weir_operator::index::{
    Discovery, HttpRoute, Indexed, MeshSet, MeshView, Node, Pod, ServiceProfile, Slice,
};
use weir_operator::mesh_ca::View;
use weir_operator::serve::Limits;
use weir_operator::serve::settings::{Service, Sources};
use weir_operator::workload::{Inbound, PermissionSet, PermissionView, Workload};

use crate::scene::{KnownTokens, Pods, Server, authorities, root, soon, workload};

/// A server of settings and everything that they are made of.
struct Scene {
    _server: Server,
    client: SettingsClient<Channel>,
    meshes: watch::Sender<MeshView>,
    authorities: watch::Sender<View>,
    permissions: watch::Sender<PermissionView>,
    pods: Arc<Pods>,
    index: Discovery,
}

impl Scene {
    async fn start() -> Self {
        let meshes = watch::Sender::new(None);
        let authorities = watch::Sender::new(None);
        let permissions = watch::Sender::new(None);
        let pods = Arc::new(Pods::default());
        let index = Discovery::default();
        let sources = Sources {
            meshes: meshes.subscribe(),
            authorities: authorities.subscribe(),
            permissions: permissions.subscribe(),
            workloads: pods.clone(),
            routes: index.clone(),
            trust_domain: "cluster.local".into(),
        };
        let service = Service::server(KnownTokens::usual(), sources);
        let server = Server::start(Routes::new(service), Limits::default()).await;
        let client = SettingsClient::new(server.channel().await);
        Self {
            _server: server,
            client,
            meshes,
            authorities,
            permissions,
            pods,
            index,
        }
    }

    async fn watch(
        &mut self,
        authorization: Option<&str>,
        newest_version: u32,
    ) -> Result<Streaming<Document>, Status> {
        let mut request = Request::new(WatchRequest { newest_version });
        if let Some(value) = authorization {
            request
                .metadata_mut()
                .insert("authorization", value.parse().unwrap());
        }
        soon("an answer", self.client.watch(request))
            .await
            .map(tonic::Response::into_inner)
    }

    /// The pod `web-0` listens on 80.
    fn put_web(&self) {
        let tags = BTreeMap::from([("kuma.io/service".to_owned(), "web_shop_svc_80".to_owned())]);
        let inbounds = vec![Inbound { port: 80, tags }];
        let web = Workload {
            inbounds,
            ..workload("default")
        };
        self.pods.put("web-0", Some(web));
    }

    /// The index has listed everything; there are the Services `web`, `admin` and `unread`.
    fn list(&mut self) {
        let index = &mut self.index;
        let service = |name: &str| {
            let service = json!({
                "metadata": {"name": name, "namespace": "shop"},
                "spec": {"clusterIP": "None", "ports": [{"port": 80}]},
            });
            index.keep_service(serde_json::from_value(service).unwrap())
        };
        let services = ["web", "admin", "unread"].map(service);
        index.reset(services.to_vec());
        index.reset(Vec::<Pod>::new());
        index.reset(Vec::<Slice>::new());
        index.reset(Vec::<Node>::new());
        index.reset(Vec::<Mesh>::new());
        Indexed::<ServiceProfile>::unlisted(index);
        index.reset(Vec::<HttpRoute>::new());
    }

    /// A ServiceProfile in `namespace` with one route of a Service.
    fn put_route(&mut self, namespace: &str, service: &str, method: &str) {
        let profile = json!({
            "apiVersion": "linkerd.io/v1alpha2", "kind": "ServiceProfile",
            "metadata": {"name": format!("{service}.shop.svc.cluster.local"), "namespace": namespace},
            "spec": {"routes": [{"name": "one", "condition": {"method": method}}]},
        });
        let profile = serde_json::from_value(profile).unwrap();
        let profile = self.index.keep_profile(&profile);
        self.index.apply(profile);
    }

    fn put_mesh(&self, spec: serde_json::Value) {
        let mesh = Arc::new(Mesh::new("default", MeshSpec(spec)));
        self.meshes.send_replace(Some(Arc::new(MeshSet::from([(
            "default".to_owned(),
            mesh,
        )]))));
    }
}

async fn next(stream: &mut Streaming<Document>) -> Settings {
    let document = soon("a document", stream.message()).await.unwrap().unwrap();
    assert_eq!(document.version, SETTINGS_VERSION);
    Settings::parse(&document.json).unwrap()
}

/// That nothing comes; short, because nothing is being waited for.
async fn assert_quiet(stream: &mut Streaming<Document>) {
    let next = tokio::time::timeout(Duration::from_millis(100), stream.message()).await;
    assert!(next.is_err(), "{next:?}");
}

fn metrics(port: u16) -> serde_json::Value {
    let backend = json!({"name": "p", "type": "prometheus", "conf": {"port": port}});
    json!({"metrics": {"enabledBackend": "p", "backends": [backend]}})
}

fn permissive() -> serde_json::Value {
    let backend = json!({"name": "ca-1", "type": "builtin", "mode": "PERMISSIVE"});
    json!({"mtls": {"enabledBackend": "ca-1", "backends": [backend]}})
}

#[tokio::test]
async fn a_pod_gets_its_settings_at_once_and_at_every_change() {
    let mut scene = Scene::start().await;
    scene.put_mesh(metrics(5670));
    let pairs = BTreeMap::from([(
        "prometheus.metrics.kuma.io/path".to_owned(),
        "/stats".to_owned(),
    )]);
    let over = annotations::metrics_override(&pairs).unwrap();
    scene.pods.put(
        "web-0",
        Some(Workload {
            metrics: Some(over),
            ..workload("default")
        }),
    );
    let mut stream = scene
        .watch(Some("Bearer web-token"), SETTINGS_VERSION)
        .await
        .unwrap();
    let settings = next(&mut stream).await;
    let endpoint = settings.metrics.unwrap();
    assert_eq!((endpoint.port, endpoint.path.as_str()), (5670, "/stats"));
    assert_eq!(
        (settings.mtls, settings.identity),
        (MtlsMode::Disabled, None)
    );
    assert_eq!(settings.inbounds, None, "permissions are not known yet");

    scene.put_mesh(metrics(1234));
    assert_eq!(next(&mut stream).await.metrics.unwrap().port, 1234);
    scene.pods.put("web-0", Some(workload("default")));
    assert_eq!(next(&mut stream).await.metrics.unwrap().path, "/metrics");
    // What changes nothing for this pod is not sent.
    scene.put_mesh(metrics(1234));
    scene.pods.put("admin-0", Some(workload("other")));
    assert_quiet(&mut stream).await;
    // Neither is what becomes unknown: the last answer stands.
    scene.pods.put("web-0", None);
    assert_quiet(&mut stream).await;
}

#[tokio::test]
async fn a_mesh_with_an_authority_names_whom_to_trust() {
    let mut scene = Scene::start().await;
    scene.put_mesh(permissive());
    scene.put_web();
    let mut stream = scene
        .watch(Some("bearer web-token"), SETTINGS_VERSION)
        .await
        .unwrap();
    // Mutual TLS with nobody to trust is nothing to be told.
    assert_quiet(&mut stream).await;

    let (_, signing) = root(Timestamp::now());
    scene
        .authorities
        .send_replace(authorities(&signing, signing.anchor()));
    // Neither is a document without permissions, which would lift those that are in force.
    assert_quiet(&mut stream).await;
    scene.permissions.send_replace(Some(Arc::default()));
    let settings = next(&mut stream).await;
    assert_eq!(settings.mtls, MtlsMode::Permissive);
    let inbounds = settings.inbounds.expect("permissions are known");
    assert!(inbounds.iter().all(|inbound| inbound.permission.is_none()));
    let identity = settings.identity.unwrap();
    assert_eq!(
        identity.name,
        "web.shop.serviceaccount.identity.kuma-system.cluster.local"
    );
    assert_eq!(identity.trust_bundle, signing.anchor());
    assert_eq!(identity.uris[0], "spiffe://default/web_shop_svc_80");
    assert_eq!(identity.uris.len(), 5);

    // A new root: the bundle holds both.
    let (_, other) = root(Timestamp::now());
    let both = format!("{}{}", other.anchor(), signing.anchor());
    scene.authorities.send_replace(authorities(&other, &both));
    assert_eq!(next(&mut stream).await.identity.unwrap().trust_bundle, both);
}

#[tokio::test]
async fn an_inbound_has_the_one_permission_that_is_in_force() {
    let mut scene = Scene::start().await;
    scene.put_mesh(metrics(5670));
    scene.put_web();
    let mut stream = scene
        .watch(Some("Bearer web-token"), SETTINGS_VERSION)
        .await
        .unwrap();
    assert_eq!(next(&mut stream).await.inbounds, None);
    let any = BTreeMap::from([("kuma.io/service".to_owned(), "*".to_owned())]);
    let allow = Candidate {
        name: "all".into(),
        created: 1,
        sources: vec![any.clone()],
        destinations: vec![any],
    };
    let set = |one: Candidate| {
        Some(Arc::new(PermissionSet::from([(
            "default".to_owned(),
            vec![one],
        )])))
    };
    scene.permissions.send_replace(set(allow.clone()));
    let inbounds = next(&mut stream).await.inbounds.unwrap();
    assert_eq!(
        (inbounds[0].port, inbounds[0].service.as_str()),
        (80, "web_shop_svc_80")
    );
    assert_eq!(inbounds[0].permission.as_ref().unwrap().name, "all");
    // The metrics endpoint has tags of its own.
    let mut scrape = allow.clone();
    scrape.name = "scrape".into();
    let tag = ("kuma.io/service".to_owned(), "dataplane-metrics".to_owned());
    scrape.destinations = vec![BTreeMap::from([tag])];
    scene.permissions.send_replace(set(scrape));
    let settings = next(&mut stream).await;
    let permission = settings.metrics.unwrap().permission;
    assert_eq!(permission.unwrap().name, "scrape");
    assert_eq!(settings.inbounds.unwrap()[0].permission, None);
    scene.permissions.send_replace(Some(Arc::default()));
    let settings = next(&mut stream).await;
    let inbounds = settings.inbounds.unwrap();
    assert_eq!(inbounds[0].permission, None, "nobody may connect");
    assert_eq!(settings.metrics.unwrap().permission, None);
}

/// A port of the pod that belongs to these Services, which refuses requests without a route.
fn closed(services: &[&str]) -> Workload {
    let inbounds = services.iter().map(|service| {
        let tags = [
            ("k8s.kuma.io/namespace", "shop"),
            ("k8s.kuma.io/service-name", service),
            ("k8s.kuma.io/service-port", "80"),
        ];
        let tags = tags.map(|(tag, value)| (tag.to_owned(), value.to_owned()));
        Inbound {
            port: 8080,
            tags: tags.into(),
        }
    });
    Workload {
        inbounds: inbounds.collect(),
        closed_routes: true,
        ..workload("default")
    }
}

async fn next_routes(stream: &mut Streaming<Document>) -> Option<Vec<Condition>> {
    let inbounds = next(stream).await.inbounds.unwrap();
    inbounds[0].routes.clone()
}

#[tokio::test]
async fn a_port_is_closed_to_what_none_of_its_services_has_a_route_for() {
    let mut scene = Scene::start().await;
    scene.put_mesh(metrics(5670));
    scene.permissions.send_replace(Some(Arc::default()));
    scene.pods.put("web-0", Some(closed(&["web"])));
    let authorization = Some("Bearer web-token");
    let mut stream = scene.watch(authorization, SETTINGS_VERSION).await.unwrap();
    // A port that is closed must not be said to be open because its routes are not known yet.
    assert_quiet(&mut stream).await;
    scene.list();
    assert!(*scene.index.complete().borrow());
    assert_quiet(&mut stream).await;
    scene.index.reset(Vec::<ServiceProfile>::new());
    assert_eq!(next_routes(&mut stream).await, None, "there are none");
    let of = |methods: &[&str]| {
        let methods = methods.iter();
        Some(
            methods
                .map(|one| Condition::Method((*one).to_owned()))
                .collect::<Vec<_>>(),
        )
    };
    scene.put_route("shop", "web", "GET");
    assert_eq!(next_routes(&mut stream).await, of(&["GET"]));
    // What clients elsewhere write for themselves opens nothing.
    scene.put_route("elsewhere", "web", "PUT");
    assert_quiet(&mut stream).await;
    // A second Service of the same port has no routes: any request may be for it.
    scene.pods.put("web-0", Some(closed(&["web", "admin"])));
    assert_eq!(next_routes(&mut stream).await, None);
    scene.put_route("shop", "admin", "PUT");
    assert_eq!(next_routes(&mut stream).await, of(&["GET", "PUT"]));
    // Routes of which none can be obeyed let nothing in, as their clients send nothing.
    scene.pods.put("web-0", Some(closed(&["unread"])));
    assert_eq!(next_routes(&mut stream).await, None, "it has no routes yet");
    let unread = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": "unread", "namespace": "shop"},
        "spec": {
            "parentRefs": [{"group": "", "kind": "Service", "name": "unread"}],
            "rules": [{"matches": [{"path": {"type": "RegularExpression", "value": "("}}]}],
        },
    });
    let unread = scene
        .index
        .keep_route(&serde_json::from_value(unread).unwrap());
    scene.index.apply(unread);
    assert_eq!(next_routes(&mut stream).await, Some(Vec::new()));
    let open = Workload {
        closed_routes: false,
        ..closed(&["web"])
    };
    scene.pods.put("web-0", Some(open));
    assert_eq!(
        next_routes(&mut stream).await,
        None,
        "it does not ask for it"
    );
}

#[tokio::test]
async fn who_is_not_a_pod_or_reads_no_version_is_refused() {
    let mut scene = Scene::start().await;
    for (authorization, version, code, words) in [
        (None, 1, Code::Unauthenticated, "Bearer"),
        (Some("Basic web-token"), 1, Code::Unauthenticated, "Bearer"),
        (Some("Bearer "), 1, Code::Unauthenticated, "Bearer"),
        (
            Some("Bearer expired-token"),
            1,
            Code::Unauthenticated,
            "expired",
        ),
        (
            Some("Bearer silent-token"),
            1,
            Code::Unavailable,
            "did not answer",
        ),
        (
            Some("Bearer unbound-token"),
            1,
            Code::FailedPrecondition,
            "projected",
        ),
        (
            Some("Bearer web-token"),
            0,
            Code::InvalidArgument,
            "newest_version",
        ),
    ] {
        let status = scene.watch(authorization, version).await.unwrap_err();
        assert_eq!(status.code(), code, "{authorization:?}: {status}");
        assert!(status.message().contains(words), "{words}: {status}");
    }
}

#[tokio::test]
async fn a_newer_proxy_gets_the_newest_that_there_is() {
    let mut scene = Scene::start().await;
    scene.put_mesh(metrics(5670));
    scene.pods.put("web-0", Some(workload("default")));
    let mut stream = scene
        .watch(Some("Bearer web-token"), SETTINGS_VERSION + 7)
        .await
        .unwrap();
    assert_eq!(next(&mut stream).await.version, SETTINGS_VERSION);
}
