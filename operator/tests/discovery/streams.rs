//! How streams of the Destination service begin, are refused, bounded and ended.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use linkerd2_proxy_api::destination::DestinationProfile;
use serde_json::json;
use tonic::Code;

use crate::client::{DEADLINE, Running, STREAMS, next};
use crate::scene::{service, with};

#[tokio::test]
async fn names_of_nothing_are_refused_as_linkerd_refuses_them() {
    let mut running = Running::listed().await;
    let external = json!({"spec": {"type": "ExternalName", "externalName": "db.example", "clusterIP": null, "clusterIPs": null}});
    running
        .scene
        .service(with(service("db", "10.96.0.1"), external));
    for (path, code) in [
        ("web.shop.svc.cluster.local:80", Code::NotFound),
        ("web-0.web.shop.svc.cluster.local:80", Code::NotFound),
        ("db.shop.svc.cluster.local:80", Code::InvalidArgument),
        ("web.shop:80", Code::InvalidArgument),
        ("example.com:443", Code::InvalidArgument),
        ("web.shop.svc.cluster.local:http", Code::InvalidArgument),
        ("", Code::InvalidArgument),
    ] {
        let status = running.get(path, "").await.unwrap_err();
        assert_eq!(status.code(), code, "{path}: {}", status.message());
    }
    for path in ["example.com:443", "web.shop:80", "a:b:c"] {
        let status = running.profile(path).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{path}");
    }
}

#[tokio::test]
async fn nothing_is_said_before_the_cluster_is_listed() {
    let mut running = Running::start().await;
    let status = running
        .get("web.shop.svc.cluster.local:80", "")
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    let status = running.profile("10.0.0.1:80").await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    running.scene.list_nothing();
    let mut profile = running.profile("10.0.0.1:80").await.unwrap();
    assert_eq!(next(&mut profile).await, DestinationProfile::default());
}

#[tokio::test]
async fn streams_are_bounded_and_give_their_room_back() {
    let mut running = Running::listed().await;
    let mut streams = Vec::new();
    for number in 0..STREAMS {
        let mut stream = running
            .profile(&format!("10.0.0.{number}:80"))
            .await
            .unwrap();
        next(&mut stream).await;
        streams.push(stream);
    }
    assert_eq!(running.scene.index.watched(), STREAMS);
    let status = running.profile("10.0.1.1:80").await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    drop(streams);
    let index = running.scene.index.clone();
    let released = async {
        while index.watched() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, released).await.unwrap();
    assert!(running.profile("10.0.1.1:80").await.is_ok());
}

#[tokio::test]
async fn a_stop_ends_the_streams() {
    let mut running = Running::listed().await;
    let mut stream = running.profile("10.0.0.1:80").await.unwrap();
    next(&mut stream).await;
    running.stop.cancel();
    let ended = tokio::time::timeout(DEADLINE, stream.message())
        .await
        .unwrap();
    assert_eq!(ended.unwrap_err().code(), Code::Unavailable);
    drop(running.client);
    tokio::time::timeout(DEADLINE, running.task)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(running.scene.index.watched(), 0);
}
