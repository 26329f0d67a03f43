//! Services whose pods say that nothing is to be read into the bytes of a port.

use weir_proxy::destinations::Answer;

use crate::connection::web;
use crate::desk::{connection, following, start};
use crate::discovery::{LOOPBACK, WEB};
use crate::operator::{Endpoints, Labels, OPAQUE, Operator};

/// Endpoints, each with whether it is opaque.
fn pods(pods: &[(&str, bool)]) -> Endpoints {
    let pods = pods.iter().map(|(at, is_opaque)| {
        let labels = is_opaque.then_some((OPAQUE, ""));
        let at = at.parse().expect("an address");
        (at, labels.into_iter().collect::<Labels>())
    });
    Endpoints::Are(pods.collect())
}

#[tokio::test]
async fn a_service_is_opaque_where_all_its_pods_are() {
    let operator = Operator::new(None);
    let serving = operator.serve(LOOPBACK).await;
    web(&operator, "10.96.0.1:80");
    let path = format!("{WEB}:80");
    let (a, b) = ("10.1.0.1:8080", "10.1.0.2:8080");
    operator.endpoints(&path, pods(&[(a, true), (b, true)]));
    let running = start(connection(serving.addr), following());
    let (mut watched, answer) = running.learn("10.96.0.1:80").await;
    let is_opaque = |answer: &Answer| matches!(answer, Answer::Inside(i) if i.is_opaque);
    assert!(is_opaque(&answer), "{answer:?}");
    operator.endpoints(&path, pods(&[(a, true), (b, false)]));
    watched.until(|answer| !is_opaque(answer)).await;
    operator.endpoints(&path, pods(&[(a, true)]));
    watched.until(is_opaque).await;
    // Where its requests go elsewhere, the pods there say it.
    let canary = "canary.shop.svc.cluster.local:80";
    operator.endpoints(canary, pods(&[(b, false)]));
    let backends = format!(r#"[{{"authority":"{canary}","weight":1}}]"#);
    operator.routes(&path, &format!(r#"{{"routes":[],"backends":{backends}}}"#));
    watched.until(|answer| !is_opaque(answer)).await;
    operator.endpoints(canary, pods(&[(b, true)]));
    watched.until(is_opaque).await;
}
