//! Managers of an object's replicas, seen through its scale subresource, and back.

use std::sync::OnceLock;

use k8s_openapi::api::autoscaling::v1::Scale;

use super::element::PathElement;
use super::entry::{Entry, Managed, Operation};
use super::set::{Path, Set};
use crate::shape::{self, Shape};

/// The fields of a scale.
pub fn scale_shape() -> &'static Shape {
    static SHAPE: OnceLock<&'static Shape> = OnceLock::new();
    SHAPE.get_or_init(shape::of::<Scale>)
}

/// The version of the scale subresource.
const SCALE_VERSION: &str = "autoscaling/v1";

/// Where the replicas are in a kind, version by version; `None`: the version has no scale subresource.
pub type ReplicasPaths<'p> = &'p [(&'p str, Option<Path>)];

fn in_scale() -> Path {
    vec![PathElement::Field("spec".to_owned()), PathElement::Field("replicas".to_owned())]
}

fn only(path: &[PathElement]) -> Set {
    let mut set = Set::default();
    set.insert(path);
    set
}

fn replicas<'p>(paths: ReplicasPaths<'p>, version: &str) -> Option<Option<&'p Path>> {
    paths.iter().find(|(own, _)| *own == version).map(|(_, path)| path.as_ref())
}

/// Those of an object's managers that manage its replicas, as managers of the scale's; updaters are then known by the
/// scale's version.
#[must_use]
pub fn to_scale(parent: &Managed, paths: ReplicasPaths<'_>) -> Managed {
    let mut out = Managed::default();
    for entry in &parent.entries {
        let Some(Some(path)) = replicas(paths, &entry.version) else { continue };
        if entry.set().has(path) {
            let mut id = entry.id.clone();
            if id.operation == Operation::Update {
                SCALE_VERSION.clone_into(&mut id.api_version);
            }
            out.entries.push(Entry::new(id, SCALE_VERSION, only(&in_scale()), entry.time.clone()));
        }
    }
    out
}

/// The object's managers after a write of its scale, whose managers are `scale` now. `version` is the object's.
#[must_use]
pub fn from_scale(parent: &Managed, scale: Managed, paths: ReplicasPaths<'_>, version: &str) -> Managed {
    let mut scale = scale.entries;
    let mut out = Managed::default();
    for entry in &parent.entries {
        let Some(path) = replicas(paths, &entry.version) else { continue };
        let own = path.filter(|path| entry.set().has(path));
        let Some(path) = own else {
            out.entries.push(entry.clone());
            continue;
        };
        if let Some(at) = scale.iter().position(|other| other.id == entry.id) {
            scale.remove(at);
            out.entries.push(entry.clone());
            continue;
        }
        let rest = entry.set().difference(&only(path));
        if !rest.is_empty() {
            let mut entry = entry.clone();
            entry.put(rest);
            out.entries.push(entry);
        }
    }
    let Some(Some(path)) = replicas(paths, version) else { return out };
    for entry in scale {
        if entry.set().has(&in_scale()) {
            // As in Kubernetes: a manager that is new to the object brings no time with it.
            let time = parent.get(&entry.id).and_then(|own| own.time.clone());
            out.put(Entry::new(entry.id, version, only(path), time));
        }
    }
    out
}
