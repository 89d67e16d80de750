//! Which objects the pods of a node refer to: what the Node authorizer decides by.
//!
//! Kept from the watch cache's changes of pods, of PersistentVolumes (`volumes`), and of what says itself which node it
//! is for (`owned`), and brought up to date before any watcher is told of a change. So a node that has heard of a pod
//! from this server is never refused what that pod needs because the graph lags behind. Source of what counts as a
//! reference: `AddPod` of Kubernetes' Node authorizer, with `VisitPodSecretNames` and `VisitPodConfigmapNames`.

mod owned;
mod volumes;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use imbl::OrdMap;
use serde::Deserialize;

use self::owned::Owned;
use self::volumes::Volumes;
use crate::cache::Follower;
use crate::registry::Object;

/// What the keys of the objects begin with that are followed.
const PODS: &[u8] = b"/registry/core/pods/";
const VOLUMES: &[u8] = b"/registry/core/persistentvolumes/";
const ATTACHMENTS: &[u8] = b"/registry/storage.k8s.io/volumeattachments/";
const SLICES: &[u8] = b"/registry/resource.k8s.io/resourceslices/";

/// The annotation of a pod that stands for one the node has made itself: it gives the node nothing.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// What can concern a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Related {
    Pod,
    Secret,
    ConfigMap,
    ServiceAccount,
    Claim,
    ResourceClaim,
    /// A PersistentVolume, by way of its claim.
    Volume,
    /// A `VolumeAttachment` to the node.
    Attachment,
    /// A `ResourceSlice` of the node.
    Slice,
}

/// The references of all bound pods, by node. One per API server; written by the cache's feed alone.
#[derive(Debug, Default)]
pub(crate) struct NodeGraph {
    state: RwLock<State>,
    volumes: RwLock<Volumes>,
    attachments: RwLock<Owned>,
    slices: RwLock<Owned>,
}

#[derive(Debug, Default)]
struct State {
    /// By the pod's key in the cache: `NAMESPACE/NAME`.
    pods: HashMap<Bytes, Bound>,
    /// How many pods of a node refer to an object.
    nodes: HashMap<Arc<str>, HashMap<Reference, u32>>,
}

/// A pod on a node and what it refers to.
#[derive(Debug, PartialEq, Eq)]
struct Bound {
    node: Arc<str>,
    references: HashSet<Reference>,
}

/// An object by kind and `NAMESPACE/NAME`.
type Reference = (Related, Box<str>);

impl NodeGraph {
    /// Whether the object concerns the node: one of its pods, or something that one of them refers to.
    pub(crate) fn relates(&self, node: &str, related: Related, namespace: &str, name: &str) -> bool {
        let key = format!("{namespace}/{name}");
        match related {
            Related::Attachment => read(&self.attachments).is_of(name, node),
            Related::Slice => read(&self.slices).is_of(name, node),
            Related::Volume => {
                read(&self.volumes).claim(name).is_some_and(|claim| self.read().refers(node, Related::Claim, claim))
            }
            Related::Pod => self.read().pods.get(key.as_bytes()).is_some_and(|pod| &*pod.node == node),
            Related::Secret if self.read().refers(node, related, &key) => true,
            Related::Secret => {
                let volumes = read(&self.volumes);
                volumes.claims_of(&key).any(|claim| self.read().refers(node, Related::Claim, claim))
            }
            _ => self.read().refers(node, related, &key),
        }
    }

    /// Who keeps the graph true with the objects of that prefix, if they stand in it.
    pub(crate) fn follower(graph: &Arc<Self>, prefix: &[u8]) -> Option<Arc<dyn Follower>> {
        let part: Arc<dyn Follower> = match prefix {
            PODS => Arc::clone(graph) as _,
            VOLUMES => Arc::new(OfVolumes(Arc::clone(graph))),
            ATTACHMENTS => Arc::new(OfOwned(Arc::clone(graph), |graph| &graph.attachments)),
            SLICES => Arc::new(OfOwned(Arc::clone(graph), |graph| &graph.slices)),
            _ => return None,
        };
        Some(part)
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        read(&self.state)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        write(&self.state)
    }
}

fn read<T>(part: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    part.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(part: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    part.write().unwrap_or_else(PoisonError::into_inner)
}

/// Follows PersistentVolumes.
struct OfVolumes(Arc<NodeGraph>);

impl Follower for OfVolumes {
    fn put(&self, key: &Bytes, now: Option<&Object>) {
        write(&self.0.volumes).put(key, now);
    }

    fn reset(&self, objects: &OrdMap<Bytes, Object>) {
        *write(&self.0.volumes) = Volumes::of(objects);
    }
}

/// Follows objects that say themselves which node they are for.
struct OfOwned(Arc<NodeGraph>, fn(&NodeGraph) -> &RwLock<Owned>);

impl Follower for OfOwned {
    fn put(&self, key: &Bytes, now: Option<&Object>) {
        write(self.1(&self.0)).put(key, now);
    }

    fn reset(&self, objects: &OrdMap<Bytes, Object>) {
        *write(self.1(&self.0)) = Owned::of(objects);
    }
}

impl Follower for NodeGraph {
    fn put(&self, key: &Bytes, pod: Option<&Object>) {
        let bound = pod.and_then(|pod| Bound::read(key, pod));
        // Most changes of a pod are changes of its status.
        if self.read().pods.get(key) == bound.as_ref() {
            return;
        }
        let mut state = self.write();
        state.remove(key);
        if let Some(bound) = bound {
            state.insert(key.clone(), bound);
        }
    }

    fn reset(&self, pods: &OrdMap<Bytes, Object>) {
        let mut fresh = State::default();
        for (key, pod) in pods {
            if let Some(bound) = Bound::read(key, pod) {
                fresh.insert(key.clone(), bound);
            }
        }
        *self.write() = fresh;
    }
}

impl State {
    /// Whether a pod of the node refers to the object of that key.
    fn refers(&self, node: &str, related: Related, key: &str) -> bool {
        self.nodes.get(node).is_some_and(|references| references.contains_key(&(related, key.into())))
    }

    fn insert(&mut self, key: Bytes, bound: Bound) {
        let references = self.nodes.entry(Arc::clone(&bound.node)).or_default();
        for reference in &bound.references {
            *references.entry(reference.clone()).or_default() += 1;
        }
        self.pods.insert(key, bound);
    }

    fn remove(&mut self, key: &Bytes) {
        let Some(bound) = self.pods.remove(key) else { return };
        let Some(references) = self.nodes.get_mut(&bound.node) else { return };
        for reference in &bound.references {
            if let Some(count) = references.get_mut(reference) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    references.remove(reference);
                }
            }
        }
        if references.is_empty() {
            self.nodes.remove(&bound.node);
        }
    }
}

impl Bound {
    /// `None` for a pod that is on no node.
    fn read(key: &Bytes, pod: &Object) -> Option<Self> {
        let PodText { metadata, spec, status } = serde_json::from_slice::<PodText>(pod.text()).ok()?;
        let node = spec.node_name.as_deref().filter(|node| !node.is_empty())?.into();
        let (namespace, name) = std::str::from_utf8(key).ok()?.split_once('/')?;
        let mut references = HashSet::new();
        if metadata.is_some_and(|metadata| metadata.annotations.is_some_and(|all| all.contains_key(MIRROR))) {
            return Some(Self { node, references });
        }
        for claim in spec.resource_claims(&status.unwrap_or_default()) {
            references.insert((Related::ResourceClaim, format!("{namespace}/{claim}").into_boxed_str()));
        }
        spec.visit(&mut |related, name| {
            if !name.is_empty() {
                references.insert((related, format!("{namespace}/{name}").into_boxed_str()));
            }
        });
        for volume in spec.volumes.iter().flatten().filter(|volume| volume.ephemeral.is_some()) {
            let claim = format!("{namespace}/{name}-{}", volume.name.as_deref().unwrap_or_default());
            references.insert((Related::Claim, claim.into_boxed_str()));
        }
        Some(Self { node, references })
    }
}

/// The part of a pod that holds references; the rest is passed over unread.
#[derive(Deserialize)]
struct PodText {
    metadata: Option<Metadata>,
    spec: Spec,
    status: Option<Status>,
}

#[derive(Deserialize)]
struct Metadata {
    annotations: Option<HashMap<String, serde::de::IgnoredAny>>,
}

/// Which claims were made of the templates that the pod names, and for its extended resources.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    resource_claim_statuses: Option<Vec<ResourceClaim>>,
    extended_resource_claim_status: Option<ResourceClaim>,
}

/// An entry of `resourceClaims` and of `resourceClaimStatuses`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ResourceClaim {
    name: Option<String>,
    resource_claim_name: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    node_name: Option<String>,
    service_account_name: Option<String>,
    image_pull_secrets: Option<Vec<Named>>,
    containers: Option<Vec<Container>>,
    init_containers: Option<Vec<Container>>,
    ephemeral_containers: Option<Vec<Container>>,
    volumes: Option<Vec<Volume>>,
    resource_claims: Option<Vec<ResourceClaim>>,
}

#[derive(Deserialize)]
struct Named {
    name: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Container {
    env: Option<Vec<Variable>>,
    env_from: Option<Vec<Source>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Variable {
    value_from: Option<Source>,
}

/// `env[].valueFrom` and `envFrom[]`, whose fields do not overlap.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Source {
    config_map_key_ref: Option<Named>,
    config_map_ref: Option<Named>,
    secret_key_ref: Option<Named>,
    secret_ref: Option<Named>,
}

/// Volumes of other kinds name their Secret in `secretRef` or a field of their own.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Volume {
    name: Option<String>,
    config_map: Option<Named>,
    persistent_volume_claim: Option<ClaimVolume>,
    ephemeral: Option<serde::de::IgnoredAny>,
    secret: Option<SecretVolume>,
    projected: Option<Projected>,
    azure_file: Option<SecretVolume>,
    cephfs: Option<WithSecret>,
    cinder: Option<WithSecret>,
    flex_volume: Option<WithSecret>,
    rbd: Option<WithSecret>,
    #[serde(rename = "scaleIO")]
    scale_io: Option<WithSecret>,
    iscsi: Option<WithSecret>,
    storageos: Option<WithSecret>,
    csi: Option<WithSecret>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SecretVolume {
    secret_name: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ClaimVolume {
    claim_name: Option<String>,
}

#[derive(Deserialize)]
struct Projected {
    sources: Option<Vec<ProjectedSource>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ProjectedSource {
    config_map: Option<Named>,
    secret: Option<Named>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WithSecret {
    #[serde(alias = "nodePublishSecretRef")]
    secret_ref: Option<Named>,
}

/// Is told of every reference.
type Visitor<'v> = dyn FnMut(Related, &str) + 'v;

impl Spec {
    /// The names of the claims that the pod has.
    fn resource_claims<'s>(&'s self, status: &'s Status) -> impl Iterator<Item = &'s str> {
        let made = move |claim: &'s ResourceClaim| {
            let mut made = status.resource_claim_statuses.iter().flatten();
            made.find(|own| own.name == claim.name)?.resource_claim_name.as_deref()
        };
        let named = move |claim: &'s ResourceClaim| claim.resource_claim_name.as_deref().or_else(|| made(claim));
        let extended =
            status.extended_resource_claim_status.iter().filter_map(|own| own.resource_claim_name.as_deref());
        let all = self.resource_claims.iter().flatten().filter_map(named).chain(extended);
        all.filter(|name| !name.is_empty())
    }

    fn visit(&self, visit: &mut Visitor<'_>) {
        if let Some(account) = &self.service_account_name {
            visit(Related::ServiceAccount, account);
        }
        for secret in self.image_pull_secrets.iter().flatten() {
            secret.visit(Related::Secret, visit);
        }
        for container in [&self.containers, &self.init_containers, &self.ephemeral_containers].into_iter().flatten() {
            for container in container {
                let values = container.env.iter().flatten().filter_map(|variable| variable.value_from.as_ref());
                values.chain(container.env_from.iter().flatten()).for_each(|source| source.visit(visit));
            }
        }
        self.volumes.iter().flatten().for_each(|volume| volume.visit(visit));
    }
}

impl Named {
    fn visit(&self, related: Related, visit: &mut Visitor<'_>) {
        if let Some(name) = &self.name {
            visit(related, name);
        }
    }
}

impl Source {
    fn visit(&self, visit: &mut Visitor<'_>) {
        for map in [&self.config_map_key_ref, &self.config_map_ref].into_iter().flatten() {
            map.visit(Related::ConfigMap, visit);
        }
        for secret in [&self.secret_key_ref, &self.secret_ref].into_iter().flatten() {
            secret.visit(Related::Secret, visit);
        }
    }
}

impl Volume {
    fn visit(&self, visit: &mut Visitor<'_>) {
        if let Some(map) = &self.config_map {
            map.visit(Related::ConfigMap, visit);
        }
        if let Some(claim) = self.persistent_volume_claim.as_ref().and_then(|own| own.claim_name.as_ref()) {
            visit(Related::Claim, claim);
        }
        for source in self.projected.iter().flat_map(|projected| projected.sources.iter().flatten()) {
            source.config_map.iter().for_each(|map| map.visit(Related::ConfigMap, visit));
            source.secret.iter().for_each(|secret| secret.visit(Related::Secret, visit));
        }
        for name in [&self.secret, &self.azure_file].into_iter().flatten().filter_map(|own| own.secret_name.as_ref()) {
            visit(Related::Secret, name);
        }
        let others = [
            &self.cephfs,
            &self.cinder,
            &self.flex_volume,
            &self.rbd,
            &self.scale_io,
            &self.iscsi,
            &self.storageos,
            &self.csi,
        ];
        for secret in others.into_iter().flatten().filter_map(|own| own.secret_ref.as_ref()) {
            secret.visit(Related::Secret, visit);
        }
    }
}

#[cfg(test)]
mod tests {
    use reeve_store::Revision;
    use serde_json::{Value, json};

    use super::*;

    fn key(name: &str) -> Bytes {
        format!("default/{name}").into()
    }

    fn object(node: &str, spec: &Value) -> Object {
        let mut spec = spec.clone();
        spec["nodeName"] = node.into();
        Object::whole(json!({ "kind": "Pod", "spec": spec }).to_string(), Revision(1))
    }

    #[test]
    fn everything_a_pod_refers_to_is_related_to_its_node_and_to_no_other() {
        let graph = NodeGraph::default();
        let spec = json!({
            "serviceAccountName": "robot",
            "imagePullSecrets": [{ "name": "pull" }],
            "initContainers": [{ "envFrom": [{ "configMapRef": { "name": "m1" } }, { "secretRef": { "name": "s1" } }] }],
            "containers": [{ "env": [
                { "name": "plain", "value": "x" },
                { "name": "A", "valueFrom": { "configMapKeyRef": { "name": "m2", "key": "k" } } },
                { "name": "B", "valueFrom": { "secretKeyRef": { "name": "s2", "key": "k" } } },
                { "name": "C", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } },
            ] }],
            "ephemeralContainers": [{ "envFrom": [{ "secretRef": { "name": "s3" } }] }],
            "volumes": [
                { "configMap": { "name": "m3" } }, { "secret": { "secretName": "s4" } },
                { "projected": { "sources": [
                    { "configMap": { "name": "m4" } }, { "secret": { "name": "s5" } },
                    { "serviceAccountToken": { "path": "token" } },
                ] } },
                { "persistentVolumeClaim": { "claimName": "c1" } }, { "name": "v", "ephemeral": { "volumeClaimTemplate": {} } },
                { "csi": { "nodePublishSecretRef": { "name": "s6" } } }, { "rbd": { "secretRef": { "name": "s7" } } },
            ],
        });
        graph.put(&key("web"), Some(&object("a", &spec)));
        let related = |node, kind, name| graph.relates(node, kind, "default", name);
        for name in ["pull", "s1", "s2", "s3", "s4", "s5", "s6", "s7"] {
            assert!(related("a", Related::Secret, name), "{name}");
            assert!(!related("b", Related::Secret, name) && !related("a", Related::ConfigMap, name), "{name}");
        }
        for name in ["m1", "m2", "m3", "m4"] {
            assert!(related("a", Related::ConfigMap, name) && !related("a", Related::Secret, name), "{name}");
        }
        assert!(related("a", Related::ServiceAccount, "robot") && !related("a", Related::ServiceAccount, "default"));
        assert!(related("a", Related::Claim, "c1") && related("a", Related::Claim, "web-v"));
        assert!(related("a", Related::Pod, "web") && !related("b", Related::Pod, "web"));
        assert!(!graph.relates("a", Related::Secret, "other", "pull"));
    }

    #[test]
    fn a_volume_and_its_secrets_are_related_to_the_nodes_whose_pods_have_its_claim() {
        let graph = Arc::new(NodeGraph::default());
        let follow = |prefix: &[u8]| NodeGraph::follower(&graph, prefix).unwrap();
        let whole = |object: Value| Object::whole(object.to_string(), Revision(1));
        let claim = json!({ "volumes": [{ "persistentVolumeClaim": { "claimName": "c" } }] });
        graph.put(&key("web"), Some(&object("a", &claim)));
        let csi = json!({ "nodeStageSecretRef": { "name": "s", "namespace": "other" },
            "controllerPublishSecretRef": { "name": "hidden", "namespace": "other" } });
        let volume = json!({ "spec": { "claimRef": { "namespace": "default", "name": "c" }, "csi": csi } });
        let (volumes, name) = (follow(VOLUMES), Bytes::from_static(b"pv"));
        let volume_of = |node| graph.relates(node, Related::Volume, "", "pv");
        let secret_of = |node, name| graph.relates(node, Related::Secret, "other", name);
        assert!(!volume_of("a") && !secret_of("a", "s"));
        volumes.put(&name, Some(&whole(volume.clone())));
        assert!(volume_of("a") && !volume_of("b"));
        assert!(secret_of("a", "s") && !secret_of("a", "hidden") && !secret_of("b", "s"));
        volumes.reset(&OrdMap::unit(name.clone(), whole(volume)));
        assert!(volume_of("a") && secret_of("a", "s"));
        volumes.put(&name, Some(&whole(json!({ "spec": { "csi": csi } }))));
        assert!(!volume_of("a") && !secret_of("a", "s") && read(&graph.volumes).claims_of("other/s").count() == 0);
    }

    #[test]
    fn what_names_its_node_is_related_to_it_alone() {
        let graph = Arc::new(NodeGraph::default());
        let object = |node: &str| Object::whole(json!({ "spec": { "nodeName": node } }).to_string(), Revision(1));
        for (prefix, related) in [(ATTACHMENTS, Related::Attachment), (SLICES, Related::Slice)] {
            let (follower, name) = (NodeGraph::follower(&graph, prefix).unwrap(), Bytes::from_static(b"x"));
            let is_of = |node| graph.relates(node, related, "", "x");
            follower.put(&name, Some(&object("a")));
            assert!(is_of("a") && !is_of("b"));
            follower.put(&name, Some(&object("b")));
            assert!(!is_of("a") && is_of("b"));
            follower.put(&name, None);
            assert!(!is_of("b"));
            follower.reset(&OrdMap::unit(name, object("a")));
            assert!(is_of("a") && !is_of(""));
        }
        assert!(NodeGraph::follower(&graph, b"/registry/core/secrets/").is_none());
    }

    #[test]
    fn a_pod_is_related_to_the_resource_claims_that_were_made_for_it() {
        let graph = NodeGraph::default();
        let claims = json!([{ "name": "own", "resourceClaimName": "mine" }, { "name": "made" }, { "name": "later" }]);
        let status = json!({
            "resourceClaimStatuses": [{ "name": "made", "resourceClaimName": "web-made" }, { "name": "later" }],
            "extendedResourceClaimStatus": { "requestMappings": [], "resourceClaimName": "extended" },
        });
        let pod = json!({ "spec": { "nodeName": "a", "resourceClaims": claims }, "status": status });
        graph.put(&key("web"), Some(&Object::whole(pod.to_string(), Revision(1))));
        let related = |name| graph.relates("a", Related::ResourceClaim, "default", name);
        assert!(related("mine") && related("web-made") && related("extended") && !related("made") && !related(""));
    }

    #[test]
    fn a_pod_of_the_nodes_own_making_gives_the_node_nothing() {
        let graph = NodeGraph::default();
        let spec = json!({ "nodeName": "a", "volumes": [{ "secret": { "secretName": "s" } }] });
        let pod = json!({ "metadata": { "annotations": { "kubernetes.io/config.mirror": "x" } }, "spec": spec });
        graph.put(&key("web"), Some(&Object::whole(pod.to_string(), Revision(1))));
        assert!(graph.relates("a", Related::Pod, "default", "web"));
        assert!(!graph.relates("a", Related::Secret, "default", "s"));
    }

    #[test]
    fn a_relation_ends_with_the_last_pod_that_has_it() {
        let graph = NodeGraph::default();
        let spec = json!({ "volumes": [{ "secret": { "secretName": "s" } }, { "secret": { "secretName": "s" } }] });
        let related = |node| graph.relates(node, Related::Secret, "default", "s");
        graph.put(&key("one"), Some(&object("", &spec)));
        assert!(!related("") && !related("a"), "a pod on no node relates nothing");
        graph.put(&key("one"), Some(&object("a", &spec)));
        graph.put(&key("two"), Some(&object("a", &spec)));
        graph.put(&key("two"), Some(&object("a", &spec)));
        graph.put(&key("one"), None);
        assert!(related("a"));
        graph.put(&key("two"), None);
        assert!(!related("a") && graph.read().nodes.is_empty() && graph.read().pods.is_empty());
    }

    #[test]
    fn a_pod_of_the_same_name_on_another_node_takes_its_relations_with_it() {
        let graph = NodeGraph::default();
        let spec = json!({ "volumes": [{ "secret": { "secretName": "s" } }] });
        graph.put(&key("one"), Some(&object("a", &spec)));
        graph.put(&key("one"), Some(&object("b", &spec)));
        assert!(!graph.relates("a", Related::Secret, "default", "s"));
        assert!(graph.relates("b", Related::Secret, "default", "s"));
        let (other, pod) = (key("two"), object("a", &spec));
        graph.reset(&OrdMap::unit(other, pod));
        assert!(!graph.relates("b", Related::Secret, "default", "s"));
        assert!(graph.relates("a", Related::Secret, "default", "s"));
    }
}
