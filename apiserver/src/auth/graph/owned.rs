//! Objects that say themselves which node they are for: VolumeAttachments and ResourceSlices.

use std::collections::HashMap;

use bytes::Bytes;
use imbl::OrdMap;
use serde::Deserialize;

use crate::registry::Object;

/// The node of each object that has one, by the object's name.
#[derive(Debug, Default)]
pub(super) struct Owned(HashMap<Bytes, Box<str>>);

#[derive(Deserialize)]
struct Text {
    spec: Spec,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    node_name: Option<Box<str>>,
}

impl Owned {
    pub(super) fn is_of(&self, name: &str, node: &str) -> bool {
        self.0.get(name.as_bytes()).is_some_and(|own| **own == *node)
    }

    pub(super) fn put(&mut self, name: &Bytes, now: Option<&Object>) {
        match now.and_then(node) {
            Some(node) => drop(self.0.insert(name.clone(), node)),
            None => drop(self.0.remove(name)),
        }
    }

    pub(super) fn of(objects: &OrdMap<Bytes, Object>) -> Self {
        Self(objects.iter().filter_map(|(name, object)| Some((name.clone(), node(object)?))).collect())
    }
}

fn node(object: &Object) -> Option<Box<str>> {
    let node = serde_json::from_slice::<Text>(object.text()).ok()?.spec.node_name?;
    (!node.is_empty()).then_some(node)
}
