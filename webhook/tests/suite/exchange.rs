//! Sends reviews through the router and reads the answers. Used by the tests of reviews and health.

use axum::{
    body::Body,
    http::{Request, StatusCode},
};
use http_body_util::BodyExt;
use k8s_openapi::ByteString;
use serde_json::{Value, json};
use tower::ServiceExt;
use weir_webhook::serve::router;

use crate::fixture::Fixture;

pub(crate) async fn send(
    fixture: &Fixture,
    method: &str,
    path: &str,
    body: Vec<u8>,
) -> (StatusCode, String) {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", "application/json");
    let request = request
        .body(Body::from(body))
        .expect("the webhook answers with a review");
    let response = router(fixture.service.clone())
        .oneshot(request)
        .await
        .expect("the webhook answers with a review");
    let status = response.status();
    let body = response
        .into_body()
        .collect()
        .await
        .expect("the webhook answers with a review")
        .to_bytes();
    (
        status,
        String::from_utf8(body.to_vec()).expect("the webhook answers with a review"),
    )
}

pub(crate) async fn get(fixture: &Fixture, path: &str) -> (StatusCode, String) {
    send(fixture, "GET", path, Vec::new()).await
}

/// The `response` of a review of `request`.
pub(crate) async fn review(fixture: &Fixture, path: &str, mut request: Value) -> Value {
    request["uid"] = json!("uid-1");
    let body =
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request});
    let (status, body) = send(fixture, "POST", path, body.to_string().into_bytes()).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let review: Value = serde_json::from_str(&body).expect("the webhook answers with a review");
    assert_eq!(
        (&review["apiVersion"], &review["kind"]),
        (&json!("admission.k8s.io/v1"), &json!("AdmissionReview"))
    );
    assert_eq!(review["response"]["uid"], "uid-1");
    review["response"].clone()
}

pub(crate) fn creation(pod: &Value) -> Value {
    json!({"kind": {"group": "", "version": "v1", "kind": "Pod"}, "operation": "CREATE", "namespace": "shop", "object": pod})
}

pub(crate) async fn inject(fixture: &Fixture, pod: &Value) -> Value {
    review(fixture, "/inject", creation(pod)).await
}

/// `before` with the answer's patch applied.
pub(crate) fn patched(before: &Value, response: &Value) -> Value {
    assert_eq!(response["patchType"], "JSONPatch", "{response}");
    let patch: ByteString = serde_json::from_value(response["patch"].clone())
        .expect("the webhook answers with a review");
    let patch: json_patch::Patch =
        serde_json::from_slice(&patch.0).expect("the webhook answers with a review");
    let mut after = before.clone();
    json_patch::patch(&mut after, &patch).expect("the webhook answers with a review");
    after
}

pub(crate) fn pod(metadata: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata,
           "spec": {"containers": [{"name": "app", "image": "app:1", "fieldOfTomorrow": {"kept": true}}]}})
}

pub(crate) fn message(response: &Value) -> &str {
    assert_eq!(response["allowed"], false, "{response}");
    assert_eq!(response["status"]["code"], 422);
    assert_eq!(response["status"]["reason"], "Invalid");
    response["status"]["message"]
        .as_str()
        .expect("the webhook answers with a review")
}
