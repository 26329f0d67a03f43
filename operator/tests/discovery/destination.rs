//! The Destination service as a client of the published crate sees it: a client made of nothing but that crate, over
//! loopback, against the operator's gRPC server.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use linkerd2_proxy_api::destination::destination_client::DestinationClient;
use linkerd2_proxy_api::destination::tls_identity::Strategy;
use linkerd2_proxy_api::destination::update::Update as Change;
use linkerd2_proxy_api::destination::{
    DestinationProfile, GetDestination, Update, WeightedAddr, WeightedAddrSet, protocol_hint,
};
use linkerd2_proxy_api::net::TcpAddress;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Channel;
use tonic::{Code, Streaming};
use weir_operator::metrics::Metrics;
use weir_operator::serve::{self, Limits, Security, destination};

use crate::scene::{
    NAMESPACE, Scene, endpoint, injected, node, pod, secure_mesh, service, slice, with,
};

/// Longest wait for a message that must come.
const DEADLINE: Duration = Duration::from_secs(10);
/// Streams at once in these tests.
const STREAMS: usize = 8;

/// An operator's gRPC server on a cluster on paper, and a client.
struct Running {
    scene: Scene,
    client: DestinationClient<Channel>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    async fn start() -> Self {
        let scene = Scene::default();
        let loopback = Some(([127, 0, 0, 1], 0).into());
        let bound = serve::Bound::new(loopback, Limits::default())
            .await
            .unwrap();
        let address = bound.address;
        let routes = Routes::new(destination::service(scene.index.clone(), STREAMS));
        let stop = CancellationToken::new();
        let control = (Metrics::default().server.clone(), stop.clone());
        let task = tokio::spawn(async move {
            bound
                .run(routes, Security::Plaintext, control)
                .await
                .unwrap();
        });
        let channel = Channel::from_shared(format!("http://{address}")).unwrap();
        let channel = channel.connect().await.unwrap();
        Self {
            scene,
            client: DestinationClient::new(channel),
            stop,
            task,
        }
    }

    /// One whose cluster is listed.
    async fn listed() -> Self {
        let mut running = Self::start().await;
        running.scene.list_nothing();
        running
    }

    async fn get(&mut self, path: &str, context: &str) -> Result<Streaming<Update>, tonic::Status> {
        let call = self.client.get(request(path, context));
        let called = tokio::time::timeout(DEADLINE, call).await.unwrap();
        called.map(tonic::Response::into_inner)
    }

    async fn profile(
        &mut self,
        path: &str,
    ) -> Result<Streaming<DestinationProfile>, tonic::Status> {
        let call = self.client.get_profile(request(path, ""));
        let called = tokio::time::timeout(DEADLINE, call).await.unwrap();
        called.map(tonic::Response::into_inner)
    }
}

fn request(path: &str, context: &str) -> GetDestination {
    GetDestination {
        scheme: "k8s".to_owned(),
        path: path.to_owned(),
        context_token: context.to_owned(),
    }
}

async fn next<T>(stream: &mut Streaming<T>) -> T {
    let message = tokio::time::timeout(DEADLINE, stream.message()).await;
    message
        .expect("in time")
        .unwrap()
        .expect("the stream goes on")
}

async fn change(stream: &mut Streaming<Update>) -> Change {
    next(stream).await.update.unwrap()
}

async fn added(stream: &mut Streaming<Update>) -> WeightedAddrSet {
    match change(stream).await {
        Change::Add(set) => set,
        other => panic!("not an addition: {other:?}"),
    }
}

fn text(address: Option<TcpAddress>) -> String {
    let address = address.unwrap();
    let ip: IpAddr = address.ip.unwrap().try_into().unwrap();
    SocketAddr::new(ip, u16::try_from(address.port).unwrap()).to_string()
}

fn addresses(set: &WeightedAddrSet) -> Vec<String> {
    set.addrs.iter().map(|one| text(one.addr)).collect()
}

async fn removed(stream: &mut Streaming<Update>) -> Vec<String> {
    match change(stream).await {
        Change::Remove(set) => set.addrs.into_iter().map(|one| text(Some(one))).collect(),
        other => panic!("not a removal: {other:?}"),
    }
}

async fn none(stream: &mut Streaming<Update>) -> bool {
    match change(stream).await {
        Change::NoEndpoints(none) => none.exists,
        other => panic!("there are some: {other:?}"),
    }
}

fn labels(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    pairs.iter().map(owned).collect()
}

fn identity(addr: &WeightedAddr) -> Option<(String, String)> {
    let identity = addr.tls_identity.clone()?;
    match identity.strategy.unwrap() {
        Strategy::DnsLikeIdentity(name) => Some((name.name, identity.server_name.unwrap().name)),
        Strategy::UriLikeIdentity(uri) => panic!("{uri:?}"),
    }
}

fn web(endpoints: Vec<Value>) -> Value {
    slice("web-1", "web", endpoints)
}

#[tokio::test]
async fn names_of_nothing_are_refused_as_linkerd_refuses_them() {
    let mut running = Running::listed().await;
    let external = json!({"spec": {"type": "ExternalName", "externalName": "db.example", "clusterIP": null, "clusterIPs": null}});
    running
        .scene
        .service(with(service("db", "10.96.0.1"), external));
    for (path, code) in [
        ("web.shop.svc.cluster.local:80", Code::NotFound),
        ("web-0.web.shop.svc.cluster.local:80", Code::NotFound),
        ("db.shop.svc.cluster.local:80", Code::InvalidArgument),
        ("web.shop:80", Code::InvalidArgument),
        ("example.com:443", Code::InvalidArgument),
        ("web.shop.svc.cluster.local:http", Code::InvalidArgument),
        ("", Code::InvalidArgument),
    ] {
        let status = running.get(path, "").await.unwrap_err();
        assert_eq!(status.code(), code, "{path}: {}", status.message());
    }
    for path in ["example.com:443", "web.shop:80", "a:b:c"] {
        let status = running.profile(path).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{path}");
    }
}

#[tokio::test]
async fn nothing_is_said_before_the_cluster_is_listed() {
    let mut running = Running::start().await;
    let status = running
        .get("web.shop.svc.cluster.local:80", "")
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    let status = running.profile("10.0.0.1:80").await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    running.scene.list_nothing();
    let mut profile = running.profile("10.0.0.1:80").await.unwrap();
    assert_eq!(next(&mut profile).await, DestinationProfile::default());
}

#[tokio::test]
async fn a_service_is_followed_through_scaling_to_three_and_to_none() {
    let mut running = Running::listed().await;
    running.scene.service(service("web", "10.96.0.1"));
    let mut stream = running
        .get("web.shop.svc.cluster.local:80", "")
        .await
        .unwrap();
    assert!(none(&mut stream).await, "it exists and has no endpoints");

    let at = |number: u8| endpoint(&format!("p{number}"), &format!("10.0.0.{number}"));
    running.scene.slice(web(vec![at(1)]));
    let set = added(&mut stream).await;
    assert_eq!(addresses(&set), ["10.0.0.1:8080"]);
    assert_eq!(
        set.metric_labels,
        labels(&[("namespace", NAMESPACE), ("service", "web")])
    );

    running.scene.slice(web(vec![at(1), at(2), at(3)]));
    assert_eq!(
        addresses(&added(&mut stream).await),
        ["10.0.0.2:8080", "10.0.0.3:8080"]
    );

    running.scene.slice(web(vec![at(3), at(4)]));
    assert_eq!(addresses(&added(&mut stream).await), ["10.0.0.4:8080"]);
    assert_eq!(
        removed(&mut stream).await,
        ["10.0.0.1:8080", "10.0.0.2:8080"]
    );

    running.scene.slice(web(vec![]));
    assert!(none(&mut stream).await);
    running.scene.delete_service(service("web", "10.96.0.1"));
    assert!(!none(&mut stream).await, "it is gone");
    running.scene.service(service("web", "10.96.0.1"));
    assert!(none(&mut stream).await);
}

/// API version, kind, name and template hash of an owner, and the label it gives.
type Owned = (
    &'static str,
    &'static str,
    &'static str,
    Option<&'static str>,
    Option<(&'static str, &'static str)>,
);

const OWNERS: [Owned; 7] = [
    (
        "apps/v1",
        "ReplicaSet",
        "web-5d8f",
        Some("5d8f"),
        Some(("deployment", "web")),
    ),
    (
        "apps/v1",
        "StatefulSet",
        "db",
        None,
        Some(("statefulset", "db")),
    ),
    (
        "apps/v1",
        "DaemonSet",
        "log",
        None,
        Some(("daemonset", "log")),
    ),
    (
        "batch/v1",
        "Job",
        "nightly-29103",
        None,
        Some(("k8s_job", "nightly-29103")),
    ),
    (
        "apps/v1",
        "ReplicaSet",
        "bare",
        None,
        Some(("replicaset", "bare")),
    ),
    (
        "v1",
        "ReplicationController",
        "old",
        None,
        Some(("replicationcontroller", "old")),
    ),
    ("example.com/v1", "Thing", "x", None, None),
];

#[tokio::test]
async fn every_kind_of_owner_is_told_with_its_labels() {
    let mut running = Running::listed().await;
    running.scene.service(service("web", "10.96.0.1"));
    let mut endpoints = Vec::new();
    for (number, (api, kind, name, hash, _)) in OWNERS.iter().enumerate() {
        let (pod_name, ip) = (format!("p{number}"), format!("10.0.0.{number}"));
        let owner =
            json!({"apiVersion": api, "kind": kind, "name": name, "controller": true, "uid": "u"});
        let over = json!({"metadata": {"ownerReferences": [owner], "labels": {"pod-template-hash": hash}}});
        running.scene.pod(with(pod(&pod_name, &ip), over));
        endpoints.push(endpoint(&pod_name, &ip));
    }
    running.scene.slice(web(endpoints));
    let context = r#"{"ns":"shop","pod":"client","nodeName":"node-w"}"#;
    running.scene.node(node("node-w", "west"));
    let mut stream = running
        .get("web.shop.svc.cluster.local:80", context)
        .await
        .unwrap();
    let set = added(&mut stream).await;
    for ((addr, number), (_, _, _, hash, label)) in set.addrs.iter().zip(0..).zip(OWNERS) {
        let pod_name = format!("p{number}");
        let mut want = labels(&[
            ("pod", &pod_name),
            ("serviceaccount", "web"),
            ("zone", "east"),
            ("zone_locality", "remote"),
        ]);
        want.extend(labels(label.as_slice()));
        want.extend(hash.map(|hash| ("pod_template_hash".to_owned(), hash.to_owned())));
        assert_eq!(addr.metric_labels, want);
        assert_eq!(identity(addr), None);
    }
}

#[tokio::test]
async fn an_endpoint_that_changes_is_told_again() {
    const NAME: &str = "web.shop.serviceaccount.identity.kuma-system.cluster.local";
    let mut running = Running::listed().await;
    running.scene.service(service("web", "10.96.0.1"));
    running.scene.pod(injected(pod("p1", "10.0.0.1"), "secure"));
    running.scene.pod(pod("p2", "10.0.0.2"));
    let endpoints = vec![endpoint("p1", "10.0.0.1"), endpoint("p2", "10.0.0.2")];
    running.scene.slice(web(endpoints));
    let mut stream = running
        .get("web.shop.svc.cluster.local:80", "")
        .await
        .unwrap();
    let set = added(&mut stream).await;
    assert_eq!(
        set.addrs.iter().map(identity).collect::<Vec<_>>(),
        [None, None]
    );
    running.scene.mesh(secure_mesh("secure"));
    let set = added(&mut stream).await;
    assert_eq!(addresses(&set), ["10.0.0.1:8080"]);
    assert_eq!(
        identity(&set.addrs[0]),
        Some((NAME.to_owned(), NAME.to_owned()))
    );
    let control_plane = set.addrs[0].metric_labels["control_plane_ns"].as_str();
    assert_eq!(control_plane, "kuma-system");
}

#[tokio::test]
async fn an_address_is_followed_to_whatever_has_it() {
    let mut running = Running::listed().await;
    let mut stream = running.get("10.96.0.1:80", "").await.unwrap();
    assert!(!none(&mut stream).await, "nothing of this cluster");
    running.scene.service(service("web", "10.96.0.1"));
    assert!(none(&mut stream).await);
    running.scene.slice(web(vec![endpoint("p", "10.0.0.1")]));
    assert_eq!(addresses(&added(&mut stream).await), ["10.0.0.1:8080"]);
    running.scene.delete_service(service("web", "10.96.0.1"));
    assert!(!none(&mut stream).await);
    running.scene.pod(pod("p", "10.96.0.1"));
    let set = added(&mut stream).await;
    assert_eq!(addresses(&set), ["10.96.0.1:80"]);
    assert_eq!(set.metric_labels, labels(&[]));
    assert_eq!(set.addrs[0].metric_labels["namespace"], NAMESPACE);
}

#[tokio::test]
async fn a_headless_service_is_its_pods_and_each_has_a_name() {
    let mut running = Running::listed().await;
    let headless = json!({"spec": {"clusterIP": "None", "clusterIPs": ["None"]}});
    running.scene.service(with(service("web", ""), headless));
    let named = |number: u8| {
        let hostname = json!({"hostname": format!("web-{number}")});
        with(
            endpoint(&format!("p{number}"), &format!("10.0.0.{number}")),
            hostname,
        )
    };
    running.scene.slice(web(vec![named(0), named(1)]));
    let mut all = running
        .get("web.shop.svc.cluster.local:80", "")
        .await
        .unwrap();
    assert_eq!(
        addresses(&added(&mut all).await),
        ["10.0.0.0:8080", "10.0.0.1:8080"]
    );
    let mut one = running
        .get("web-1.web.shop.svc.cluster.local:80", "")
        .await
        .unwrap();
    assert_eq!(addresses(&added(&mut one).await), ["10.0.0.1:8080"]);
    let mut profile = running
        .profile("web-1.web.shop.svc.cluster.local:80")
        .await
        .unwrap();
    assert_eq!(
        text(next(&mut profile).await.endpoint.unwrap().addr),
        "10.0.0.1:8080"
    );
    running.scene.slice(web(vec![named(0)]));
    assert_eq!(removed(&mut all).await, ["10.0.0.1:8080"]);
    assert!(none(&mut one).await);
    assert_eq!(next(&mut profile).await, DestinationProfile::default());
}

#[tokio::test]
async fn a_profile_says_what_stands_behind_an_address() {
    let mut running = Running::listed().await;
    running.scene.node(node("node-a", "east"));
    running.scene.service(service("web", "10.96.0.1"));
    running.scene.pod(pod("p", "10.0.0.1"));
    let mut by_address = running.profile("10.96.0.1:80").await.unwrap();
    let mut by_name = running
        .profile("web.shop.svc.cluster.local:80")
        .await
        .unwrap();
    let told = next(&mut by_address).await;
    assert_eq!(told, next(&mut by_name).await);
    assert_eq!(told.fully_qualified_name, "web.shop.svc.cluster.local");
    assert!(!told.opaque_protocol && told.endpoint.is_none() && told.routes.is_empty());

    let mut of_pod = running.profile("10.0.0.1:8080").await.unwrap();
    let told = next(&mut of_pod).await;
    assert_eq!(told.fully_qualified_name, "");
    let addr = told.endpoint.unwrap();
    assert_eq!(text(addr.addr), "10.0.0.1:8080");
    assert_eq!(
        addr.metric_labels,
        labels(&[
            ("namespace", NAMESPACE),
            ("pod", "p"),
            ("serviceaccount", "web"),
            ("zone", "east"),
            ("zone_locality", "unknown"),
        ])
    );
    let mut unknown = running.profile("192.0.2.1:443").await.unwrap();
    assert_eq!(next(&mut unknown).await, DestinationProfile::default());
    let mut no_port = running.profile("10.96.0.1:81").await.unwrap();
    assert_eq!(next(&mut no_port).await, DestinationProfile::default());
}

#[tokio::test]
async fn opaque_ports_are_told_at_both_ends() {
    let mut running = Running::listed().await;
    running.scene.service(service("web", "10.96.0.1"));
    running.scene.pod(pod("p", "10.0.0.1"));
    running.scene.slice(web(vec![endpoint("p", "10.0.0.1")]));
    let mut stream = running
        .get("web.shop.svc.cluster.local:80", "")
        .await
        .unwrap();
    let mut profile = running
        .profile("web.shop.svc.cluster.local:80")
        .await
        .unwrap();
    assert_eq!(added(&mut stream).await.addrs[0].protocol_hint, None);
    assert!(!next(&mut profile).await.opaque_protocol);
    let opaque = json!({"metadata": {"annotations": {"config.linkerd.io/opaque-ports": "80"}}});
    running
        .scene
        .service(with(service("web", "10.96.0.1"), opaque));
    let hint = added(&mut stream).await.addrs[0].protocol_hint.unwrap();
    assert!(matches!(
        hint.protocol,
        Some(protocol_hint::Protocol::Opaque(_))
    ));
    assert!(next(&mut profile).await.opaque_protocol);
}

#[tokio::test]
async fn a_sticky_client_is_moved_only_when_it_must() {
    let mut running = Running::listed().await;
    let sticky = json!({"spec": {"sessionAffinity": "ClientIP"}});
    running
        .scene
        .service(with(service("web", "10.96.0.1"), sticky));
    let at = |number: usize| endpoint(&format!("p{number}"), &format!("10.0.0.{number}"));
    running.scene.slice(web(vec![at(1)]));
    let context = r#"{"ns":"shop","pod":"client"}"#;
    let mut stream = running
        .get("web.shop.svc.cluster.local:80", context)
        .await
        .unwrap();
    assert_eq!(addresses(&added(&mut stream).await), ["10.0.0.1:8080"]);
    // Of a hundred others one would weigh more, if it counted.
    running.scene.slice(web((1..=100).map(at).collect()));
    running.scene.slice(web((2..=100).map(at).collect()));
    let next_one = addresses(&added(&mut stream).await);
    assert_eq!(next_one.len(), 1);
    assert_eq!(removed(&mut stream).await, ["10.0.0.1:8080"]);
}

#[tokio::test]
async fn streams_are_bounded_and_give_their_room_back() {
    let mut running = Running::listed().await;
    let mut streams = Vec::new();
    for number in 0..STREAMS {
        let mut stream = running
            .profile(&format!("10.0.0.{number}:80"))
            .await
            .unwrap();
        next(&mut stream).await;
        streams.push(stream);
    }
    assert_eq!(running.scene.index.watched(), STREAMS);
    let status = running.profile("10.0.1.1:80").await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    drop(streams);
    let index = running.scene.index.clone();
    let released = async {
        while index.watched() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, released).await.unwrap();
    assert!(running.profile("10.0.1.1:80").await.is_ok());
}

#[tokio::test]
async fn a_stop_ends_the_streams() {
    let mut running = Running::listed().await;
    let mut stream = running.profile("10.0.0.1:80").await.unwrap();
    next(&mut stream).await;
    running.stop.cancel();
    let ended = tokio::time::timeout(DEADLINE, stream.message())
        .await
        .unwrap();
    assert_eq!(ended.unwrap_err().code(), Code::Unavailable);
    drop(running.client);
    tokio::time::timeout(DEADLINE, running.task)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(running.scene.index.watched(), 0);
}
