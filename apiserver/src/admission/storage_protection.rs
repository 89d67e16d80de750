//! StorageObjectInUseProtection: volumes, claims and attribute classes stay, when they are deleted, until nobody uses
//! them. The finalizer that is added here is removed by the controller `storageprotection`.
//!
//! Source: Kubernetes' plugin `storage/storageobjectinuseprotection`.

use serde_json::{Value, json};

use super::{Attributes, Operation};

const FINALIZERS: [(&str, &str, &str); 3] = [
    ("", "persistentvolumes", "kubernetes.io/pv-protection"),
    ("", "persistentvolumeclaims", "kubernetes.io/pvc-protection"),
    ("storage.k8s.io", "volumeattributesclasses", "kubernetes.io/vac-protection"),
];

/// Adds the finalizer to a new object.
pub(super) fn mutate(attributes: &mut Attributes<'_>) {
    if attributes.operation != Operation::Create {
        return;
    }
    let own = FINALIZERS.iter().find(|(group, plural, _)| attributes.is(group, plural));
    if let Some((.., finalizer)) = own {
        add(&mut attributes.object, finalizer);
    }
}

fn add(object: &mut Value, finalizer: &str) {
    let finalizers = &mut object["metadata"]["finalizers"];
    if !finalizers.is_array() {
        *finalizers = json!([]);
    }
    let Some(finalizers) = finalizers.as_array_mut() else { return };
    if !finalizers.iter().any(|own| own == finalizer) {
        finalizers.push(finalizer.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_finalizer_is_added_once_behind_the_others() {
        let mut claim = json!({"metadata": {"finalizers": ["example.com/own"]}});
        add(&mut claim, "f");
        add(&mut claim, "f");
        assert_eq!(claim["metadata"]["finalizers"], json!(["example.com/own", "f"]));
        let mut claim = json!({"metadata": {}});
        add(&mut claim, "f");
        assert_eq!(claim["metadata"]["finalizers"], json!(["f"]));
    }
}
