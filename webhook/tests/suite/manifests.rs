//! What the API server asks the webhook, and what it does where the webhook is away, as `manifests/webhook` has it.

use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhook, MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use serde::Deserialize;

const CONFIGURATIONS: &str = include_str!("../../../manifests/webhook/configurations.yaml");

fn mutating() -> Vec<MutatingWebhook> {
    let first = serde_yaml::Deserializer::from_str(CONFIGURATIONS).next();
    let read = MutatingWebhookConfiguration::deserialize(first.unwrap()).unwrap();
    read.webhooks.unwrap()
}

#[test]
fn a_webhook_that_is_away_keeps_no_pod_from_starting() {
    let hooks = mutating();
    assert_eq!(hooks.len(), 2);
    for hook in &hooks {
        assert_eq!(
            hook.failure_policy.as_deref(),
            Some("Ignore"),
            "{}",
            hook.name
        );
        assert_eq!(hook.timeout_seconds, Some(3), "{}", hook.name);
    }
}

#[test]
fn pods_of_the_system_are_not_asked_about() {
    let hooks = mutating();
    let inject = hooks.iter().find(|hook| hook.name == "inject.weir.io");
    let selector = inject.unwrap().namespace_selector.as_ref().unwrap();
    let [rule] = selector.match_expressions.as_deref().unwrap() else {
        panic!("{selector:?}");
    };
    assert_eq!(rule.key, "kubernetes.io/metadata.name");
    assert_eq!(rule.operator, "NotIn");
    assert_eq!(
        rule.values.as_deref().unwrap(),
        ["kube-system", "kuma-system"]
    );
}

/// No pod is among them: whoever writes one of our resources hears that nobody has judged it.
#[test]
fn only_our_resources_wait_for_the_webhook() {
    let second = serde_yaml::Deserializer::from_str(CONFIGURATIONS).nth(1);
    let read = ValidatingWebhookConfiguration::deserialize(second.unwrap()).unwrap();
    for hook in read.webhooks.unwrap() {
        for rule in hook.rules.unwrap() {
            assert_eq!(rule.api_groups.unwrap(), ["kuma.io"], "{}", hook.name);
        }
    }
}
