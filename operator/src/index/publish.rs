//! Views that somebody watches, by key, in groups that one change concerns. Held by `discovery`. A key lives as long as
//! its watchers; a view that did not change wakes nobody. It knows nothing of what is shown.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use tokio::sync::watch;

/// The watched views; `G` is what changes, `K` what is watched of it.
#[derive(Debug)]
pub(super) struct Published<G, K, V> {
    groups: HashMap<G, HashMap<K, watch::Sender<Arc<V>>>>,
    /// How many views were made again.
    #[cfg(test)]
    pub(super) made: std::cell::Cell<usize>,
}

impl<G, K, V> Default for Published<G, K, V> {
    fn default() -> Self {
        Self {
            groups: HashMap::new(),
            #[cfg(test)]
            made: std::cell::Cell::default(),
        }
    }
}

impl<G: Eq + Hash + Clone, K: Eq + Hash, V: PartialEq> Published<G, K, V> {
    /// Watches a view, which `make` makes where nobody watches it yet. The group comes back as it is kept here, so that
    /// all who watch it share its names.
    pub(super) fn watch(
        &mut self,
        group: G,
        key: K,
        make: impl FnOnce(&G, &K) -> V,
    ) -> (G, watch::Receiver<Arc<V>>) {
        let group = match self.groups.get_key_value(&group) {
            Some((kept, _)) => kept.clone(),
            None => group,
        };
        let keys = self.groups.entry(group.clone()).or_default();
        let receiver = match keys.get(&key) {
            Some(sender) => sender.subscribe(),
            None => {
                let (sender, receiver) = watch::channel(Arc::new(make(&group, &key)));
                keys.insert(key, sender);
                receiver
            }
        };
        (group, receiver)
    }

    /// Makes the views of a group again and shows those that changed.
    pub(super) fn refresh(&self, group: &G, make: impl Fn(&G, &K) -> V) {
        for (key, sender) in self.groups.get(group).into_iter().flatten() {
            show(sender, make(group, key));
            #[cfg(test)]
            self.made.update(|made| made + 1);
        }
    }

    /// The groups that somebody watches.
    pub(super) fn groups(&self) -> impl Iterator<Item = &G> {
        self.groups.keys()
    }

    /// Forgets a key whose last receiver is about to go.
    pub(super) fn release(&mut self, group: &G, key: &K) {
        let Some(keys) = self.groups.get_mut(group) else {
            return;
        };
        if keys
            .get(key)
            .is_some_and(|sender| sender.receiver_count() <= 1)
        {
            keys.remove(key);
        }
        if keys.is_empty() {
            self.groups.remove(group);
        }
    }

    /// How many keys are watched.
    pub(super) fn len(&self) -> usize {
        self.groups.values().map(HashMap::len).sum()
    }
}

fn show<V: PartialEq>(sender: &watch::Sender<Arc<V>>, view: V) {
    sender.send_if_modified(|shown| {
        let changed = **shown != view;
        if changed {
            *shown = Arc::new(view);
        }
        changed
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watchers_of_a_group_share_its_name() {
        let mut published = Published::<Arc<str>, u16, u16>::default();
        let (first, _one) = published.watch("web".into(), 1, |_, key| *key);
        for key in [1, 2] {
            let (next, receiver) = published.watch("web".into(), key, |_, key| *key);
            assert!(Arc::ptr_eq(&first, &next));
            assert_eq!(**receiver.borrow(), key);
        }
    }
}
