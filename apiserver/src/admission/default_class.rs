//! DefaultStorageClass and DefaultIngressClass: a claim or an Ingress that names no class gets the one that is marked
//! as the default. Of several the newest counts, then the first by name.
//!
//! Source: Kubernetes' plugins `storage/storageclass/setdefault` and `network/defaultingressclass`.

use serde_json::Value;

use super::{Attributes, Operation};
use crate::registry::{Registry, meta};

/// Says in words of the old API that there is a class.
const OLD_STORAGE_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
const OLD_INGRESS_CLASS: &str = "kubernetes.io/ingress.class";

/// Sets the class of a new claim.
pub(super) fn storage(registry: &Registry, attributes: &mut Attributes<'_>) {
    if attributes.operation != Operation::Create || !attributes.is("", "persistentvolumeclaims") {
        return;
    }
    let claim = &attributes.object;
    // An empty name is a name: that of no class.
    if !meta::get(claim, "annotations")[OLD_STORAGE_CLASS].is_null() || !claim["spec"]["storageClassName"].is_null() {
        return;
    }
    let marks = ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
    if let Some(name) = default(registry, ("storage.k8s.io", "storageclasses"), &marks) {
        set(&mut attributes.object, "storageClassName", name);
    }
}

/// Sets the class of a new Ingress.
pub(super) fn ingress(registry: &Registry, attributes: &mut Attributes<'_>) {
    if attributes.operation != Operation::Create || !attributes.is("networking.k8s.io", "ingresses") {
        return;
    }
    let ingress = &attributes.object;
    let old = &meta::get(ingress, "annotations")[OLD_INGRESS_CLASS];
    if !old.is_null() || !ingress["spec"]["ingressClassName"].is_null() {
        return;
    }
    let marks = ["ingressclass.kubernetes.io/is-default-class"];
    if let Some(name) = default(registry, ("networking.k8s.io", "ingressclasses"), &marks) {
        set(&mut attributes.object, "ingressClassName", name);
    }
}

fn set(object: &mut Value, field: &str, name: String) {
    if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
        spec.insert(field.to_owned(), name.into());
    }
}

fn default(registry: &Registry, (group, plural): (&str, &str), marks: &[&str]) -> Option<String> {
    let classes = registry.resource(group, "v1", plural)?;
    choose(registry.peek_all(&classes, "").iter().map(|class| class.value()).collect(), marks)
}

fn choose(mut classes: Vec<Value>, marks: &[&str]) -> Option<String> {
    classes.retain(|class| marks.iter().any(|mark| meta::get(class, "annotations")[*mark] == "true"));
    let order =
        |class: &Value| (meta::text(class, "creationTimestamp").to_owned(), meta::text(class, "name").to_owned());
    classes.sort_by(|a, b| {
        let ((a_time, a_name), (b_time, b_name)) = (order(a), order(b));
        b_time.cmp(&a_time).then(a_name.cmp(&b_name))
    });
    classes.first().map(|class| meta::text(class, "name").to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn of_several_defaults_the_newest_counts() {
        let class = |name: &str, time: &str, mark: &str| json!({ "metadata": { "name": name, "creationTimestamp": time, "annotations": { "m": mark } } });
        let classes = vec![
            class("old", "2026-01-01T00:00:00Z", "true"),
            class("b", "2026-01-02T00:00:00Z", "true"),
            class("a", "2026-01-02T00:00:00Z", "true"),
            class("none", "2026-01-03T00:00:00Z", "false"),
        ];
        assert_eq!(choose(classes, &["m"]).as_deref(), Some("a"));
        assert_eq!(choose(Vec::new(), &["m"]), None);
    }
}
