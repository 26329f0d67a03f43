//! What the webhook says of itself: liveness, readiness, metrics, and its answers to bad bodies.

use axum::http::StatusCode;
use serde_json::json;
use weir_webhook::serve::MAX_BODY;

use crate::{
    exchange::{get, inject, pod, send},
    fixture::{Authority, empty, filled},
    promtool,
};

#[tokio::test]
async fn ready_says_what_is_missing_until_nothing_is() {
    let fixture = empty(None);
    assert_eq!(
        get(&fixture, "/live").await,
        (StatusCode::OK, "live\n".to_owned())
    );
    let missing = (
        StatusCode::SERVICE_UNAVAILABLE,
        "waiting for the API server's Namespaces, Meshes, version, ConfigMap with the operator's authority\n".to_owned(),
    );
    assert_eq!(get(&fixture, "/ready").await, missing);

    let fixture = filled(json!({}));
    let (status, why) = get(&fixture, "/ready").await;
    assert_eq!(
        (status, why.as_str()),
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "waiting for the MutatingWebhookConfiguration to exist\n"
        )
    );
    let authority = Authority::new();
    fixture.hooks.send_replace(authority.hooks());
    let (status, why) = get(&fixture, "/ready").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(
        why.contains("inject.weir.io: caBundle does not verify the certificate being served"),
        "{why}"
    );
    fixture.serving.send_replace(authority.serving());
    assert_eq!(
        get(&fixture, "/ready").await,
        (StatusCode::OK, "ready\n".to_owned())
    );
    fixture.service.stopping.cancel();
    assert_eq!(
        get(&fixture, "/ready").await,
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "shutting down\n".to_owned()
        )
    );
}

#[tokio::test]
async fn metrics_count_reviews_and_decisions() {
    let fixture = filled(json!({}));
    inject(&fixture, &pod(json!({}))).await;
    inject(
        &fixture,
        &pod(json!({"labels": {"kuma.io/sidecar-injection": "no"}})),
    )
    .await;
    inject(
        &fixture,
        &pod(json!({"labels": {"kuma.io/mesh": "nowhere"}})),
    )
    .await;
    send(&fixture, "POST", "/default", b"nonsense".to_vec()).await;
    let expires = fixture.service.cluster.serving.borrow().expires;
    let (_, text) = get(&fixture, "/metrics").await;
    for line in [
        "weir_webhook_requests_total{endpoint=\"inject\",outcome=\"patched\"} 2",
        "weir_webhook_requests_total{endpoint=\"inject\",outcome=\"denied\"} 1",
        "weir_webhook_requests_total{endpoint=\"default\",outcome=\"bad_request\"} 1",
        "weir_webhook_request_duration_seconds_count{endpoint=\"inject\"} 3",
        "weir_webhook_decisions_total{decision=\"injected\",reason=\"asked\"} 1",
        "weir_webhook_decisions_total{decision=\"skipped\",reason=\"disabled\"} 1",
        "weir_webhook_decisions_total{decision=\"refused\",reason=\"unknown_mesh\"} 1",
        &format!("weir_webhook_certificate_expiration_timestamp_seconds {expires}"),
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "no line {line:?} in\n{text}"
        );
    }
    assert_eq!(promtool::said_of(&text), [] as [&str; 0]);
}

#[tokio::test]
async fn bad_bodies_are_told_and_large_ones_not_read() {
    let fixture = filled(json!({}));
    let (status, body) = send(&fixture, "POST", "/inject", b"{}".to_vec()).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(
        body.contains("expected AdmissionReview of admission.k8s.io/v1"),
        "{body}"
    );
    let (status, _) = send(&fixture, "POST", "/validate", vec![b' '; MAX_BODY + 1]).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
}
