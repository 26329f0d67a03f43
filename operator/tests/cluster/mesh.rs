//! A proxy's calls to the whole operator: its token reviewed by the API server, its pod known by its
//! Dataplane, its Mesh's root made by the leader and used by every replica.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use linkerd2_proxy_api::identity::identity_client::IdentityClient;
use linkerd2_proxy_api::identity::{CertifyRequest, CertifyResponse};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Request, Status, Streaming};
use weir_crds::Settings;
use weir_crds::grpc::v1::settings_client::SettingsClient;
use weir_crds::grpc::v1::{Document, WatchRequest};

use crate::api::Api;
use crate::operator::Running;
use crate::scene::{SECRETS, eventually, mesh_secret, operator};

const MESHES: &str = "/apis/kuma.io/v1alpha1/meshes";
const DATAPLANES: &str = "/apis/kuma.io/v1alpha1/dataplanes";
const PERMISSIONS: &str = "/apis/kuma.io/v1alpha1/trafficpermissions";
const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/default/events";
const MAPS: &str = "/api/v1/namespaces/kuma-system/configmaps";
const WEB: &str = "web.shop.serviceaccount.identity.kuma-system.cluster.local";

fn roots(pem: &str) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        roots.add(root.unwrap()).unwrap();
    }
    Arc::new(roots)
}

/// A channel as a pod's proxy opens it: by the bundle that the webhook copies into pods.
pub(crate) async fn channel(api: &Api, address: SocketAddr) -> Channel {
    let bundle = eventually("the bundle is published", || {
        Some(
            api.get(MAPS, "weir-operator-ca")?["data"]["ca.crt"]
                .as_str()?
                .to_owned(),
        )
    })
    .await;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots(&bundle))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let tls = TlsConnector::from(Arc::new(config));
    let connector = tower::service_fn(move |_: Uri| {
        let tls = tls.clone();
        async move {
            let stream = tokio::net::TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let name = ServerName::try_from("weir-operator.kuma-system.svc").unwrap();
            tls.connect(name, stream).await.map(TokioIo::new)
        }
    });
    let endpoint = Endpoint::from_static("http://weir-operator.kuma-system.svc:8086");
    let endpoint = endpoint.timeout(Duration::from_secs(20));
    let end = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        match endpoint.connect_with_connector(connector.clone()).await {
            Ok(channel) => return channel,
            Err(error) if tokio::time::Instant::now() > end => panic!("{error:?}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

pub(crate) async fn certify(channel: Channel, token: &str) -> Result<CertifyResponse, Status> {
    let key = rcgen::KeyPair::generate().unwrap();
    let request = rcgen::CertificateParams::default()
        .serialize_request(&key)
        .unwrap();
    let request = CertifyRequest {
        identity: WEB.to_owned(),
        token: token.as_bytes().to_vec(),
        certificate_signing_request: request.der().to_vec(),
    };
    Ok(IdentityClient::new(channel)
        .certify(request)
        .await?
        .into_inner())
}

fn verified(bundle: &str, answer: &CertifyResponse) -> bool {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(bundle), provider)
        .build()
        .unwrap();
    let leaf = CertificateDer::from(answer.leaf_certificate.as_slice());
    verifier
        .verify_client_cert(&leaf, &[], UnixTime::now())
        .is_ok()
}

/// The stream of a pod's settings.
pub(crate) async fn watch(channel: Channel, token: &str) -> Streaming<Document> {
    let mut request = Request::new(WatchRequest { newest_version: 1 });
    let token = format!("Bearer {token}").parse().unwrap();
    request.metadata_mut().insert("authorization", token);
    let stream = SettingsClient::new(channel).watch(request).await;
    stream.unwrap().into_inner()
}

/// The settings of the pod, once its permissions are among them.
async fn settings(channel: Channel) -> Settings {
    let mut stream = watch(channel, "web-token").await;
    loop {
        let document = stream.message().await.unwrap().unwrap();
        let settings = Settings::parse(&document.json).unwrap();
        let inbounds = settings.inbounds.as_ref();
        if inbounds.is_some_and(|inbounds| inbounds[0].permission.is_some()) {
            return settings;
        }
    }
}

pub(crate) fn put_mesh(api: &Api, backend: Value) {
    let mtls = json!({"enabledBackend": backend["name"], "backends": [backend]});
    api.put(
        MESHES,
        json!({"metadata": {"name": "default"}, "spec": {"mtls": mtls}}),
    );
}

pub(crate) fn put_pod(api: &Api, pod: &str, token: &str) {
    let inbound = json!({"port": 80, "tags": {"kuma.io/service": "web_shop_svc_80"}});
    let owner = json!({"apiVersion": "v1", "kind": "Pod", "name": pod, "uid": "uid-0"});
    api.put(
        DATAPLANES,
        json!({
            "metadata": {
                "name": pod, "namespace": "shop", "ownerReferences": [owner],
                "labels": {"app.kubernetes.io/managed-by": "weir-operator"},
            },
            "mesh": "default",
            "spec": {"networking": {"address": "10.0.0.1", "inbound": [inbound]}},
        }),
    );
    api.accept(token, ("shop", "web", pod, "uid-0"));
}

#[tokio::test]
async fn a_proxy_is_certified_by_any_replica_and_told_whom_to_trust() {
    let (api, client) = Api::start().await;
    put_mesh(
        &api,
        json!({"name": "ca-1", "type": "builtin", "mode": "STRICT"}),
    );
    put_pod(&api, "web-0", "web-token");
    let any = json!([{"match": {"kuma.io/service": "*"}}]);
    let spec = json!({"sources": any, "destinations": any});
    api.put(
        PERMISSIONS,
        json!({"metadata": {"name": "all"}, "mesh": "default", "spec": spec}),
    );
    let first = Running::start(&client, operator("a")).await;
    let second = Running::start(&client, operator("b")).await;
    let mut bundle = String::new();
    for running in [&first, &second] {
        let channel = channel(&api, running.grpc).await;
        let answer = certify(channel.clone(), "web-token").await.unwrap();
        let settings = settings(channel).await;
        assert_eq!(
            settings.inbounds.unwrap()[0]
                .permission
                .as_ref()
                .unwrap()
                .name,
            "all"
        );
        let identity = settings.identity.unwrap();
        assert_eq!(identity.name, WEB);
        assert!(verified(&identity.trust_bundle, &answer));
        assert!(
            bundle.is_empty() || bundle == identity.trust_bundle,
            "one root for all"
        );
        bundle = identity.trust_bundle;
    }
    let channel = channel(&api, first.grpc).await;
    let refused = certify(channel.clone(), "stranger").await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert!(
        refused.message().contains("invalid bearer token"),
        "{refused}"
    );
    for _ in 0..3 {
        certify(channel.clone(), "web-token").await.unwrap();
    }
    let asked = |request: &String| request.ends_with("/tokenreviews");
    let reviews = api.requests().into_iter().filter(asked).count();
    assert_eq!(reviews, 3, "each replica asks about a token once");
    let metrics = first.get("/metrics").await;
    for line in [
        r#"weir_operator_certificates_total{outcome="issued"} 4"#,
        r#"weir_operator_certificates_total{outcome="token"} 1"#,
        r#"weir_operator_certificate_expiration_timestamp_seconds{certificate="operator"}"#,
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
    first.stop().await;
    second.stop().await;
}

/// The condition `Ready` of a Mesh, once it has this status.
fn ready(api: &Api, mesh: &'static str, wanted: &'static str) -> impl Fn() -> Option<Value> {
    let api = api.clone();
    move || {
        let mesh = api.get(MESHES, mesh)?;
        let conditions = mesh["status"]["conditions"].as_array()?.clone();
        let found = conditions.into_iter().find(|one| one["type"] == "Ready")?;
        (found["status"] == wanted).then_some(found)
    }
}

#[tokio::test]
async fn a_builtin_authority_that_cannot_be_made_is_told_in_the_mesh_and_no_successor_denies_it() {
    let (api, client) = Api::start().await;
    let create = "POST /api/v1/namespaces/kuma-system/secrets";
    api.fail(create, 422, usize::MAX);
    put_mesh(&api, json!({"name": "CA_1", "type": "builtin"}));
    let first = Running::start(&client, operator("a")).await;
    let refused = eventually("it is not ready", ready(&api, "default", "False")).await;
    assert_eq!(refused["reason"], "AuthorityUnusable");
    let message = refused["message"].as_str().unwrap();
    for part in ["spec.mtls.backends[0].name: ", "Injected (422)"] {
        assert!(message.contains(part), "{part} is not in {message}");
    }
    first.stop().await;

    let second = Running::start(&client, operator("b")).await;
    let spec = api.get(MESHES, "default").unwrap()["spec"].take();
    api.put(MESHES, json!({"metadata": {"name": "other"}, "spec": spec}));
    eventually("another is not either", ready(&api, "other", "False")).await;
    let said = || {
        let events = api.list(EVENTS).into_iter();
        let of_default = events.filter(|one| one["regarding"]["name"] == "default");
        let reasons = of_default.map(|one| one["reason"].as_str().unwrap().to_owned());
        reasons.collect::<Vec<_>>()
    };
    let usable = "AuthorityUsable".to_owned();
    assert!(!said().contains(&usable), "{:?}", said());
    api.mend();
    eventually("it is ready", ready(&api, "default", "True")).await;
    eventually("that is told", || said().contains(&usable).then_some(())).await;
    second.stop().await;
}

#[tokio::test]
async fn a_provided_authority_that_cannot_be_used_is_told_in_the_mesh() {
    let (api, client) = Api::start().await;
    let source = |name: &str| json!({"secret": name});
    let conf = json!({"cert": source("cert"), "key": source("key")});
    put_mesh(
        &api,
        json!({"name": "ca-1", "type": "provided", "conf": conf}),
    );
    put_pod(&api, "web-0", "web-token");
    let running = Running::start(&client, operator("a")).await;
    let refused = eventually("the Mesh is not ready", ready(&api, "default", "False")).await;
    let message = refused["message"].as_str().unwrap();
    assert!(
        message.starts_with("spec.mtls.backends[0].conf.cert.secret: "),
        "{message}"
    );
    let channel = channel(&api, running.grpc).await;
    let status = certify(channel.clone(), "web-token").await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");

    let now = jiff::Timestamp::now();
    let pair = weir_operator::ca::Pair::authority("mesh", now, jiff::SignedDuration::from_hours(1))
        .unwrap();
    for (name, value) in [("cert", &pair.certificate), ("key", &pair.key)] {
        let mut secret = mesh_secret(value);
        secret["metadata"] = json!({"name": name});
        api.put(SECRETS, secret);
    }
    eventually("the Mesh is ready", ready(&api, "default", "True")).await;
    let answer = certify(channel, "web-token").await.unwrap();
    assert!(verified(&pair.certificate, &answer));
    running.stop().await;
}
