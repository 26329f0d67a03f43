//! Destinations of a service's requests that are named before they are there.

use std::collections::BTreeSet;

use tonic::Code;
use weir_proxy::destinations::Answer;

use crate::connection::web;
use crate::desk::{connection, following, service, start, until};
use crate::discovery::{LOOPBACK, WEB, pods};
use crate::operator::{Endpoints, Operator};

fn endpoints(answer: &Answer) -> BTreeSet<String> {
    service(answer).1.into_iter().collect()
}

#[tokio::test]
async fn a_destination_that_is_not_there_yet_is_asked_for_again() {
    let operator = Operator::new(None);
    let serving = operator.serve(LOOPBACK).await;
    web(&operator, "10.96.0.1:80");
    let path = format!("{WEB}:80");
    let canary = "canary.shop.svc.cluster.local:80";
    operator.endpoints(canary, Endpoints::Refused(Code::NotFound));
    let backends = format!(
        r#"[{{"authority":"{path}","weight":900}},{{"authority":"{canary}","weight":100}}]"#
    );
    operator.routes(&path, &format!(r#"{{"routes":[],"backends":{backends}}}"#));
    let running = start(connection(serving.addr), following());
    let (mut watched, answer) = running.learn("10.96.0.1:80").await;
    assert_eq!(endpoints(&answer), ["10.1.0.1:8080".to_owned()].into());
    until("it is asked for again", || operator.times(canary) > 1).await;
    operator.endpoints(canary, pods(&[("10.1.2.1:8080", "c")]));
    let both = ["10.1.0.1:8080", "10.1.2.1:8080"].map(str::to_owned);
    let is_both = |answer: &Answer| endpoints(answer) == both.clone().into();
    watched.until(is_both).await;
    // It goes and comes back.
    operator.endpoints(canary, Endpoints::Refused(Code::NotFound));
    watched.until(|answer| endpoints(answer).len() == 1).await;
    operator.endpoints(canary, pods(&[("10.1.2.1:8080", "c")]));
    watched.until(is_both).await;
}
