//! A cluster of 10,000 pods behind 1,000 Services, and 2,000 proxies that watch ten Services each: how long an update
//! takes until everyone who is concerned has it, and what a pod costs. The figures are printed.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weir_operator::index::{ServiceView, Watched};

use crate::scene::{Scene, endpoint, injected, key, pod, service, slice, with};

const SERVICES: usize = 1000;
const PODS_EACH: usize = 10;
const PROXIES: usize = 2000;
const WATCHES_EACH: usize = 10;
const UPDATES: usize = 2000;

fn address(number: usize) -> String {
    format!(
        "10.{}.{}.{}",
        1 + number / 65536,
        number / 256 % 256,
        number % 256
    )
}

fn one_pod(service: usize, number: usize) -> Value {
    let name = format!("web-{service}-5d8f7c9b44-{number:05}");
    let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "controller": true, "uid": "u",
        "name": format!("web-{service}-5d8f7c9b44")});
    let labels = json!({"app": format!("web-{service}"), "pod-template-hash": "5d8f7c9b44", "tier": "front",
        "version": "v1", "linkerd.io/workload-ns": "shop", "team": "payments"});
    let over = json!({"metadata": {"labels": labels, "ownerReferences": [owner]}});
    with(injected(pod(&name, &address(number)), "default"), over)
}

fn one_slice(service: usize, ready: usize) -> Value {
    let endpoints = (0..ready).map(|place| {
        let number = service * PODS_EACH + place;
        endpoint(
            &format!("web-{service}-5d8f7c9b44-{number:05}"),
            &address(number),
        )
    });
    let name = format!("web-{service}");
    slice(&name, &name, endpoints.collect())
}

fn cluster() -> Scene {
    let mut scene = Scene::default();
    for service_number in 0..SERVICES {
        let ip = address(1 << 20 | service_number);
        scene.service(service(&format!("web-{service_number}"), &ip));
        for place in 0..PODS_EACH {
            scene.pod(one_pod(service_number, service_number * PODS_EACH + place));
        }
        scene.slice(one_slice(service_number, PODS_EACH));
    }
    scene
}

fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

/// What a proxy does with a view: it is given the difference, here as many endpoints as there are.
fn receive(watched: &mut Watched<ServiceView>) -> usize {
    watched
        .latest()
        .endpoints_for(&Default::default(), None)
        .len()
}

#[test]
fn a_big_cluster_is_kept_small_and_told_fast() {
    let before = resident();
    let started = Instant::now();
    let mut scene = cluster();
    let pods = SERVICES * PODS_EACH;
    println!(
        "{pods} pods: built in {:?}, {} bytes resident a pod",
        started.elapsed(),
        resident().saturating_sub(before) / pods
    );

    let mut watches: Vec<Vec<Watched<ServiceView>>> = (0..SERVICES).map(|_| Vec::new()).collect();
    for proxy in 0..PROXIES {
        for place in 0..WATCHES_EACH {
            let number = (proxy * 7 + place * 101) % SERVICES;
            let mut watched = scene.index.service(key(&format!("web-{number}")), 80);
            assert_eq!(receive(&mut watched), PODS_EACH);
            watches[number].push(watched);
        }
    }
    assert!(scene.index.watched() <= SERVICES);

    let mut took: Vec<Duration> = Vec::with_capacity(UPDATES);
    for update in 0..UPDATES {
        let number = update * 37 % SERVICES;
        let ready = PODS_EACH - 1 - update / SERVICES;
        let object = serde_json::from_value(one_slice(number, ready)).unwrap();
        let started = Instant::now();
        let kept = scene.index.keep_slice(object);
        weir_operator::index::Indexed::apply(&mut scene.index, kept);
        for watched in &mut watches[number] {
            assert!(watched.has_changed());
            assert_eq!(receive(watched), ready);
        }
        took.push(started.elapsed());
    }
    took.sort();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize];
    println!(
        "an update to its {} watchers: p50 {:?}, p99 {:?}, longest {:?}",
        PROXIES * WATCHES_EACH / SERVICES,
        at(0.5),
        at(0.99),
        at(1.0)
    );
    drop(watches);
    assert_eq!(scene.index.watched(), 0);
}
