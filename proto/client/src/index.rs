//! Finds the objects of an informer by something other than their name.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::sync::{Arc, PoisonError, RwLock};

use kube::Resource;

use crate::{Informer, ObjectKey, Store};

/// A secondary index over an informer's store, kept up to date by its changes. Cheap to clone.
///
/// Made before the handlers that use it, it already shows a change when they are told of it.
pub struct Index<V, K> {
    entries: Arc<RwLock<HashMap<V, BTreeSet<ObjectKey>>>>,
    store: Store<K>,
}

impl<V, K> Clone for Index<V, K> {
    fn clone(&self) -> Self {
        Self { entries: Arc::clone(&self.entries), store: self.store.clone() }
    }
}

impl<V, K> Index<V, K>
where
    V: Hash + Eq + Send + Sync + 'static,
    K: Resource + Send + Sync + 'static,
{
    /// An index by the values that `values` reads from each object.
    pub fn new(informer: &Informer<K>, values: impl Fn(&K) -> Vec<V> + Send + 'static) -> Self {
        let entries: Arc<RwLock<HashMap<V, BTreeSet<ObjectKey>>>> = Arc::default();
        let written = Arc::clone(&entries);
        informer.on_change(move |change| {
            let mut entries = written.write().unwrap_or_else(PoisonError::into_inner);
            let key = ObjectKey::of(change.object().as_ref());
            for value in change.old().map(|old| values(old)).unwrap_or_default() {
                if let Some(keys) = entries.get_mut(&value) {
                    keys.remove(&key);
                    if keys.is_empty() {
                        entries.remove(&value);
                    }
                }
            }
            for value in change.new().map(|new| values(new)).unwrap_or_default() {
                entries.entry(value).or_default().insert(key.clone());
            }
        });
        Self { entries, store: informer.store().clone() }
    }

    /// The objects with that value, sorted by namespace and name.
    #[must_use]
    pub fn get(&self, value: &V) -> Vec<Arc<K>> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        entries.get(value).into_iter().flatten().filter_map(|key| self.store.get_key(key)).collect()
    }
}
