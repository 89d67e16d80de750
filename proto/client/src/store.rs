//! The copy of one kind that an informer keeps, readable by everybody in the component.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock};

use kube::Resource;

use crate::ObjectKey;

/// What happened to one object, as far as the store saw it. States between two events may have been skipped.
#[derive(Debug)]
pub enum Change<'a, K> {
    /// The object was not in the store before.
    Added(&'a Arc<K>),
    /// The object was in the store in another version, or (same UID or not) in another life.
    Updated {
        /// The version that the store held.
        old: &'a Arc<K>,
        /// The version that the store holds now.
        new: &'a Arc<K>,
    },
    /// The object is gone; this is the last version that the store held.
    Removed(&'a Arc<K>),
}

impl<K> Change<'_, K> {
    /// The newest version known: the current one, or the last one of a removed object.
    #[must_use]
    pub fn object(&self) -> &Arc<K> {
        match self {
            Self::Added(object) | Self::Updated { new: object, .. } | Self::Removed(object) => object,
        }
    }

    /// The version before this change, if there was one.
    #[must_use]
    pub fn old(&self) -> Option<&Arc<K>> {
        match self {
            Self::Added(_) => None,
            Self::Updated { old, .. } | Self::Removed(old) => Some(old),
        }
    }

    /// The version after this change; `None` once the object is gone.
    #[must_use]
    #[allow(clippy::new_ret_no_self, reason = "the opposite of `old`, not a constructor")]
    pub fn new(&self) -> Option<&Arc<K>> {
        match self {
            Self::Added(new) | Self::Updated { new, .. } => Some(new),
            Self::Removed(_) => None,
        }
    }
}

/// A read-only view of an informer's objects. Cheap to clone. Its only writer is the informer's task.
#[derive(Debug)]
pub struct Store<K> {
    objects: Arc<RwLock<BTreeMap<ObjectKey, Arc<K>>>>,
}

impl<K> Clone for Store<K> {
    fn clone(&self) -> Self {
        Self { objects: Arc::clone(&self.objects) }
    }
}

impl<K> Store<K> {
    pub(crate) fn empty() -> Self {
        Self { objects: Arc::new(RwLock::new(BTreeMap::new())) }
    }

    /// The object of that namespace (empty for kinds without) and name.
    #[must_use]
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.get_key(&ObjectKey::new(namespace, name))
    }

    /// The object of that key.
    #[must_use]
    pub fn get_key(&self, key: &ObjectKey) -> Option<Arc<K>> {
        self.read(|objects| objects.get(key).cloned())
    }

    /// All objects, sorted by namespace and name.
    #[must_use]
    pub fn list(&self) -> Vec<Arc<K>> {
        self.read(|objects| objects.values().cloned().collect())
    }

    /// The objects of one namespace, sorted by name; costs no more than what it returns.
    #[must_use]
    pub fn list_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        let from = Bound::Included(ObjectKey::new(namespace, ""));
        self.read(|objects| {
            let in_namespace =
                objects.range((from, Bound::Unbounded)).take_while(|(key, _)| key.namespace == namespace);
            in_namespace.map(|(_, object)| Arc::clone(object)).collect()
        })
    }

    /// How many objects there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.read(BTreeMap::len)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The keys of all objects.
    pub(crate) fn keys(&self) -> Vec<ObjectKey> {
        self.read(|objects| objects.keys().cloned().collect())
    }

    pub(crate) fn remove(&self, key: &ObjectKey) -> Option<Arc<K>> {
        self.objects.write().unwrap_or_else(PoisonError::into_inner).remove(key)
    }

    fn read<R>(&self, read: impl FnOnce(&BTreeMap<ObjectKey, Arc<K>>) -> R) -> R {
        read(&self.objects.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<K: Resource> Store<K> {
    /// Puts an object in; returns the version that it replaces.
    pub(crate) fn insert(&self, object: &Arc<K>) -> Option<Arc<K>> {
        let key = ObjectKey::of(object.as_ref());
        self.objects.write().unwrap_or_else(PoisonError::into_inner).insert(key, Arc::clone(object))
    }
}
