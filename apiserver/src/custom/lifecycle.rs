//! Follows the CustomResourceDefinitions and does what follows from each change.
//!
//! One task: names are given one definition at a time. It acts on the newest state of a definition, never on an
//! event's content alone; what it writes comes back as an event and changes nothing more.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::StreamExt as _;
use reeve_kinds::Part;
use reeve_store::Revision;
use serde_json::Value;
use tokio::task::JoinHandle;
use tracing::warn;

use super::status::{self, Taken};
use super::webhook::Webhooks;
use super::{cleanup, convert, offer, own_request};
use crate::registry::{Body, EventType, Object, Registry, Request, Resource, Subresource};
use crate::status::ApiError;

/// Pause before the definitions are watched anew after a failure.
const RETRY: Duration = Duration::from_secs(1);

/// Serves what is defined, then follows the changes.
pub(super) async fn start(registry: &Arc<Registry>, definitions: Arc<Resource>) -> Result<(), ApiError> {
    let mut life = Life {
        webhooks: Arc::new(Webhooks::new(registry)),
        definitions: Arc::clone(&definitions),
        known: BTreeMap::new(),
        cleanups: HashMap::new(),
    };
    let revision = life.pass(registry).await?;
    let (stop, registry) = (registry.cache.stop.clone(), Arc::downgrade(registry));
    tokio::spawn(async move { stop.run_until_cancelled(life.follow(registry, revision)).await });
    Ok(())
}

/// What is remembered of a definition.
struct Known {
    group: String,
    /// The names it was granted.
    accepted: Value,
    /// Whether it was granted all it wants.
    content: bool,
    /// What is offered: everything that an offer is made of, and its schemas.
    offered: Option<(Value, [u8; 32])>,
}

struct Life {
    webhooks: Arc<Webhooks>,
    definitions: Arc<Resource>,
    known: BTreeMap<String, Known>,
    cleanups: HashMap<String, JoinHandle<()>>,
}

impl Drop for Life {
    fn drop(&mut self) {
        self.cleanups.values().for_each(JoinHandle::abort);
    }
}

impl Life {
    async fn follow(mut self, registry: Weak<Registry>, mut revision: Revision) {
        loop {
            let Some(strong) = registry.upgrade() else { return };
            let mut request = own_request(Arc::clone(&self.definitions), "");
            request.options.resource_version = revision.to_string();
            let watch = strong.watch(&request).await;
            drop(strong);
            match watch {
                Ok(mut events) => {
                    while let Some(Ok(event)) = events.next().await {
                        let Some(registry) = registry.upgrade() else { return };
                        self.event(&registry, event.kind, event.object.value()).await;
                    }
                }
                Err(error) => warn!(%error, "Custom resource definitions cannot be watched; trying again."),
            }
            tokio::time::sleep(RETRY).await;
            let Some(strong) = registry.upgrade() else { return };
            match self.pass(&strong).await {
                Ok(newer) => revision = newer,
                Err(error) => warn!(%error, "Custom resource definitions cannot be read; trying again."),
            }
        }
    }

    /// Looks at every definition there is, and withdraws those that are gone; as of the revision it gives.
    async fn pass(&mut self, registry: &Arc<Registry>) -> Result<Revision, ApiError> {
        let list = registry.list(&own_request(Arc::clone(&self.definitions), "")).await?;
        let crds: Vec<Value> = list.items.iter().map(Object::value).collect();
        let there: BTreeSet<&str> = crds.iter().filter_map(|crd| crd["metadata"]["name"].as_str()).collect();
        let gone: Vec<String> = self.known.keys().filter(|name| !there.contains(name.as_str())).cloned().collect();
        for name in gone {
            self.gone(registry, &name).await;
        }
        for crd in crds {
            self.changed(registry, crd).await;
        }
        Ok(list.revision)
    }

    async fn event(&mut self, registry: &Arc<Registry>, kind: EventType, crd: Value) {
        match kind {
            EventType::Added | EventType::Modified => self.changed(registry, crd).await,
            EventType::Deleted => self.gone(registry, crd["metadata"]["name"].as_str().unwrap_or_default()).await,
            EventType::Bookmark => {}
        }
    }

    async fn changed(&mut self, registry: &Arc<Registry>, crd: Value) {
        let Some(name) = crd["metadata"]["name"].as_str().map(str::to_owned) else { return };
        if let Err(error) = self.settle(registry, &name, crd).await
            && !error.is_conflict()
            && !error.is_not_found()
        {
            warn!(definition = name, %error, "A custom resource definition cannot be served as it is.");
        }
    }

    /// Grants names, serves, and says so.
    async fn settle(&mut self, registry: &Arc<Registry>, name: &str, crd: Value) -> Result<(), ApiError> {
        let now = registry.clock.now();
        if cleanup::is_held(&crd) {
            if status::is_true(&crd, "Established") {
                self.offer(registry, name, &crd, true).await?;
            }
            self.clean_up(registry, name);
            return Ok(());
        }
        let (mut new, serve) = status::settle(&crd, &self.taken(name, &crd), now);
        if serve {
            self.offer(registry, name, &new, false).await?;
            status::establish(&mut new, now);
        }
        let accepted = new["status"]["acceptedNames"].clone();
        let content = status::is_true(&new, "NamesAccepted");
        let group = crd["spec"]["group"].as_str().unwrap_or_default().to_owned();
        let offered = self.known.remove(name).map(|known| (known.offered, known.accepted));
        let freed = offered.as_ref().is_some_and(|(_, before)| *before != accepted);
        let offered = offered.and_then(|(offered, _)| offered);
        self.known.insert(name.to_owned(), Known { group: group.clone(), accepted, content, offered });
        if new != crd {
            let mut request = own_request(Arc::clone(&self.definitions), name);
            request.subresource = Subresource::Part(Part::Status);
            registry.update(&request, Body::from(new)).await?;
        }
        if freed {
            Box::pin(self.others(registry, &group, name)).await;
        }
        Ok(())
    }

    /// The names that others in the group have.
    fn taken(&self, name: &str, crd: &Value) -> Taken {
        let group = crd["spec"]["group"].as_str().unwrap_or_default();
        let mut taken = Taken::default();
        for (_, known) in self.known.iter().filter(|(own, known)| *own != name && known.group == group) {
            taken.add(&known.accepted);
        }
        taken
    }

    /// Serves a definition as it is now, if that is not what is served.
    async fn offer(&mut self, registry: &Registry, name: &str, crd: &Value, terminating: bool) -> Result<(), ApiError> {
        let made_of = serde_json::json!([crd["spec"], crd["status"]["acceptedNames"], terminating]);
        let before = self.known.get(name).and_then(|known| known.offered.as_ref());
        if before.is_some_and(|(before, _)| *before == made_of) {
            return Ok(());
        }
        let offered = offer::of(crd, &self.webhooks, before.map(|(_, schemas)| *schemas), terminating);
        registry.offer(name, offered.offer).await?;
        let known = self.known.entry(name.to_owned()).or_insert_with(|| Known {
            group: crd["spec"]["group"].as_str().unwrap_or_default().to_owned(),
            accepted: crd["status"]["acceptedNames"].clone(),
            content: true,
            offered: None,
        });
        known.offered = Some((made_of, offered.schemas));
        Ok(())
    }

    fn clean_up(&mut self, registry: &Arc<Registry>, name: &str) {
        if self.cleanups.get(name).is_some_and(|running| !running.is_finished()) {
            return;
        }
        let work = cleanup::run(Arc::clone(registry), Arc::clone(&self.definitions), name.to_owned());
        self.cleanups.insert(name.to_owned(), tokio::spawn(work));
    }

    /// A definition is gone: nothing of it is served, its names are free.
    async fn gone(&mut self, registry: &Arc<Registry>, name: &str) {
        self.cleanups.remove(name);
        let Some(known) = self.known.remove(name) else { return };
        if known.offered.is_some() {
            let convert = convert::Converter::new(&Value::Null, BTreeMap::new(), Arc::clone(&self.webhooks));
            let nothing =
                crate::registry::Offer { kinds: Vec::new(), convert: Arc::new(convert), ingest: None, reload: false };
            if let Err(error) = registry.offer(name, nothing).await {
                warn!(definition = name, %error, "The kinds of a definition that is gone are still served.");
            }
        }
        Box::pin(self.others(registry, &known.group, name)).await;
    }

    /// Others in the group may get the names they want now.
    async fn others(&mut self, registry: &Arc<Registry>, group: &str, except: &str) {
        let waiting: Vec<String> = self
            .known
            .iter()
            .filter(|(name, known)| known.group == group && !known.content && *name != except)
            .map(|(name, _)| name.clone())
            .collect();
        for name in waiting {
            let request: Request = own_request(Arc::clone(&self.definitions), &name);
            if let Ok(object) = registry.get(&request).await {
                self.changed(registry, object.value()).await;
            }
        }
    }
}
