//! What the operator's tests share: where things are in the API, the objects a user brings, and
//! waiting for a condition with a deadline.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::time::Duration;

use jiff::SignedDuration;
use serde_json::{Value, json};
use tokio::time::Instant;
use weir_operator::metrics::Certificate;
use weir_operator::{ca, leader};

use crate::api::Api;

pub(crate) const SECRETS: &str = "/api/v1/namespaces/kuma-system/secrets";
pub(crate) const MUTATING: &str =
    "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
pub(crate) const VALIDATING: &str =
    "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";

const DEADLINE: Duration = Duration::from_secs(20);

/// Waits until `found` finds something.
pub(crate) async fn eventually<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(value) = found() {
            return value;
        }
        assert!(Instant::now() < end, "in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The content of a Secret of a Mesh.
pub(crate) fn mesh_secret(value: &str) -> Value {
    let value = k8s_openapi::ByteString(value.as_bytes().to_vec());
    json!({"type": "system.kuma.io/secret", "data": {"value": value}})
}

/// Applies both webhook configurations as the manifests have them: without a bundle.
pub(crate) fn apply_webhooks(api: &Api) {
    let client = json!({"service": {"name": "weir-webhook", "namespace": "kuma-system"}});
    let entry = |name: &str| {
        json!({"name": name, "clientConfig": client, "sideEffects": "None",
            "admissionReviewVersions": ["v1"]})
    };
    for (collection, names) in [
        (MUTATING, vec!["inject.weir.io", "default.weir.io"]),
        (VALIDATING, vec!["validate.weir.io"]),
    ] {
        let entries: Vec<Value> = names.into_iter().map(entry).collect();
        api.put(
            collection,
            json!({"metadata": {"name": "weir-webhook"}, "webhooks": entries}),
        );
    }
}

/// The bundle of every entry of both configurations, decoded; `None` where one lacks it.
pub(crate) fn bundles(api: &Api) -> Option<Vec<String>> {
    let mut bundles = Vec::new();
    for collection in [MUTATING, VALIDATING] {
        let configuration = api.get(collection, "weir-webhook")?;
        for entry in configuration["webhooks"].as_array()? {
            bundles.push(decode(&entry["clientConfig"]["caBundle"])?);
        }
    }
    Some(bundles)
}

/// One value of a Secret, decoded.
pub(crate) fn secret(api: &Api, name: &str, key: &str) -> Option<String> {
    decode(&api.get(SECRETS, name)?["data"][key])
}

fn decode(value: &Value) -> Option<String> {
    let bytes: k8s_openapi::ByteString = serde_json::from_value(value.clone()).ok()?;
    String::from_utf8(bytes.0)
        .ok()
        .filter(|text| !text.is_empty())
}

pub(crate) fn certificates() -> ca::Config {
    ca::Config {
        server: "webhook",
        metrics: [Certificate::Authority, Certificate::Webhook],
        namespace: "kuma-system".to_owned(),
        authority_secret: "weir-ca".to_owned(),
        serving_secret: "weir-webhook-tls".to_owned(),
        service: "weir-webhook".to_owned(),
        cluster_domain: "cluster.local".to_owned(),
        publish: ca::Publish::Webhooks("weir-webhook".to_owned()),
        authority_validity: SignedDuration::from_hours(24 * 360),
        serving_validity: SignedDuration::from_hours(24 * 90),
    }
}

pub(crate) fn operator(identity: &str) -> weir_operator::app::Config {
    weir_operator::app::Config {
        http_address: Some(([127, 0, 0, 1], 0).into()),
        monitoring_address: Some(([127, 0, 0, 1], 0).into()),
        create_default_mesh: true,
        // It serves on for as long when it is to end, which every test waits for.
        shutdown: Duration::from_millis(300),
        leader: leader::Config {
            namespace: "kuma-system".to_owned(),
            lease: "weir-operator".to_owned(),
            identity: identity.to_owned(),
            duration: Duration::from_secs(15),
            silence: Duration::from_secs(60),
        },
        ca: certificates(),
        own_ca: ca::Config {
            server: "operator",
            metrics: [Certificate::OperatorAuthority, Certificate::Operator],
            authority_secret: "weir-operator-ca".to_owned(),
            serving_secret: "weir-operator-tls".to_owned(),
            service: "weir-operator".to_owned(),
            publish: ca::Publish::ConfigMap("weir-operator-ca".to_owned()),
            ..certificates()
        },
        grpc: weir_operator::app::Grpc {
            address: Some(([127, 0, 0, 1], 0).into()),
            plaintext: false,
            limits: weir_operator::serve::Limits::default(),
        },
        trust_domain: "cluster.local".to_owned(),
        index: weir_operator::index::Config::default(),
        zone: None,
    }
}
