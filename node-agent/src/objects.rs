//! The ConfigMaps and Secrets that pods of this node refer to, and no others.
//!
//! Each is watched by name from the first pod that needs it to the last; pods of one namespace share the watch.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use futures::FutureExt as _;
use futures::future::select_all;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Volume};
use kube::{Api, Resource};
use reeve_client::{Component, Informer, InformerOptions};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::pod::env::Lookup;
use crate::pod::state::{containers, ephemeral_containers, spec};

/// The watches of all pods.
pub(crate) struct ObjectCache {
    component: Component,
    config_maps: Kind<ConfigMap>,
    secrets: Kind<Secret>,
}

type Kind<K> = Mutex<HashMap<(String, String), Weak<Watched<K>>>>;

/// One watched object; the watch ends when the last pod lets go of it.
struct Watched<K> {
    informer: Informer<K>,
    _stop: DropGuard,
}

/// The objects one pod refers to.
pub(crate) struct PodObjects {
    namespace: String,
    config_maps: HashMap<String, Arc<Watched<ConfigMap>>>,
    secrets: HashMap<String, Arc<Watched<Secret>>>,
}

/// Tells of changes of a pod's objects.
pub(crate) struct ObjectChanges(Vec<watch::Receiver<u64>>);

impl ObjectCache {
    pub(crate) fn new(component: Component) -> Self {
        Self { component, config_maps: Mutex::default(), secrets: Mutex::default() }
    }

    /// Watches what `pod` refers to, as long as the result lives.
    pub(crate) fn of_pod(&self, pod: &Pod) -> PodObjects {
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let names = references(pod);
        let config_maps = names.config_maps.into_iter();
        let secrets = names.secrets.into_iter();
        PodObjects {
            config_maps: config_maps
                .map(|name| (name.clone(), self.watched(&self.config_maps, &namespace, &name)))
                .collect(),
            secrets: secrets.map(|name| (name.clone(), self.watched(&self.secrets, &namespace, &name))).collect(),
            namespace,
        }
    }

    fn watched<K>(&self, kind: &Kind<K>, namespace: &str, name: &str) -> Arc<Watched<K>>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + Debug
            + Send
            + Sync
            + 'static,
    {
        let mut kind = kind.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (namespace.to_owned(), name.to_owned());
        if let Some(watched) = kind.get(&key).and_then(Weak::upgrade) {
            return watched;
        }
        kind.retain(|_, watched| watched.strong_count() > 0);
        let token: CancellationToken = self.component.shutdown.child_token();
        let component = self.component.until(token.clone());
        let api = Api::namespaced(self.component.client.clone(), namespace);
        let options = InformerOptions { fields: format!("metadata.name={name}"), ..InformerOptions::default() };
        let informer = Informer::start(&component, api, options);
        let watched = Arc::new(Watched { informer, _stop: token.drop_guard() });
        kind.insert(key, Arc::downgrade(&watched));
        watched
    }
}

impl PodObjects {
    /// Returns when it is known of every object what it is, or that it is not there.
    pub(crate) async fn synced(&self) {
        let maps = self.config_maps.values().map(|watched| watched.informer.synced());
        for mut synced in maps.chain(self.secrets.values().map(|watched| watched.informer.synced())) {
            // An error means that the agent shuts down; then nobody waits for the answer.
            let _ = synced.wait_for(|synced| *synced).await;
        }
    }

    /// Changes from now on.
    pub(crate) fn changes(&self) -> ObjectChanges {
        let maps = self.config_maps.values().map(|watched| watched.informer.changed());
        ObjectChanges(maps.chain(self.secrets.values().map(|watched| watched.informer.changed())).collect())
    }
}

impl ObjectChanges {
    /// Returns after the next change. Safe to drop.
    pub(crate) async fn next(&mut self) {
        if self.0.is_empty() {
            std::future::pending::<()>().await;
        }
        let (result, ..) = select_all(self.0.iter_mut().map(|changed| changed.changed().boxed())).await;
        if result.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Lookup for PodObjects {
    fn config_map(&self, name: &str) -> Option<Arc<ConfigMap>> {
        self.config_maps.get(name)?.informer.store().get(&self.namespace, name)
    }

    fn secret(&self, name: &str) -> Option<Arc<Secret>> {
        self.secrets.get(name)?.informer.store().get(&self.namespace, name)
    }
}

/// Names of objects in the pod's namespace.
#[derive(Debug, Default, PartialEq, Eq)]
struct References {
    config_maps: BTreeSet<String>,
    secrets: BTreeSet<String>,
}

/// Everything a pod refers to.
fn references(pod: &Pod) -> References {
    let mut found = References::default();
    let spec = spec(pod);
    let ephemeral = ephemeral_containers(spec);
    for container in containers(spec).map(|(container, _)| container).chain(&ephemeral) {
        for source in container.env_from.iter().flatten() {
            found.config_maps.extend(source.config_map_ref.iter().map(|reference| reference.name.clone()));
            found.secrets.extend(source.secret_ref.iter().map(|reference| reference.name.clone()));
        }
        for source in container.env.iter().flatten().filter_map(|var| var.value_from.as_ref()) {
            found.config_maps.extend(source.config_map_key_ref.iter().map(|reference| reference.name.clone()));
            found.secrets.extend(source.secret_key_ref.iter().map(|reference| reference.name.clone()));
        }
    }
    for volume in spec.volumes.iter().flatten() {
        of_volume(volume, &mut found);
    }
    found.secrets.extend(spec.image_pull_secrets.iter().flatten().map(|reference| reference.name.clone()));
    found.config_maps.remove("");
    found.secrets.remove("");
    found
}

fn of_volume(volume: &Volume, found: &mut References) {
    found.config_maps.extend(volume.config_map.iter().map(|source| source.name.clone()));
    found.secrets.extend(volume.secret.iter().filter_map(|source| source.secret_name.clone()));
    for source in volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten()) {
        found.config_maps.extend(source.config_map.iter().map(|source| source.name.clone()));
        found.secrets.extend(source.secret.iter().map(|source| source.name.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_object_a_pod_refers_to_is_found() {
        let pod: Pod = serde_json::from_value(serde_json::json!({ "spec": {
            "imagePullSecrets": [{ "name": "pull" }],
            "containers": [{
                "name": "c",
                "envFrom": [{ "configMapRef": { "name": "m1" } }, { "secretRef": { "name": "s1" } }],
                "env": [
                    { "name": "A", "valueFrom": { "configMapKeyRef": { "name": "m2", "key": "k" } } },
                    { "name": "B", "valueFrom": { "secretKeyRef": { "name": "s2", "key": "k" } } },
                ],
            }],
            "ephemeralContainers": [{ "name": "e", "envFrom": [{ "secretRef": { "name": "s5" } }] }],
            "volumes": [
                { "name": "a", "configMap": { "name": "m3" } },
                { "name": "b", "secret": { "secretName": "s3" } },
                { "name": "c", "projected": { "sources": [
                    { "configMap": { "name": "kube-root-ca.crt" } }, { "secret": { "name": "s4" } },
                ] } },
            ],
        }}))
        .unwrap();
        let found = references(&pod);
        assert_eq!(found.config_maps.into_iter().collect::<Vec<_>>(), ["kube-root-ca.crt", "m1", "m2", "m3"]);
        assert_eq!(found.secrets.into_iter().collect::<Vec<_>>(), ["pull", "s1", "s2", "s3", "s4", "s5"]);
    }
}
