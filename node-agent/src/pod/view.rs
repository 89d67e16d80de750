//! What the kubelet's server sees of the pods: where each container is, for logs, exec, attach and port forwarding.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::watch;

use super::state::{PodState, Run, Slot};

/// A pod as the server sees it. Published by its actor after every turn that changed it.
#[derive(Debug, Clone, Default)]
pub(crate) struct PodView {
    pub(crate) pod: Option<Arc<Pod>>,
    pub(crate) containers: Vec<ContainerView>,
    /// Id of its sandbox while that is there.
    pub(crate) sandbox: Option<String>,
}

/// A container as the server sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ContainerView {
    pub(crate) name: String,
    /// Id of the newest life.
    pub(crate) id: Option<String>,
    /// Number of the newest life.
    pub(crate) attempt: u32,
    pub(crate) running: bool,
    /// Number of the life before, if there was one.
    pub(crate) previous: Option<u32>,
    /// What it waits for, for messages.
    pub(crate) waiting: Option<String>,
}

/// All pods of the node by namespace and name. Written by the actors, read by the server.
#[derive(Debug, Clone, Default)]
pub(crate) struct Views(Arc<RwLock<BTreeMap<(String, String), Entry>>>);

#[derive(Debug)]
struct Entry {
    uid: String,
    view: watch::Receiver<PodView>,
}

impl Views {
    /// Makes a pod visible. A later pod of the same name takes its place.
    pub(crate) fn publish(&self, pod: &Pod) -> watch::Sender<PodView> {
        let (sender, view) = watch::channel(PodView::default());
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(key(pod), Entry { uid, view });
        sender
    }

    /// Takes a pod out, unless another one has taken its place.
    pub(crate) fn withdraw(&self, pod: &Pod) {
        let mut views = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        if views.get(&key(pod)).is_some_and(|entry| entry.uid == uid) {
            views.remove(&key(pod));
        }
    }

    /// The pod of that name, and every change of it.
    pub(crate) fn get(&self, namespace: &str, name: &str) -> Option<watch::Receiver<PodView>> {
        let views = self.0.read().unwrap_or_else(PoisonError::into_inner);
        views.get(&(namespace.to_owned(), name.to_owned())).map(|entry| entry.view.clone())
    }

    /// All pods with their containers.
    pub(crate) fn containers(&self) -> Vec<(Arc<Pod>, Vec<ContainerView>)> {
        let views = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let known = views.values().map(|entry| entry.view.borrow());
        known.filter_map(|view| Some((view.pod.clone()?, view.containers.clone()))).collect()
    }

    /// All pods.
    pub(crate) fn pods(&self) -> Vec<Arc<Pod>> {
        let views = self.0.read().unwrap_or_else(PoisonError::into_inner);
        views.values().filter_map(|entry| entry.view.borrow().pod.clone()).collect()
    }
}

impl ContainerView {
    /// A slot as the server sees it.
    pub(crate) fn of(state: &PodState, index: usize, slot: &Slot) -> Self {
        let has_life = slot.run != Run::Idle;
        let waiting = match (state.image_problem(index), &slot.failure) {
            (Some((problem, _)), _) => Some(match problem.reason {
                "ErrImagePull" if problem.backs_off => "trying and failing to pull image".to_owned(),
                "ErrImagePull" => "image can't be pulled".to_owned(),
                _ => problem.message.clone(),
            }),
            (_, Some(failure)) => Some(failure.reason.to_owned()),
            _ if state.initialized() => Some("ContainerCreating".to_owned()),
            _ => Some("PodInitializing".to_owned()),
        };
        Self {
            name: slot.name.clone(),
            id: slot.container_id().map(str::to_owned),
            attempt: slot.restarts,
            running: slot.running().is_some(),
            previous: slot.last.as_ref().filter(|_| has_life && slot.restarts > 0).map(|_| slot.restarts - 1),
            waiting: waiting.filter(|_| !has_life),
        }
    }
}

fn key(pod: &Pod) -> (String, String) {
    (pod.metadata.namespace.clone().unwrap_or_default(), pod.metadata.name.clone().unwrap_or_default())
}
