//! The kinds of a definition, as the registry takes them.

use std::collections::BTreeMap;
use std::sync::Arc;

use reeve_kinds::{CustomKind, Kind};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tracing::warn;

use super::convert::Converter;
use super::webhook::Webhooks;
use crate::cache::Ingest;
use crate::registry::{Object, Offer, encode};

/// All versions of a definition, served or not: objects may be stored in any of them.
pub(super) type Versions = BTreeMap<String, Arc<CustomKind>>;

/// What is offered of a definition.
pub(super) struct Offered {
    /// For the registry.
    pub(super) offer: Offer,
    /// Stands for everything the stored objects pass through.
    pub(super) schemas: [u8; 32],
}

/// The offer of a definition. `schemas` is that of the offer before; `terminating`: no new objects.
pub(super) fn of(crd: &Value, webhooks: &Arc<Webhooks>, schemas: Option<[u8; 32]>, terminating: bool) -> Offered {
    let spec = &crd["spec"];
    let all: Vec<&Value> = spec["versions"].as_array().into_iter().flatten().collect();
    let mut versions = Versions::new();
    for name in all.iter().filter_map(|version| version["name"].as_str()) {
        match CustomKind::new(crd, name, terminating) {
            Ok(kind) => drop(versions.insert(name.to_owned(), Arc::new(kind))),
            Err(why) => {
                let definition = crd["metadata"]["name"].as_str();
                warn!(definition, version = name, why, "A version of a definition cannot be served.");
            }
        }
    }
    let served = all.iter().filter(|version| version["served"] == true);
    let mut served: Vec<&str> = served.filter_map(|version| version["name"].as_str()).collect();
    served.sort_by(|one, other| reeve_kinds::compare_versions(one, other));
    let kinds = served.iter().filter_map(|name| Some(Arc::clone(versions.get(*name)?) as Arc<dyn Kind>)).collect();
    let fingerprint = fingerprint(spec);
    let convert = Arc::new(Converter::new(spec, versions.clone(), Arc::clone(webhooks)));
    let offer =
        Offer { kinds, convert, ingest: Some(ingest(versions)), reload: schemas.is_some_and(|old| old != fingerprint) };
    Offered { offer, schemas: fingerprint }
}

/// Stands for the schemas of all versions.
fn fingerprint(spec: &Value) -> [u8; 32] {
    let mut hash = Sha256::new();
    for version in spec["versions"].as_array().into_iter().flatten() {
        hash.update(version["name"].to_string());
        hash.update(version["schema"].to_string());
    }
    hash.update(spec["preserveUnknownFields"].to_string());
    hash.finalize().into()
}

/// Stored objects get today's defaults and lose what today's schema of their version does not have.
fn ingest(versions: Versions) -> Ingest {
    Arc::new(move |object: Object| {
        let old = object.bare();
        let version = old["apiVersion"].as_str().and_then(|version| version.split_once('/'));
        let Some(kind) = version.and_then(|(_, version)| versions.get(version)) else { return object };
        let mut new = old.clone();
        kind.read_stored(&mut new);
        if new == old { object } else { encode::sent(&encode::stored(&new), object.revision) }
    })
}
