//! What those who scrape proxies ask the index: which there are.

use std::sync::Arc;

use super::{Discovery, Source};
use crate::index::pod::Pod;

impl Discovery {
    /// The pods that have a [`Pod::proxy`], by namespace and name; `None` before the pods were listed once.
    #[must_use]
    pub fn proxies(&self) -> Option<Vec<Arc<Pod>>> {
        let mut found = {
            let cluster = self.lock();
            if !cluster.listed.contains(&Source::Pods) {
                return None;
            }
            let pods = cluster.facts.pods.values().flat_map(|names| names.values());
            let pods = pods.filter(|pod| pod.proxy().is_some());
            pods.cloned().collect::<Vec<_>>()
        };
        found.sort_unstable_by(|one, other| one.workload.pod.cmp(&other.workload.pod));
        Some(found)
    }
}
