//! The whole operator and the pods of a cluster: Dataplanes come, change and go with them, with one write for each
//! change and none without.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use weir_operator::app::Bound;

use crate::api::Api;
use crate::scene::{apply_webhooks, eventually, operator};

const MESHES: &str = "/apis/kuma.io/v1alpha1/meshes";
const PODS: &str = "/api/v1/namespaces/shop/pods";
const SERVICES: &str = "/api/v1/namespaces/shop/services";
const DATAPLANES: &str = "/apis/kuma.io/v1alpha1/namespaces/shop/dataplanes";
const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/shop/events";

fn pod(name: &str, ip: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": "shop", "labels": {"app": "web"},
            "annotations": {"kuma.io/sidecar-injected": "true", "kuma.io/mesh": "default"},
        },
        "spec": {
            "nodeName": "node-a",
            "initContainers": [{"name": "kuma-sidecar", "restartPolicy": "Always", "env": [{"name": "WEIR_SETTINGS"}]}],
            "containers": [{"name": "app", "ports": [{"containerPort": 8080}]}],
        },
        "status": {"phase": "Running", "podIP": ip},
    })
}

fn service(target: Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"clusterIP": "10.96.0.1", "selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": target}]},
    })
}

async fn start() -> (Api, CancellationToken, JoinHandle<()>) {
    let (api, client) = Api::start().await;
    apply_webhooks(&api);
    api.put(
        MESHES,
        serde_json::to_value(weir_crds::Mesh::initial()).unwrap(),
    );
    let bound = Bound::new(client, operator("a")).await.unwrap();
    let stop = CancellationToken::new();
    let task = tokio::spawn(bound.run(stop.clone()));
    (api, stop, task)
}

fn service_tag(api: &Api, name: &str) -> Option<String> {
    let dataplane = api.get(DATAPLANES, name)?;
    let tag = &dataplane["spec"]["networking"]["inbound"][0]["tags"]["kuma.io/service"];
    Some(tag.as_str()?.to_owned())
}

fn metrics(api: &Api, name: &str) -> Option<String> {
    let address = &api.get(DATAPLANES, name)?["status"]["metrics"]["address"];
    Some(address.as_str()?.to_owned())
}

/// Writes of Dataplanes so far.
fn writes(api: &Api) -> Vec<String> {
    let requests = api.requests().into_iter();
    requests
        .filter(|request| request.contains(DATAPLANES) && !request.starts_with("GET"))
        .collect()
}

#[tokio::test]
async fn a_dataplane_lives_with_its_pod() {
    let (api, stop, task) = start().await;
    api.put(PODS, pod("p", "10.1.1.1"));
    let tag = eventually("a Dataplane", || service_tag(&api, "p")).await;
    assert_eq!(tag, "p_shop_svc");
    let address = eventually("its metrics", || metrics(&api, "p")).await;
    assert_eq!(address, "10.1.1.1:5670");
    let patch = format!("PATCH {DATAPLANES}/p");
    let status = format!("{patch}/status");
    assert_eq!(writes(&api), [patch.clone(), status.clone()]);

    api.put(SERVICES, service(json!(8080)));
    let changed = || service_tag(&api, "p").filter(|tag| tag == "web_shop_svc_80");
    eventually("the Service's inbound", changed).await;
    let mut moved = pod("p", "10.1.1.9");
    moved["metadata"]["resourceVersion"] = Value::Null;
    api.put(PODS, moved);
    let address = || metrics(&api, "p").filter(|address| address == "10.1.1.9:5670");
    eventually("the new address", address).await;
    assert_eq!(
        writes(&api),
        [&patch, &status, &patch, &patch, &status].map(String::as_str)
    );

    let mut done = pod("p", "10.1.1.9");
    done["status"]["phase"] = "Succeeded".into();
    api.put(PODS, done);
    eventually("no Dataplane", || {
        api.get(DATAPLANES, "p").is_none().then_some(())
    })
    .await;
    stop.cancel();
    task.await.unwrap();
    assert_eq!(writes(&api).len(), 6, "{:?}", writes(&api));
}

#[tokio::test]
async fn a_pod_that_cannot_be_converted_is_told_once() {
    let (api, stop, task) = start().await;
    api.put(SERVICES, service(json!("missing")));
    api.put(PODS, pod("p", "10.1.1.1"));
    let event = eventually("an event", || api.list(EVENTS).into_iter().next()).await;
    assert_eq!(event["reason"], "FailedToGenerateKumaDataplane");
    assert_eq!(event["type"], "Warning");
    assert_eq!(event["regarding"]["kind"], "Pod");
    assert_eq!(
        event["regarding"]["uid"],
        api.get(PODS, "p").unwrap()["metadata"]["uid"]
    );
    // Another change of the pod, with the same fault.
    let mut labelled = pod("p", "10.1.1.1");
    labelled["metadata"]["labels"]["version"] = "v2".into();
    api.put(PODS, labelled);
    api.put(PODS, pod("other", "10.1.1.2"));
    eventually("the other's event", || {
        (api.list(EVENTS).len() == 2).then_some(())
    })
    .await;
    assert!(api.list(DATAPLANES).is_empty());
    // The fault is mended.
    api.put(SERVICES, service(json!(8080)));
    eventually("a Dataplane", || service_tag(&api, "p")).await;
    stop.cancel();
    task.await.unwrap();
    assert_eq!(api.list(EVENTS).len(), 2);
}

#[tokio::test]
async fn what_a_user_wrote_is_never_touched() {
    let (api, stop, task) = start().await;
    let users = json!({
        "apiVersion": "kuma.io/v1alpha1", "kind": "Dataplane", "mesh": "default",
        "metadata": {"name": "p", "namespace": "shop"}, "spec": {"metrics": {"type": "prometheus"}},
    });
    api.put(DATAPLANES, users);
    let before = api.get(DATAPLANES, "p").unwrap();
    api.put(PODS, pod("p", "10.1.1.1"));
    api.put(PODS, pod("q", "10.1.1.2"));
    eventually("the other pod's Dataplane", || metrics(&api, "q")).await;
    let event = eventually("an event", || api.list(EVENTS).into_iter().next()).await;
    assert_eq!(event["regarding"]["name"], "p");
    assert_eq!(event["reason"], "FailedToGenerateKumaDataplane");
    let mut done = pod("p", "10.1.1.1");
    done["status"]["phase"] = "Succeeded".into();
    api.put(PODS, done);
    let mut done = pod("q", "10.1.1.2");
    done["status"]["phase"] = "Succeeded".into();
    api.put(PODS, done);
    eventually("no other Dataplane", || {
        api.get(DATAPLANES, "q").is_none().then_some(())
    })
    .await;
    stop.cancel();
    task.await.unwrap();
    assert_eq!(api.get(DATAPLANES, "p").unwrap(), before);
    let touched = writes(&api)
        .into_iter()
        .find(|request| request.contains("/p"));
    assert_eq!(touched, None);
}

#[tokio::test]
async fn a_write_that_failed_is_tried_again() {
    let (api, stop, task) = start().await;
    api.fail(&format!("PATCH {DATAPLANES}/p"), 500, 2);
    api.put(PODS, pod("p", "10.1.1.1"));
    eventually("its metrics", || metrics(&api, "p")).await;
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test]
async fn a_pod_is_not_dropped_while_there_is_no_place_for_its_dataplane() {
    let (api, stop, task) = start().await;
    // As while the resource definition is applied again.
    api.fail(&format!("PATCH {DATAPLANES}/p"), 404, 2);
    api.put(PODS, pod("p", "10.1.1.1"));
    eventually("its metrics", || metrics(&api, "p")).await;
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test]
async fn what_fails_is_not_tried_at_the_rate_of_other_pods_changes() {
    const REFUSED: usize = 50;
    const CHANGES: usize = 20;
    let (api, stop, task) = start().await;
    let refused = format!("PATCH {DATAPLANES}/bad-");
    api.fail(&refused, 403, usize::MAX);
    for number in 0..REFUSED {
        api.put(PODS, pod(&format!("bad-{number}"), "10.1.2.1"));
    }
    let tries = || {
        let requests = api.requests().into_iter();
        requests.filter(|one| one.starts_with(&refused)).count()
    };
    eventually("a try for each", || (tries() >= REFUSED).then_some(())).await;
    for number in 1..=CHANGES {
        let ip = format!("10.1.1.{number}");
        api.put(PODS, pod("good", &ip));
        let moved = || metrics(&api, "good").filter(|at| *at == format!("{ip}:5670"));
        eventually("the other's change", moved).await;
    }
    stop.cancel();
    task.await.unwrap();
    // The pauses double from 0.2 s to 10 s.
    assert!(tries() < REFUSED * CHANGES / 2, "{}", tries());
}
