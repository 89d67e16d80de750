//! The ReplicaSet for a template that has none yet, and its name.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::annotations;
use super::plan::HASH_LABEL;
use crate::ownership::controller_reference;

/// Characters of a hash in a name; one per decimal digit. Source: `rand.SafeEncodeString`.
const SAFE: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// Builds the ReplicaSet. The same template gives the same name, so a round that is repeated because its
/// answer was lost finds what it made.
pub(super) fn new_replica_set(deployment: &Deployment, replicas: i32, revision: i64) -> ReplicaSet {
    let spec = deployment.spec.clone().unwrap_or_default();
    let collisions = deployment.status.as_ref().and_then(|status| status.collision_count);
    let hash = template_hash(&spec.template, collisions);
    let mut template = spec.template;
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    labels.insert(HASH_LABEL.to_owned(), hash.clone());
    let labels = labels.clone();
    let mut selector = spec.selector;
    selector.match_labels.get_or_insert_default().insert(HASH_LABEL.to_owned(), hash.clone());
    let mut own_annotations = BTreeMap::new();
    annotations::inherit(&mut own_annotations, deployment, revision);
    annotations::set_sizes(&mut own_annotations, deployment);
    let metadata = ObjectMeta {
        name: Some(format!("{}-{hash}", deployment.metadata.name.as_deref().unwrap_or_default())),
        namespace: deployment.metadata.namespace.clone(),
        labels: Some(labels),
        annotations: Some(own_annotations),
        owner_references: Some(vec![controller_reference(deployment)]),
        ..ObjectMeta::default()
    };
    let spec = ReplicaSetSpec {
        replicas: Some(replicas),
        min_ready_seconds: spec.min_ready_seconds,
        selector,
        template: Some(template),
    };
    ReplicaSet { metadata, spec: Some(spec), status: None }
}

/// A short name for a template: 32 bits of FNV-1a over its JSON (keys in a fixed order), and over the number of
/// collisions there have been, written in letters that form no words.
fn template_hash(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    let json = serde_json::to_vec(template).unwrap_or_default();
    let salt = collisions.map(i32::to_le_bytes).unwrap_or_default();
    let salt = if collisions.is_some() { salt.as_slice() } else { &[] };
    let hash =
        json.iter().chain(salt).fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    hash.to_string().bytes().map(|digit| char::from(SAFE[usize::from(digit) % SAFE.len()])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_stable_and_changes_with_template_and_collisions() {
        let template = |image: &str| -> PodTemplateSpec {
            serde_json::from_value(serde_json::json!({ "spec": { "containers": [{ "name": "c", "image": image }] } }))
                .unwrap()
        };
        let hash = template_hash(&template("a"), None);
        assert_eq!(hash, template_hash(&template("a"), None));
        assert_ne!(hash, template_hash(&template("b"), None));
        assert_ne!(hash, template_hash(&template("a"), Some(1)));
        assert!(hash.len() <= 10 && hash.bytes().all(|byte| SAFE.contains(&byte)));
    }
}
