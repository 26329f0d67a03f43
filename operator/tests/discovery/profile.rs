//! What the Destination service says stands behind an address or a name (`GetProfile`).

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use linkerd2_proxy_api::destination::DestinationProfile;
use linkerd2_proxy_api::destination::protocol_hint;
use serde_json::json;

use crate::client::{Running, added, addresses, labels, next, none, removed, text, web};
use crate::scene::{NAMESPACE, endpoint, node, pod, service, with};

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
