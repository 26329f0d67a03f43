//! The metrics of the monitoring server: who was told what there is to scrape. Counted by `monitoring`, printed with the
//! others. Label values are enums; it knows no connection.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

label! {
    /// What became of a request.
    Outcome {
        /// The proxies were listed.
        Listed = "listed",
        /// The pods are not known yet; who asks keeps the list of before.
        Unavailable = "unavailable",
        /// There is no such path or method.
        Refused = "refused",
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    outcome: Outcome,
}

/// A handle to the series. Clones count into the same series.
#[derive(Clone, Debug, Default)]
pub struct Monitoring(Family<Labels, Counter>);

impl Monitoring {
    /// Adds the family to a registry.
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "monitoring_requests",
            "Requests for what there is to scrape by what became of them",
            self.0.clone(),
        );
    }

    /// Counts a request.
    pub fn count_request(&self, outcome: Outcome) {
        self.0.get_or_create(&Labels { outcome }).inc();
    }
}
