//! One watch of one kind, shared by everybody in a component who cares for it.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};

use kube::runtime::watcher::{Config, Event};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use crate::watch::follow;
use crate::{Change, Component, ObjectKey, Store};

type Handler<K> = Box<dyn Fn(&Change<'_, K>) + Send>;

/// What of a kind is watched, and what of each object is kept.
#[derive(Debug, Clone)]
pub struct InformerOptions<K> {
    /// A label selector in text form; empty for all objects.
    pub labels: String,
    /// A field selector in text form; empty for all objects.
    pub fields: String,
    /// Removes from each object what nobody in the component reads. `metadata.managedFields` is always removed.
    pub trim: Option<fn(&mut K)>,
}

impl<K> Default for InformerOptions<K> {
    fn default() -> Self {
        Self { labels: String::new(), fields: String::new(), trim: None }
    }
}

/// A handle to a running watch and its [`Store`]. Cheap to clone; the watch ends with its [`Component`].
pub struct Informer<K> {
    store: Store<K>,
    handlers: Arc<Mutex<Vec<Handler<K>>>>,
    synced: Arc<watch::Sender<bool>>,
    changed: Arc<watch::Sender<u64>>,
}

impl<K> Clone for Informer<K> {
    fn clone(&self) -> Self {
        Self {
            store: self.store.clone(),
            handlers: Arc::clone(&self.handlers),
            synced: Arc::clone(&self.synced),
            changed: Arc::clone(&self.changed),
        }
    }
}

/// The component ended before an informer had its first complete list.
#[derive(Debug, thiserror::Error)]
#[error("shut down before the first list of objects was complete")]
pub struct NeverSynced;

/// Returns when all the given informers hold a complete list.
///
/// # Errors
/// [`NeverSynced`] if the component is shut down first.
pub async fn wait_for_sync(component: &Component, synced: &[watch::Receiver<bool>]) -> Result<(), NeverSynced> {
    for receiver in synced {
        let mut receiver = receiver.clone();
        tokio::select! {
            () = component.shutdown.cancelled() => return Err(NeverSynced),
            reached = receiver.wait_for(|synced| *synced) => reached.map(drop).map_err(|_| NeverSynced)?,
        }
    }
    Ok(())
}

impl<K> Informer<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    /// Starts to list and watch the objects of `api`; with an `Api<PartialObjectMeta<K>>` only their metadata.
    #[must_use]
    pub fn start(component: &Component, api: Api<K>, options: InformerOptions<K>) -> Self {
        let informer = Self::idle();
        let (filler, owner) = (Filler::new(informer.clone(), options.trim), component.clone());
        component.spawn_vital("informer", async move {
            let mut filler = filler;
            follow(&owner, api, config(&options.labels, &options.fields), |event| filler.on_event(event)).await;
        });
        informer
    }

    /// Starts to list and watch all objects of a kind, in all namespaces.
    #[must_use]
    pub fn all(component: &Component) -> Self
    where
        K: Resource<DynamicType = ()>,
    {
        Self::start(component, Api::all(component.client.clone()), InformerOptions::default())
    }
}

impl<K: Resource> Informer<K> {
    fn idle() -> Self {
        Self {
            store: Store::empty(),
            handlers: Arc::default(),
            synced: Arc::new(watch::Sender::new(false)),
            changed: Arc::new(watch::Sender::new(0)),
        }
    }

    /// The objects as they are known now.
    #[must_use]
    pub fn store(&self) -> &Store<K> {
        &self.store
    }

    /// Becomes true when the store holds a complete list, and stays true.
    #[must_use]
    pub fn synced(&self) -> watch::Receiver<bool> {
        self.synced.subscribe()
    }

    /// Changes its number after every change of the store; for readers that look at the store as a whole.
    #[must_use]
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Calls `handler` for every object that is in the store, then for every change, one at a time and in order.
    ///
    /// The store already shows the change. A handler runs in the informer's task: it only records what has to
    /// be done (usually: adds a key to a [`crate::WorkQueue`]), never waits, and never registers handlers of
    /// the same informer.
    pub fn on_change(&self, handler: impl Fn(&Change<'_, K>) + Send + 'static) {
        let mut handlers = self.handlers.lock().unwrap_or_else(PoisonError::into_inner);
        for object in self.store.list() {
            handler(&Change::Added(&object));
        }
        handlers.push(Box::new(handler));
    }

    fn put(&self, object: K) {
        let object = Arc::new(object);
        let handlers = self.handlers.lock().unwrap_or_else(PoisonError::into_inner);
        match self.store.insert(&object) {
            // A relist shows everything again; what did not change is no news.
            Some(old) if old.meta().resource_version == object.meta().resource_version => {}
            Some(old) => self.tell(&handlers, &Change::Updated { old: &old, new: &object }),
            None => self.tell(&handlers, &Change::Added(&object)),
        }
    }

    fn remove(&self, key: &ObjectKey) {
        let handlers = self.handlers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(old) = self.store.remove(key) {
            self.tell(&handlers, &Change::Removed(&old));
        }
    }

    fn tell(&self, handlers: &[Handler<K>], change: &Change<'_, K>) {
        for handler in handlers {
            handler(change);
        }
        self.changed.send_modify(|version| *version = version.wrapping_add(1));
    }
}

fn config(labels: &str, fields: &str) -> Config {
    let mut config = Config::default();
    if !labels.is_empty() {
        config = config.labels(labels);
    }
    if !fields.is_empty() {
        config = config.fields(fields);
    }
    config
}

/// Turns the events of a watch into changes of the store. Objects of a list go in at once; those that a
/// complete list no longer shows go out at its end, so that readers never see an empty store in between.
struct Filler<K> {
    informer: Informer<K>,
    trim: Option<fn(&mut K)>,
    missing: BTreeSet<ObjectKey>,
}

impl<K: Resource> Filler<K> {
    fn new(informer: Informer<K>, trim: Option<fn(&mut K)>) -> Self {
        Self { informer, trim, missing: BTreeSet::new() }
    }

    fn on_event(&mut self, event: Event<K>) {
        match event {
            Event::Init => self.missing = self.informer.store.keys().into_iter().collect(),
            Event::InitApply(object) => {
                self.missing.remove(&ObjectKey::of(&object));
                self.informer.put(self.trimmed(object));
            }
            Event::InitDone => {
                for key in std::mem::take(&mut self.missing) {
                    self.informer.remove(&key);
                }
                self.informer.synced.send_replace(true);
            }
            Event::Apply(object) => self.informer.put(self.trimmed(object)),
            Event::Delete(object) => self.informer.remove(&ObjectKey::of(&object)),
        }
    }

    fn trimmed(&self, mut object: K) -> K {
        object.meta_mut().managed_fields = None;
        if let Some(trim) = self.trim {
            trim(&mut object);
        }
        object
    }
}

#[cfg(test)]
#[path = "informer_tests.rs"]
mod tests;
