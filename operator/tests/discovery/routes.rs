//! What the operator says of the routes of a Service: in the words of Linkerd's API to any client of it
//! (`GetProfile`), and as a table to our own proxies (`Routes.Watch`).

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use linkerd2_proxy_api::destination::request_match::Match;
use linkerd2_proxy_api::destination::{DestinationProfile, response_match};
use linkerd2_proxy_api::meta::metadata::Kind;
use serde_json::{Value, json};
use tonic::{Code, Streaming};
use weir_crds::grpc::routes_v1::{Document, WatchRequest};
use weir_crds::routes::{Condition, RouteTable, TABLE_VERSION};

use crate::client::{DEADLINE, Running, next};
use crate::scene::{pod, service};

const WEB: &str = "web.shop.svc.cluster.local";

fn profile(namespace: &str, routes: &Value) -> Value {
    json!({
        "apiVersion": "linkerd.io/v1alpha2", "kind": "ServiceProfile",
        "metadata": {"name": WEB, "namespace": namespace},
        "spec": {
            "routes": routes,
            "retryBudget": {"retryRatio": 0.5, "minRetriesPerSecond": 3, "ttl": "20s"},
            "dstOverrides": [{"authority": "web-canary.shop.svc.cluster.local:80", "weight": "100m"}]
        }
    })
}

fn http_route(namespace: &str, name: &str, port: Option<u16>) -> Value {
    let mut parent = json!({"group": "", "kind": "Service", "name": "web", "namespace": "shop"});
    if let Some(port) = port {
        parent["port"] = json!(port);
    }
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "parentRefs": [parent],
            "rules": [{"matches": [{"headers": [{"name": "X-Test", "value": "1"}]}]}]
        }
    })
}

fn named(name: &str) -> Value {
    json!([{"name": name, "condition": {"method": "GET"}, "isRetryable": true}])
}

fn references(profile: &DestinationProfile) -> String {
    match profile.profile_ref.as_ref().and_then(|of| of.kind.as_ref()) {
        Some(Kind::Resource(of)) => {
            format!("{}/{} {}/{}", of.group, of.kind, of.namespace, of.name)
        }
        Some(Kind::Default(of)) => of.clone(),
        None => String::new(),
    }
}

impl Running {
    async fn tables(
        &mut self,
        path: &str,
        context: &str,
    ) -> Result<Streaming<Document>, tonic::Status> {
        let request = WatchRequest {
            path: path.to_owned(),
            context_token: context.to_owned(),
            newest_version: TABLE_VERSION,
        };
        let called = tokio::time::timeout(DEADLINE, self.routes.watch(request))
            .await
            .unwrap();
        called.map(tonic::Response::into_inner)
    }
}

/// The next table; none where the destination has none.
async fn table(stream: &mut Streaming<Document>) -> Option<RouteTable> {
    let document = next(stream).await;
    assert_eq!(document.version, TABLE_VERSION);
    (!document.json.is_empty()).then(|| serde_json::from_str(&document.json).unwrap())
}

async fn names(stream: &mut Streaming<Document>) -> Vec<String> {
    let table = table(stream).await.unwrap_or_default();
    table.routes.into_iter().map(|route| route.name).collect()
}

#[tokio::test]
async fn any_client_of_the_api_reads_a_service_profile() {
    let mut running = Running::listed().await;
    running.scene.service(service("web", "10.96.0.1"));
    let mut stream = running.profile("10.96.0.1:80").await.unwrap();
    let told = next(&mut stream).await;
    assert!(told.routes.is_empty() && told.profile_ref.is_none());
    running.scene.profile(profile(
        "shop",
        &json!([{
            "name": "GET /books", "isRetryable": true, "timeout": "300ms",
            "condition": {"all": [{"method": "GET"}, {"not": {"pathRegex": "/books/.*"}}]},
            "responseClasses": [{"condition": {"status": {"min": 404}}, "isFailure": true}]
        }]),
    ));
    let told = next(&mut stream).await;
    assert_eq!(
        references(&told),
        format!("linkerd.io/ServiceProfile shop/{WEB}")
    );
    let [route] = told.routes.as_slice() else {
        panic!("{:?}", told.routes)
    };
    assert_eq!(route.metrics_labels["route"], "GET /books");
    assert!(route.is_retryable);
    assert_eq!(route.timeout.unwrap().nanos, 300_000_000);
    let Some(Match::All(all)) = route.condition.clone().unwrap().r#match else {
        panic!("{:?}", route.condition)
    };
    let [method, not] = all.matches.as_slice() else {
        panic!("{all:?}")
    };
    assert!(matches!(&method.r#match, Some(Match::Method(_))));
    let Some(Match::Not(not)) = &not.r#match else {
        panic!("{not:?}")
    };
    assert!(matches!(&not.r#match, Some(Match::Path(path)) if path.regex == "^(?:/books/.*)$"));
    let class = &route.response_classes[0];
    assert!(class.is_failure);
    let Some(response_match::Match::Status(range)) = class.condition.clone().unwrap().r#match
    else {
        panic!("{class:?}")
    };
    assert_eq!((range.min, range.max), (404, 404));
    let budget = told.retry_budget.unwrap();
    assert_eq!(
        (budget.min_retries_per_second, budget.ttl.unwrap().seconds),
        (3, 20)
    );
    assert_eq!(
        told.dst_overrides[0].authority,
        "web-canary.shop.svc.cluster.local:80"
    );
    running.scene.delete_profile(profile("shop", &json!([])));
    let told = next(&mut stream).await;
    assert!(told.routes.is_empty() && told.profile_ref.is_none());
}

#[tokio::test]
async fn a_table_says_all_of_it_and_a_profile_where_there_is_one() {
    let mut running = Running::listed().await;
    running.scene.service(service("web", "10.96.0.1"));
    let mut tables = running.tables("10.96.0.1:80", "").await.unwrap();
    let mut profiles = running.profile("10.96.0.1:80").await.unwrap();
    assert_eq!(table(&mut tables).await, None);
    assert_eq!(references(&next(&mut profiles).await), "");

    running.scene.route(http_route("shop", "r", None));
    let written = table(&mut tables).await.unwrap();
    let fields = matches!(&written.routes[0].condition, Condition::All(all) if all.len() == 2);
    assert!(
        fields && written.closed && written.routes[0].name == "r/0",
        "{written:?}"
    );
    let told = next(&mut profiles).await;
    assert_eq!(
        references(&told),
        "gateway.networking.k8s.io/HTTPRoute shop/r"
    );
    assert!(told.routes.is_empty(), "the API has no words for fields");

    // A ServiceProfile comes first, as in Linkerd.
    running.scene.profile(profile("shop", &named("a")));
    assert_eq!(names(&mut tables).await, ["a"]);
    running.scene.delete_profile(profile("shop", &named("a")));
    assert_eq!(names(&mut tables).await, ["r/0"]);
    // One that says nothing is none.
    let mut empty = profile("shop", &json!([]));
    empty["spec"] = json!({});
    running.scene.profile(empty);
    running.scene.delete_route(http_route("shop", "r", None));
    assert_eq!(table(&mut tables).await, None);
}

#[tokio::test]
async fn routes_of_a_clients_own_namespace_come_before_those_of_the_services() {
    let mut running = Running::listed().await;
    running.scene.service(service("web", "10.96.0.1"));
    let path = format!("{WEB}:80");
    let (home, away) = (
        r#"{"ns":"client","pod":"p"}"#,
        r#"{"ns":"other","pod":"p"}"#,
    );
    let mut at_home = running.tables(&path, home).await.unwrap();
    let mut elsewhere = running.tables(&path, away).await.unwrap();
    assert_eq!(
        (
            names(&mut at_home).await.len(),
            names(&mut elsewhere).await.len()
        ),
        (0, 0)
    );
    running.scene.route(http_route("shop", "r", None));
    assert_eq!(names(&mut at_home).await, ["r/0"]);
    assert_eq!(names(&mut elsewhere).await, ["r/0"]);
    running.scene.route(http_route("client", "own", None));
    assert_eq!(names(&mut at_home).await, ["own/0"]);
    running.scene.profile(profile("client", &named("own")));
    assert_eq!(names(&mut at_home).await, ["own"]);
    running.scene.profile(profile("shop", &named("theirs")));
    assert_eq!(names(&mut elsewhere).await, ["theirs"]);
    running
        .scene
        .delete_profile(profile("client", &named("own")));
    assert_eq!(names(&mut at_home).await, ["theirs"]);
}

#[tokio::test]
async fn a_route_may_be_about_one_port() {
    let mut running = Running::listed().await;
    running.scene.service(service("web", "10.96.0.1"));
    let mut eighty = running.tables(&format!("{WEB}:80"), "").await.unwrap();
    let mut other = running.tables(&format!("{WEB}:81"), "").await.unwrap();
    assert!(table(&mut eighty).await.is_none() && table(&mut other).await.is_none());
    running.scene.route(http_route("shop", "one", Some(81)));
    assert_eq!(names(&mut other).await, ["one/0"]);
    running.scene.route(http_route("shop", "all", None));
    assert_eq!(names(&mut eighty).await, ["all/0"]);
    assert_eq!(names(&mut other).await, ["all/0", "one/0"]);
    running.scene.delete_route(http_route("shop", "all", None));
    assert_eq!(table(&mut eighty).await, None);
    assert_eq!(names(&mut other).await, ["one/0"]);
}

#[tokio::test]
async fn what_is_no_service_has_no_routes() {
    let mut running = Running::listed().await;
    running.scene.pod(pod("p", "10.0.0.1"));
    for path in [
        "10.0.0.1:8080",
        "192.0.2.1:443",
        "gone.shop.svc.cluster.local:80",
    ] {
        let mut tables = running.tables(path, "").await.unwrap();
        assert_eq!(table(&mut tables).await, None, "{path}");
    }
    for (name, path) in [("web", "web:80"), ("unsaid", "10.0.0.1:80")] {
        let request = WatchRequest {
            path: path.to_owned(),
            context_token: String::new(),
            newest_version: u32::from(name == "web"),
        };
        let refused = running.routes.watch(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{name}");
    }
    // A newer proxy gets the newest that there is.
    let request = WatchRequest {
        path: "10.0.0.1:8080".to_owned(),
        context_token: String::new(),
        newest_version: TABLE_VERSION + 7,
    };
    let answer = running.routes.watch(request).await.unwrap();
    assert_eq!(table(&mut answer.into_inner()).await, None);
    // A profile of a name that is no Service's is nobody's.
    let mut foreign = profile("shop", &named("a"));
    foreign["metadata"]["name"] = json!("example.com");
    running.scene.profile(foreign);
}

#[tokio::test]
async fn backends_that_are_not_there_are_missed_until_they_are() {
    let mut running = Running::listed().await;
    running.scene.service(service("web", "10.96.0.1"));
    running.scene.service(service("v1", "10.96.0.2"));
    let mut route = http_route("shop", "r", None);
    route["spec"]["rules"] = json!([{"backendRefs": [
        {"name": "v1", "port": 80, "weight": 9},
        {"name": "v2", "port": 80, "weight": 1},
        {"name": "v1", "port": 9999, "weight": 2}
    ]}]);
    running.scene.route(route.clone());
    let mut tables = running.tables(&format!("{WEB}:80"), "").await.unwrap();
    let told = async |tables: &mut Streaming<Document>| {
        let table = table(tables).await.unwrap();
        let route = &table.routes[0];
        let names = route.backends.iter().map(|one| one.authority.clone());
        let names: Vec<String> = names.collect();
        (names.join(" "), route.missing)
    };
    let (v1, v2) = (
        "v1.shop.svc.cluster.local:80",
        "v2.shop.svc.cluster.local:80",
    );
    assert_eq!(told(&mut tables).await, (v1.to_owned(), 3));
    let missed = |running: &Running| {
        let faults = running.scene.index.faults().into_iter();
        let faults = faults.flat_map(|fault| fault.problems.to_vec());
        let faults = faults.map(|told| {
            let named = told.split("the port ").nth(1).unwrap();
            named.split(": its part").next().unwrap().to_owned()
        });
        faults.collect::<Vec<_>>()
    };
    let odd = "v1.shop.svc.cluster.local:9999";
    assert_eq!(missed(&running), [odd, v2]);
    let mut faulty = running.scene.index.faulty();
    running.scene.service(service("v2", "10.96.0.3"));
    assert_eq!(told(&mut tables).await, (format!("{v1} {v2}"), 2));
    assert!(faulty.has_changed().unwrap());
    faulty.mark_unchanged();
    assert_eq!(missed(&running), [odd]);
    // Another Service changes nothing of this.
    running.scene.service(service("other", "10.96.0.9"));
    assert!(!faulty.has_changed().unwrap());
    running.scene.delete_service(service("v1", "10.96.0.2"));
    assert_eq!(told(&mut tables).await, (v2.to_owned(), 11));
    running.scene.delete_service(service("v2", "10.96.0.3"));
    assert_eq!(told(&mut tables).await, (String::new(), 12));
    running.scene.delete_route(route);
    assert!(missed(&running).is_empty());
}

#[tokio::test]
async fn a_name_outside_is_no_backend_with_ports_and_without() {
    let mut running = Running::listed().await;
    running.scene.service(service("web", "10.96.0.1"));
    running.scene.service(service("v1", "10.96.0.2"));
    let mut route = http_route("shop", "r", None);
    route["spec"]["rules"] = json!([{"backendRefs": [{"name": "v1", "port": 80}]}]);
    running.scene.route(route);
    let mut tables = running.tables(&format!("{WEB}:80"), "").await.unwrap();
    let missing = async |tables: &mut Streaming<Document>| {
        let table = table(tables).await.unwrap();
        table.routes[0].missing
    };
    assert_eq!(missing(&mut tables).await, 0);
    let mut outside = service("v1", "10.96.0.2");
    outside["spec"]["type"] = json!("ExternalName");
    outside["spec"]["externalName"] = json!("example.com");
    running.scene.service(outside.clone());
    assert_eq!(missing(&mut tables).await, 1);
    let told = |running: &Running| {
        let faults = running.scene.index.faults().into_iter();
        let problems = faults.flat_map(|fault| fault.problems.to_vec());
        problems.collect::<Vec<_>>().concat()
    };
    let problem = told(&running);
    assert!(
        problem.contains("v1.shop.svc.cluster.local:80 is an ExternalName"),
        "{problem}"
    );
    outside["spec"]["ports"] = json!(null);
    running.scene.service(outside);
    assert_eq!(told(&running), problem);
    running.scene.service(service("v1", "10.96.0.2"));
    assert_eq!(missing(&mut tables).await, 0);
    assert_eq!(told(&running), "");
}
