//! How views live: who is woken by what, what a list does, and that nothing outlives its watchers.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use serde_json::{Value, json};
use weir_operator::index::{Indexed, Pod, Profile, Service, ServiceView, Slice, Watched};

use crate::scene::{Scene, endpoint, key, node, pod, service, slice, with};

/// Services `a` and `b` with a pod each.
fn two_services() -> Scene {
    let mut scene = Scene::default();
    for (name, number) in [("a", 1), ("b", 2)] {
        let ip = format!("10.0.0.{number}");
        scene.pod(pod(name, &ip));
        scene.service(service(name, &format!("10.96.0.{number}")));
        scene.slice(slice(name, name, vec![endpoint(name, &ip)]));
    }
    scene
}

fn watch_all(scene: &Scene) -> [Watched<ServiceView>; 2] {
    ["a", "b"].map(|name| {
        let mut watched = scene.index.service(key(name), 80);
        watched.latest();
        watched
    })
}

type Step = (&'static str, fn(&mut Scene), bool);

/// What happens to Service `a`, one after the other, and whether its endpoints differ then.
const STEPS: [Step; 12] = [
    (
        "the same pod",
        |scene| scene.pod(pod("a", "10.0.0.1")),
        false,
    ),
    ("its readiness", |scene| scene.pod(ready_pod()), false),
    ("its node", |scene| scene.pod(moved_pod()), true),
    (
        "the same Service",
        |scene| scene.service(service("a", "10.96.0.1")),
        false,
    ),
    (
        "another address",
        |scene| scene.service(service("a", "10.96.0.9")),
        false,
    ),
    (
        "the same slice",
        |scene| scene.slice(slice_of("a", "10.0.0.1")),
        false,
    ),
    (
        "one more slice",
        |scene| scene.slice(slice_of("a-2", "10.0.0.7")),
        true,
    ),
    (
        "an empty slice",
        |scene| scene.slice(slice("a-3", "a", vec![])),
        false,
    ),
    (
        "a slice less",
        |scene| scene.delete_slice(slice_of("a-2", "10.0.0.7")),
        true,
    ),
    ("a node", |scene| scene.node(node("node-b", "east")), false),
    (
        "the pod is gone",
        |scene| scene.delete_pod(pod("a", "10.0.0.1")),
        true,
    ),
    (
        "the Service is gone",
        |scene| scene.delete_service(service("a", "10.96.0.9")),
        true,
    ),
];

fn ready_pod() -> Value {
    let status =
        json!({"name": "app", "ready": true, "image": "", "imageID": "", "restartCount": 0});
    with(
        pod("a", "10.0.0.1"),
        json!({"status": {"containerStatuses": [status]}}),
    )
}

fn moved_pod() -> Value {
    with(
        pod("a", "10.0.0.1"),
        json!({"spec": {"nodeName": "node-b"}}),
    )
}

fn slice_of(name: &str, ip: &str) -> Value {
    slice(name, "a", vec![endpoint("a", ip)])
}

#[test]
fn an_update_wakes_only_whom_it_concerns() {
    let mut scene = two_services();
    let [mut a, mut b] = watch_all(&scene);
    for (what, step, wakes) in STEPS {
        step(&mut scene);
        assert_eq!(a.has_changed(), wakes, "{what}");
        assert!(!b.has_changed(), "{what}: that is another Service");
        a.latest();
        b.latest();
    }
}

#[test]
fn an_address_follows_what_stands_behind_it() {
    let mut scene = Scene::default();
    let mut watched = scene.index.address("10.0.0.1".parse().unwrap(), 80);
    assert_eq!(*watched.latest(), Profile::Unknown);
    scene.service(service("web", "10.0.0.1"));
    assert!(matches!(&*watched.latest(), Profile::Service(..)));
    scene.delete_service(service("web", "10.0.0.1"));
    assert_eq!(*watched.latest(), Profile::Unknown);
    scene.pod(pod("p", "10.0.0.1"));
    scene.node(node("node-a", "east"));
    match &*watched.latest() {
        Profile::Endpoint(endpoint) => assert_eq!(endpoint.zone.as_deref(), Some("east")),
        other => panic!("{other:?}"),
    }
    scene.pod(pod("p", "10.0.0.2"));
    assert_eq!(
        *watched.latest(),
        Profile::Unknown,
        "the pod has another address now"
    );
}

#[test]
fn a_key_lives_as_long_as_its_watchers() {
    let scene = two_services();
    assert_eq!(scene.index.watched(), 0);
    let first = scene.index.service(key("a"), 80);
    let second = scene.index.service(key("a"), 80);
    let other_port = scene.index.service(key("a"), 81);
    let address = scene.index.address("10.0.0.1".parse().unwrap(), 80);
    let name = scene.index.name(key("a"), Some("a-0"), 80);
    assert_eq!(scene.index.watched(), 4);
    drop(first);
    assert_eq!(scene.index.watched(), 4, "somebody watches still");
    drop((second, address));
    assert_eq!(scene.index.watched(), 2);
    drop((other_port, name));
    assert_eq!(scene.index.watched(), 0);
}

#[test]
fn a_list_is_everything_there_is() {
    let mut scene = two_services();
    let [mut a, mut b] = watch_all(&scene);
    let keep = |object| {
        scene
            .index
            .keep_pod(serde_json::from_value(object).unwrap())
    };
    let pods: Vec<Pod> = vec![keep(pod("b", "10.0.0.2")), keep(pod("c", "10.0.0.3"))];
    scene.index.reset(pods);
    assert!(a.has_changed() && !b.has_changed());
    assert_eq!(a.latest().endpoints[0].workload, None);
    assert_eq!(scene.behind("10.0.0.1:80"), Profile::Unknown);
    assert!(matches!(scene.behind("10.0.0.3:80"), Profile::Endpoint(_)));
    scene.index.reset(Vec::<Slice>::new());
    assert!(a.latest().endpoints.is_empty() && b.latest().endpoints.is_empty());
    scene.index.reset(Vec::<Service>::new());
    assert!(a.latest().destination.is_none() && b.latest().destination.is_none());
}

#[test]
fn the_index_is_complete_after_every_kind_was_listed() {
    let mut scene = Scene::default();
    let complete = scene.index.complete();
    scene.pod(pod("p", "10.0.0.1"));
    assert!(!*complete.borrow());
    scene.list_nothing();
    assert!(*complete.borrow());
}
