//! Which endpoints the Destination service tells a client of the published crate (`Get`).

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use serde_json::json;

use crate::client::{Running, added, addresses, identity, labels, none, removed, web};
use crate::owners::OWNERS;
use crate::scene::{NAMESPACE, endpoint, injected, node, pod, secure_mesh, service, with};

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
