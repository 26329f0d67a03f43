//! Which endpoints a Service has, and which of them a client is given.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::collections::BTreeMap;

use serde_json::{Value, json};
use weir_operator::index::{Caller, Profile};

use crate::scene::{Scene, anyones, endpoint, given, key, pod, service, slice, with};

fn client(node: &str, zone: &str) -> Caller {
    Caller {
        node: Some(node.into()),
        zone: Some(zone.into()),
        ..Caller::default()
    }
}

/// A Service `web` changed by `over`, with these endpoints.
fn scene(over: Value, endpoints: Vec<Value>) -> Scene {
    let mut scene = Scene::default();
    scene.service(with(service("web", "10.96.0.1"), over));
    scene.slice(slice("web-1", "web", endpoints));
    scene
}

fn at(ip: &str, node: &str, zone: &str) -> Value {
    with(
        endpoint("p", ip),
        json!({"nodeName": node, "zone": zone, "targetRef": null}),
    )
}

fn conditions(ready: bool, serving: bool, terminating: bool) -> Value {
    json!({"conditions": {"ready": ready, "serving": serving, "terminating": terminating}})
}

#[test]
fn a_port_leads_where_each_slice_says() {
    let ports = json!({"spec": {"ports": [
        {"name": "http", "port": 80, "targetPort": "web"},
        {"name": "admin", "port": 81, "targetPort": 9000},
        {"name": "dns", "port": 53, "protocol": "UDP"},
    ]}});
    let mut scene = scene(ports, vec![at("10.0.0.1", "a", "x")]);
    let other = with(
        slice("web-2", "web", vec![at("10.0.0.2", "a", "x")]),
        json!({"ports": [{"name": "http", "port": 8081}, {"name": "admin", "port": 9000}, {"name": "dns", "port": 53, "protocol": "UDP"}]}),
    );
    scene.slice(other);
    assert_eq!(
        anyones(&scene.view("web", 80)),
        ["10.0.0.1:8080", "10.0.0.2:8081"]
    );
    assert_eq!(anyones(&scene.view("web", 81)), ["10.0.0.2:9000"]);
    for port in [53, 82] {
        let view = scene.view("web", port);
        assert!(
            view.destination.is_some() && view.endpoints.is_empty(),
            "{port}"
        );
    }
    assert_eq!(scene.view("other", 80).destination, None);
}

#[test]
fn the_pods_of_a_headless_service_are_dialed_on_any_port() {
    let headless = json!({"spec": {"clusterIP": "None", "clusterIPs": ["None"]}});
    let named = with(at("10.0.0.1", "a", "x"), json!({"hostname": "web-0"}));
    let mut scene = scene(headless, vec![named, at("10.0.0.2", "a", "x")]);
    assert_eq!(
        anyones(&scene.view("web", 80)),
        ["10.0.0.1:8080", "10.0.0.2:8080"]
    );
    assert_eq!(
        anyones(&scene.view("web", 9999)),
        ["10.0.0.1:9999", "10.0.0.2:9999"]
    );
    let mut watched = scene.index.name(key("web"), Some("web-0"), 80);
    match &*watched.latest() {
        Profile::Endpoint(endpoint) => assert_eq!(endpoint.address.to_string(), "10.0.0.1:8080"),
        other => panic!("{other:?}"),
    }
    scene.slice(slice("web-1", "web", vec![at("10.0.0.2", "a", "x")]));
    assert_eq!(*watched.latest(), Profile::Unknown);
}

#[test]
fn an_external_name_has_no_endpoints() {
    let external = json!({"spec": {"type": "ExternalName", "externalName": "db.example", "clusterIP": null, "clusterIPs": null}});
    let scene = scene(external, vec![]);
    let view = scene.view("web", 80);
    let destination = view.destination.as_ref().unwrap();
    assert!(destination.external && view.endpoints.is_empty());
}

#[test]
fn endpoints_without_pods_are_endpoints() {
    let scene = scene(
        json!({"spec": {"selector": null}}),
        vec![at("192.0.2.1", "a", "x")],
    );
    let view = scene.view("web", 80);
    let labels = view.endpoints[0].labels(&client("a", "x"));
    assert_eq!(labels, [("zone", "x"), ("zone_locality", "local")]);
}

#[test]
fn whoever_still_serves_stands_in_where_nobody_is_ready() {
    let scene_of = |first: Value, second: Value| {
        let first = with(at("10.0.0.1", "a", "x"), first);
        scene(
            json!({}),
            vec![first, with(at("10.0.0.2", "a", "x"), second)],
        )
    };
    let ready = conditions(true, true, false);
    let draining = conditions(false, true, true);
    let gone = conditions(false, false, true);
    for (first, second, want) in [
        (
            ready.clone(),
            ready.clone(),
            vec!["10.0.0.1:8080", "10.0.0.2:8080"],
        ),
        (ready.clone(), draining.clone(), vec!["10.0.0.1:8080"]),
        (draining.clone(), gone.clone(), vec!["10.0.0.1:8080"]),
        (gone.clone(), conditions(false, false, false), vec![]),
        // Serving is not enough for one that starts.
        (conditions(false, true, false), gone, vec![]),
        // publishNotReadyAddresses: ready although it ends.
        (
            conditions(true, false, true),
            draining,
            vec!["10.0.0.1:8080"],
        ),
        // What is not said is ready.
        (
            json!({"conditions": null}),
            conditions(false, false, false),
            vec!["10.0.0.1:8080"],
        ),
    ] {
        let scene = scene_of(first.clone(), second.clone());
        assert_eq!(anyones(&scene.view("web", 80)), want, "{first} {second}");
    }
}

#[test]
fn internal_traffic_policy_local_stays_on_the_node() {
    let local = json!({"spec": {"internalTrafficPolicy": "Local"}});
    let drains = with(at("10.0.0.3", "c", "x"), conditions(false, true, true));
    let endpoints = vec![at("10.0.0.1", "a", "x"), at("10.0.0.2", "b", "x"), drains];
    let view = scene(local.clone(), endpoints.clone()).view("web", 80);
    assert_eq!(given(&view, &client("a", "x")), ["10.0.0.1:8080"]);
    assert_eq!(
        given(&view, &client("c", "x")),
        ["10.0.0.3:8080"],
        "it serves while it ends"
    );
    assert!(given(&view, &client("d", "x")).is_empty());
    assert_eq!(anyones(&view).len(), 2, "nobody knows where the client is");
    let headless = with(local, json!({"spec": {"clusterIP": "None"}}));
    let view = scene(headless, endpoints).view("web", 80);
    assert_eq!(
        given(&view, &client("d", "x")).len(),
        2,
        "it has no address to have a policy for"
    );
}

#[test]
fn hints_keep_traffic_near() {
    let zone = |zone: &str| json!({"hints": {"forZones": [{"name": zone}]}});
    let node = |zone: &str, node: &str| json!({"hints": {"forZones": [{"name": zone}], "forNodes": [{"name": node}]}});
    let pair = |first: Value, second: Value| {
        let first = with(at("10.0.0.1", "a", "x"), first);
        scene(
            json!({}),
            vec![first, with(at("10.0.0.2", "b", "y"), second)],
        )
        .view("web", 80)
    };
    let view = pair(zone("x"), zone("y"));
    assert_eq!(given(&view, &client("n", "x")), ["10.0.0.1:8080"]);
    assert_eq!(given(&view, &client("n", "y")), ["10.0.0.2:8080"]);
    assert_eq!(
        given(&view, &client("n", "z")).len(),
        2,
        "none is for this zone"
    );
    assert_eq!(anyones(&view).len(), 2);
    let view = pair(zone("x"), json!({}));
    assert_eq!(
        given(&view, &client("n", "x")).len(),
        2,
        "one is for nobody in particular"
    );
    let view = pair(node("x", "a"), node("x", "b"));
    assert_eq!(given(&view, &client("b", "x")), ["10.0.0.2:8080"]);
    assert_eq!(
        given(&view, &client("c", "x")).len(),
        2,
        "all are for this zone"
    );
    let drains = with(zone("y"), conditions(false, true, true));
    let view = pair(zone("x"), drains);
    assert_eq!(
        given(&view, &client("n", "y")),
        ["10.0.0.1:8080"],
        "only those that are ready count"
    );
}

#[test]
fn a_sticky_service_gives_each_client_one_endpoint() {
    let sticky = json!({"spec": {"sessionAffinity": "ClientIP"}});
    let endpoints = |count: u8| {
        (1..=count)
            .map(|n| at(&format!("10.0.0.{n}"), "a", "x"))
            .collect()
    };
    let three = scene(sticky.clone(), endpoints(3)).view("web", 80);
    let four = scene(sticky, endpoints(4)).view("web", 80);
    let mut spread: BTreeMap<String, usize> = BTreeMap::new();
    let mut moved = 0;
    for number in 0..300 {
        let client = Caller {
            pod: Some(key(&format!("client-{number}"))),
            ..Caller::default()
        };
        let chosen = three.endpoints_for(&client, None);
        assert_eq!(chosen.len(), 1);
        let held = chosen[0].address;
        *spread.entry(held.to_string()).or_default() += 1;
        assert_eq!(
            four.endpoints_for(&client, Some(held))[0].address,
            held,
            "it stays"
        );
        moved += usize::from(four.endpoints_for(&client, None)[0].address != held);
        let elsewhere = three.endpoints_for(&client, Some("10.9.9.9:1".parse().unwrap()));
        assert_eq!(elsewhere[0].address, held, "what it had is gone");
    }
    assert_eq!(spread.len(), 3);
    assert!(
        spread.values().all(|count| (60..140).contains(count)),
        "{spread:?}"
    );
    assert!(
        (40..110).contains(&moved),
        "about a quarter goes to the new one: {moved}"
    );
    assert_eq!(anyones(&three).len(), 3, "nobody knows who asks");
}

#[test]
fn the_first_family_of_the_service_is_given() {
    let mut scene = scene(json!({}), vec![at("10.0.0.1", "a", "x")]);
    let v6 = with(
        slice("web-6", "web", vec![at("fd00::1", "a", "x")]),
        json!({"addressType": "IPv6"}),
    );
    scene.slice(v6);
    assert_eq!(anyones(&scene.view("web", 80)), ["10.0.0.1:8080"]);
    let families = json!({"spec": {"ipFamilies": ["IPv6", "IPv4"]}});
    scene.service(with(service("web", "10.96.0.1"), families));
    assert_eq!(anyones(&scene.view("web", 80)), ["[fd00::1]:8080"]);
    scene.delete_slice(slice("web-6", "web", vec![]));
    assert_eq!(anyones(&scene.view("web", 80)), ["10.0.0.1:8080"]);
}

#[test]
fn slices_of_names_and_of_nobody_are_none() {
    let mut scene = scene(json!({}), vec![at("10.0.0.1", "a", "x")]);
    scene.slice(with(
        slice("web-2", "web", vec![at("db.example", "a", "x")]),
        json!({"addressType": "FQDN"}),
    ));
    scene.slice(with(
        slice("web-3", "web", vec![at("10.0.0.3", "a", "x")]),
        json!({"metadata": {"labels": null}}),
    ));
    assert_eq!(anyones(&scene.view("web", 80)), ["10.0.0.1:8080"]);
}

#[test]
fn one_endpoint_in_two_slices_is_one() {
    let mut scene = scene(json!({}), vec![at("10.0.0.1", "a", "x")]);
    scene.slice(slice("web-2", "web", vec![at("10.0.0.1", "a", "x")]));
    assert_eq!(anyones(&scene.view("web", 80)), ["10.0.0.1:8080"]);
    scene.pod(pod("p", "10.0.0.1"));
    scene.delete_slice(slice("web-1", "web", vec![]));
    assert_eq!(anyones(&scene.view("web", 80)), ["10.0.0.1:8080"]);
}
