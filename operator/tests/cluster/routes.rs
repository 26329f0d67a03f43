//! The whole operator and the kinds in which routes are written: it follows the one that is there, and is ready without the
//! other.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;
use tonic::Streaming;
use tonic::transport::Channel;
use weir_crds::Mesh;
use weir_crds::grpc::routes_v1::routes_client::RoutesClient;
use weir_crds::grpc::routes_v1::{Document, WatchRequest};
use weir_crds::routes::{RouteTable, TABLE_VERSION};
use weir_operator::app::Config;

use crate::api::Api;
use crate::operator::Running;
use crate::scene::{apply_webhooks, eventually, operator};

const MESHES: &str = "/apis/kuma.io/v1alpha1/meshes";
const SERVICES: &str = "/api/v1/namespaces/shop/services";
const PROFILES: &str = "/apis/linkerd.io/v1alpha2/namespaces/shop/serviceprofiles";
const ROUTES: &str = "/apis/gateway.networking.k8s.io/v1/namespaces/shop/httproutes";
const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/shop/events";
const WEB: &str = "web.shop.svc.cluster.local";
const DEADLINE: Duration = Duration::from_secs(20);

fn profile(route: &str) -> Value {
    json!({
        "apiVersion": "linkerd.io/v1alpha2", "kind": "ServiceProfile",
        "metadata": {"name": WEB, "namespace": "shop"},
        "spec": {"routes": [{"name": route, "condition": {"method": "GET"}}]},
    })
}

fn http_route(rule: &str) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": "web", "namespace": "shop", "creationTimestamp": "2026-11-01T00:00:00Z"},
        "spec": {
            "parentRefs": [{"group": "", "kind": "Service", "name": "web"}],
            "rules": [{"name": rule}]
        },
    })
}

async fn start(api: &Api, client: &kube::Client) -> Running {
    apply_webhooks(api);
    api.put(MESHES, serde_json::to_value(Mesh::initial()).unwrap());
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"clusterIP": "10.96.0.1", "ports": [{"port": 80}]},
    });
    api.put(SERVICES, service);
    let mut config: Config = operator("a");
    config.grpc.plaintext = true;
    let running = Running::start(client, config).await;
    let end = Instant::now() + DEADLINE;
    while !running.get("/ready").await.starts_with("HTTP/1.0 200") {
        assert!(Instant::now() < end, "{}", running.get("/ready").await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    running
}

/// The routes of the Service, as a proxy follows them.
async fn watch(running: &Running) -> Streaming<Document> {
    let channel = Channel::from_shared(format!("http://{}", running.grpc)).unwrap();
    let mut client = RoutesClient::new(channel.connect().await.unwrap());
    let request = WatchRequest {
        path: "10.96.0.1:80".to_owned(),
        context_token: String::new(),
        newest_version: TABLE_VERSION,
    };
    client.watch(request).await.unwrap().into_inner()
}

/// Waits for a table whose only route has this name; none for one without routes.
async fn until(documents: &mut Streaming<Document>, name: Option<&str>) {
    let said = async {
        loop {
            let document = documents.message().await.unwrap().unwrap();
            let table = (!document.json.is_empty())
                .then(|| serde_json::from_str::<RouteTable>(&document.json).unwrap());
            let table = table.unwrap_or_default();
            let names: Vec<&str> = table.routes.iter().map(|route| &*route.name).collect();
            if names == Vec::from_iter(name) {
                return;
            }
        }
    };
    let waited = tokio::time::timeout(DEADLINE, said).await;
    assert!(waited.is_ok(), "not in time: {name:?}");
}

#[tokio::test]
async fn routes_are_followed_where_their_kind_is_installed() {
    let places = [
        (
            PROFILES,
            "GET /apis/gateway.networking.k8s.io/v1/httproutes",
            ["a", "b"],
        ),
        (
            ROUTES,
            "GET /apis/linkerd.io/v1alpha2/serviceprofiles",
            ["web/a", "web/b"],
        ),
    ];
    for (place, missing, names) in places {
        let object = |name: &str| match place {
            PROFILES => profile(name),
            _ => http_route(name),
        };
        let (api, client) = Api::start().await;
        api.fail(missing, 404, usize::MAX);
        api.put(place, object("a"));
        let running = start(&api, &client).await;
        let mut documents = watch(&running).await;
        until(&mut documents, Some(names[0])).await;
        api.put(place, object("b"));
        until(&mut documents, Some(names[1])).await;
        let [stays] = &api.list(place)[..] else {
            panic!("one object")
        };
        api.delete(place, stays["metadata"]["name"].as_str().unwrap());
        until(&mut documents, None).await;
        let metrics = running.get("/metrics").await;
        assert!(!metrics.contains("watch_restarts_total{"), "{metrics}");
        running.stop().await;
    }
}

/// What the events about routes are about whose notes begin so.
fn told(api: &Api, start: &str) -> Vec<Value> {
    let events = api.list(EVENTS).into_iter();
    let ours = events.filter(|event| {
        event["reason"] == "RouteIgnored" && event["note"].as_str().unwrap().starts_with(start)
    });
    let about = ours.map(|event| {
        assert_eq!(event["type"], "Warning");
        event["regarding"].clone()
    });
    about.collect()
}

#[tokio::test]
async fn what_is_not_obeyed_is_an_event_of_the_route_once() {
    const FILTERS: &str = "spec.rules[0].filters: is not obeyed";
    let (api, client) = Api::start().await;
    let mut route = http_route("a");
    route["spec"]["rules"][0]["filters"] = json!([{"type": "URLRewrite"}]);
    api.put(ROUTES, route.clone());
    let running = start(&api, &client).await;
    let event = async |start: &str, n: usize| {
        eventually(start, || told(&api, start).into_iter().nth(n)).await
    };
    let about = event(FILTERS, 0).await;
    assert_eq!(about["kind"], "HTTPRoute");
    assert_eq!(about["apiVersion"], "gateway.networking.k8s.io/v1");
    let stored = api.get(ROUTES, "web").unwrap();
    assert_eq!(about["uid"], stored["metadata"]["uid"]);
    // Another change, with the same fault; then another fault, and another object.
    let filtered = route.clone();
    route["spec"]["rules"][0]["name"] = "b".into();
    api.put(ROUTES, route.clone());
    let mut documents = watch(&running).await;
    until(&mut documents, Some("web/b")).await;
    route["spec"]["rules"] = json!([{"timeouts": {"request": "soon"}}]);
    api.put(ROUTES, route);
    event("spec.rules[0].timeouts.request: ", 0).await;
    let mut profile = profile("p");
    profile["spec"]["routes"][0]["condition"] = json!({});
    api.put(PROFILES, profile);
    let about = event("spec.routes[0].condition: ", 0).await;
    assert_eq!(about["kind"], "ServiceProfile");
    // What is mended is told of again once it is wrong again.
    api.delete(PROFILES, WEB);
    api.put(ROUTES, http_route("c"));
    until(&mut documents, Some("web/c")).await;
    api.put(ROUTES, filtered);
    event(FILTERS, 1).await;
    running.stop().await;
    assert_eq!(told(&api, "").len(), 4);
}

#[tokio::test]
async fn an_override_that_stays_away_is_an_event_of_its_profile() {
    let (api, client) = Api::start().await;
    let mut overridden = profile("p");
    overridden["spec"]["dstOverrides"] = json!([
        {"authority": "web.shop.svc.cluster.local:80", "weight": "8"},
        {"authority": "early.shop.svc.cluster.local:80", "weight": "1"},
        {"authority": "late.shop.svc.cluster.local:80", "weight": "1"},
        {"authority": "web.shop.svc.cluster.local", "weight": "1"},
    ]);
    api.put(PROFILES, overridden);
    let running = start(&api, &client).await;
    let service = |name: &str, ip: &str| {
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "shop"},
            "spec": {"clusterIP": ip, "ports": [{"port": 80}]},
        })
    };
    api.put(SERVICES, service("early", "10.96.0.2"));
    let about = eventually("an event", || told(&api, "spec.dstOverrides: ").pop()).await;
    assert_eq!(about["kind"], "ServiceProfile");
    let stored = api.get(PROFILES, WEB).unwrap();
    assert_eq!(about["uid"], stored["metadata"]["uid"]);
    let note = |n: usize| api.list(EVENTS)[n]["note"].as_str().unwrap().to_owned();
    for part in [
        "no Service with the port late.shop.svc.cluster.local:80: it gets nothing",
        "web.shop.svc.cluster.local names no port: it gets nothing",
    ] {
        assert!(note(0).contains(part), "{}", note(0));
    }
    assert!(!note(0).contains("early"), "{}", note(0));
    // What is left is told again once one of the two is there; and one that goes.
    api.put(SERVICES, service("late", "10.96.0.3"));
    let known = || api.list(EVENTS).len() == 2 && !note(1).contains("late.shop");
    eventually("the next event", || known().then_some(())).await;
    api.delete(SERVICES, "early");
    let known = || api.list(EVENTS).len() == 3 && note(2).contains("early.shop");
    eventually("the one after it", || known().then_some(())).await;
    running.stop().await;
}

#[tokio::test]
async fn a_backend_that_stays_away_is_an_event_and_one_that_comes_is_none() {
    const MISSING: &str = "spec.rules: backendRefs: there is no Service with the port v";
    const POSTS: &str = "POST /apis/events.k8s.io/v1/namespaces/gone/events";
    let (api, client) = Api::start().await;
    // A namespace that is being deleted admits nothing.
    api.fail(POSTS, 403, usize::MAX);
    let named = |namespace: &str, name: &str, backend: &str| {
        let mut route = http_route("a");
        route["metadata"]["name"] = name.into();
        route["metadata"]["namespace"] = namespace.into();
        let parent = &mut route["spec"]["parentRefs"][0];
        parent["namespace"] = "shop".into();
        route["spec"]["rules"][0]["backendRefs"] = json!([{"name": backend, "port": 80}]);
        route
    };
    api.put(
        &ROUTES.replace("/shop/", "/gone/"),
        named("gone", "web", "v1"),
    );
    api.put(ROUTES, named("shop", "early", "v2"));
    let running = start(&api, &client).await;
    let mut v2 = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "v2", "namespace": "shop"},
        "spec": {"clusterIP": "10.96.0.2", "ports": [{"port": 80}]},
    });
    api.put(SERVICES, v2.clone());
    api.put(ROUTES, named("shop", "web", "v3"));
    let event = async |name: &str| {
        let found = || {
            told(&api, MISSING)
                .into_iter()
                .find(|of| of["name"] == name)
        };
        eventually(name, found).await
    };
    assert_eq!(event("web").await["kind"], "HTTPRoute");
    assert_eq!(told(&api, "").len(), 1, "the other one came in time");
    // What goes is told of, too.
    api.delete(SERVICES, "v2");
    v2["metadata"]["name"] = "v3".into();
    api.put(SERVICES, v2);
    event("early").await;
    running.stop().await;
    assert_eq!(told(&api, "").len(), 2, "what is mended is nothing to tell");
    let tries = api
        .requests()
        .into_iter()
        .filter(|one| one.starts_with(POSTS));
    assert_eq!(tries.count(), 1, "what is forbidden is not tried again");
}
