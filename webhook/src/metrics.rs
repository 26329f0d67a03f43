//! The webhook's own metrics. Written by `serve`, exposed at `/metrics`.
//! Label values come from fixed sets, never from what a user writes.

use std::time::Duration;

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    endpoint: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndpointLabels {
    endpoint: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DecisionLabels {
    decision: &'static str,
    reason: &'static str,
}

/// All families of the webhook.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    duration: Family<EndpointLabels, Histogram>,
    decisions: Family<DecisionLabels, Counter>,
    certificate_expiration: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let metrics = Self {
            registry: Registry::with_prefix("weir_webhook"),
            requests: Family::default(),
            duration: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(0.000_5, 2.0, 13))
            }),
            decisions: Family::default(),
            certificate_expiration: Gauge::default(),
        };
        metrics.register()
    }
}

impl Metrics {
    fn register(mut self) -> Self {
        let registry = &mut self.registry;
        registry.register(
            "requests",
            "Reviews answered, by endpoint and outcome",
            self.requests.clone(),
        );
        registry.register_with_unit(
            "request_duration",
            "Time from a review's arrival to its answer",
            Unit::Seconds,
            self.duration.clone(),
        );
        registry.register(
            "decisions",
            "Pods seen, by injection decision and reason",
            self.decisions.clone(),
        );
        registry.register(
            "certificate_expiration_timestamp_seconds",
            "When the served certificate ends, in seconds since 1970",
            self.certificate_expiration.clone(),
        );
        self
    }

    /// Counts one review and the time it took.
    pub fn reviewed(&self, endpoint: &'static str, outcome: &'static str, took: Duration) {
        self.requests
            .get_or_create(&RequestLabels { endpoint, outcome })
            .inc();
        self.duration
            .get_or_create(&EndpointLabels { endpoint })
            .observe(took.as_secs_f64());
    }

    /// Counts one decision on a pod.
    pub fn decided(&self, decision: &'static str, reason: &'static str) {
        self.decisions
            .get_or_create(&DecisionLabels { decision, reason })
            .inc();
    }

    /// The exposition in OpenMetrics 1.0; `certificate_expiration` in seconds since 1970.
    pub fn expose(&self, certificate_expiration: i64) -> String {
        self.certificate_expiration.set(certificate_expiration);
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to a String cannot fail");
        text
    }
}
