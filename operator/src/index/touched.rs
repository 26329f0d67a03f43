//! The pods whose Dataplane may have to change. Kept by `discovery`; the writer of Dataplanes takes them. At most one
//! entry a pod, so nothing grows where nobody takes them.

use std::collections::BTreeSet;

use tokio::sync::watch;

use super::facts::Facts;
use super::pod::{ObjectKey, Pod};
use super::service::Service;

/// Pods to look at again, and a count that moves when there are more.
#[derive(Debug, Default)]
pub(super) struct Touched {
    pods: BTreeSet<ObjectKey>,
    moved: watch::Sender<u64>,
}

impl Touched {
    /// Moves when there is something to take.
    pub(super) fn moved(&self) -> watch::Receiver<u64> {
        self.moved.subscribe()
    }

    pub(super) fn touch(&mut self, pod: ObjectKey) {
        if self.pods.insert(pod) {
            self.ring();
        }
    }

    /// Wakes whoever takes.
    pub(super) fn ring(&self) {
        self.moved.send_modify(|count| *count += 1);
    }

    /// Every injected pod for which `test` holds.
    pub(super) fn touch_where(&mut self, facts: &Facts, test: impl Fn(&Pod) -> bool) {
        let pods = facts.pods.values().flat_map(|names| names.values());
        let pods = pods.filter(|pod| pod.injected.is_some() && test(pod));
        let keys: Vec<ObjectKey> = pods.map(|pod| pod.workload.pod.clone()).collect();
        for key in keys {
            self.touch(key);
        }
    }

    /// Every injected pod of a namespace that one of these Services selects.
    pub(super) fn touch_selected<'a>(
        &mut self,
        facts: &Facts,
        namespace: &str,
        services: impl Iterator<Item = &'a Service>,
    ) {
        let Some(pods) = facts.pods.get(namespace) else {
            return;
        };
        for service in services {
            let selected = pods.values().filter(|pod| service.selects(pod));
            for pod in selected {
                self.touch(pod.workload.pod.clone());
            }
        }
    }

    /// Takes everything.
    pub(super) fn take(&mut self) -> Vec<ObjectKey> {
        std::mem::take(&mut self.pods).into_iter().collect()
    }
}
