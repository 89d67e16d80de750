//! Deployments and ReplicaSets.

use serde_json::Value;

use super::pod;
use super::text::{Text, at, controller_of, date, items, joined, number, plain};

/// A Deployment with its ReplicaSets.
pub(super) fn deployment(out: &mut Text, own: &Value, sets: &[Value]) {
    out.line(0, "Name", at(own, "/metadata/name"));
    out.line(0, "Namespace", at(own, "/metadata/namespace"));
    out.line(0, "CreationTimestamp", &date(at(own, "/metadata/creationTimestamp")));
    out.pairs(0, "Labels", own.pointer("/metadata/labels"));
    out.annotations(0, own);
    out.line(0, "Selector", &pod::selector(own));
    let status = |field: &str| number(own, &format!("/status/{field}"));
    let replicas = format!(
        "{} desired | {} updated | {} total | {} available | {} unavailable",
        number(own, "/spec/replicas"),
        status("updatedReplicas"),
        status("replicas"),
        status("availableReplicas"),
        status("unavailableReplicas")
    );
    out.line(0, "Replicas", &replicas);
    out.line(0, "StrategyType", at(own, "/spec/strategy/type"));
    out.line(0, "MinReadySeconds", &number(own, "/spec/minReadySeconds").to_string());
    if let Some(rolling) = own.pointer("/spec/strategy/rollingUpdate") {
        let part = |field: &str| rolling.get(field).map(plain).unwrap_or_default();
        let text = format!("{} max unavailable, {} max surge", part("maxUnavailable"), part("maxSurge"));
        out.line(0, "RollingUpdateStrategy", &text);
    }
    pod::template(out, own.pointer("/spec/template").unwrap_or(&Value::Null));
    let conditions = items(own, "/status/conditions");
    if !conditions.is_empty() {
        out.raw("Conditions:\n  Type\tStatus\tReason\n  ----\t------\t------\n");
    }
    for own in conditions {
        out.raw(&format!("  {} \t{}\t{}\n", at(own, "/type"), at(own, "/status"), at(own, "/reason")));
    }
    replica_sets(out, own, sets);
}

/// Which of its ReplicaSets has the template that the Deployment has now, and which had former ones.
fn replica_sets(out: &mut Text, deployment: &Value, sets: &[Value]) {
    let mut sets: Vec<&Value> = sets.iter().collect();
    sets.sort_by_key(|set| (at(set, "/metadata/creationTimestamp"), at(set, "/metadata/name")));
    if sets.is_empty() {
        return;
    }
    let wanted = template_of(deployment);
    let newest = sets.iter().position(|set| template_of(set) == wanted);
    let newest = newest.map(|index| sets.remove(index));
    let shown = |set: &Value| {
        let (created, wanted) = (number(set, "/status/replicas"), number(set, "/spec/replicas"));
        format!("{} ({created}/{wanted} replicas created)", at(set, "/metadata/name"))
    };
    let old: Vec<String> = sets.into_iter().map(shown).collect();
    out.line(0, "OldReplicaSets", &joined(&old, ", "));
    out.line(0, "NewReplicaSet", &newest.map_or_else(|| "<none>".to_owned(), shown));
}

/// The pod template without the label that tells templates apart.
fn template_of(object: &Value) -> Value {
    let mut template = object.pointer("/spec/template").cloned().unwrap_or_default();
    if let Some(labels) = template.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.remove("pod-template-hash");
    }
    template
}

/// A ReplicaSet with the pods that its selector finds.
pub(super) fn replica_set(out: &mut Text, own: &Value, pods: &[Value]) {
    out.line(0, "Name", at(own, "/metadata/name"));
    out.line(0, "Namespace", at(own, "/metadata/namespace"));
    out.line(0, "Selector", &pod::selector(own));
    out.pairs(0, "Labels", own.pointer("/metadata/labels"));
    out.annotations(0, own);
    out.controller(own);
    let (current, wanted) = (number(own, "/status/replicas"), number(own, "/spec/replicas"));
    out.line(0, "Replicas", &format!("{current} current / {wanted} desired"));
    let uid = at(own, "/metadata/uid");
    let owned = |pod: &&Value| controller_of(pod).is_some_and(|owner| at(owner, "/uid") == uid);
    let pods: Vec<&Value> = pods.iter().filter(owned).collect();
    let count = |phase: &str| pods.iter().filter(|pod| at(pod, "/status/phase") == phase).count();
    let (running, waiting) = (count("Running"), count("Pending"));
    let (succeeded, failed) = (count("Succeeded"), count("Failed"));
    let text = format!("{running} Running / {waiting} Waiting / {succeeded} Succeeded / {failed} Failed");
    out.line(0, "Pods Status", &text);
    pod::template(out, own.pointer("/spec/template").unwrap_or(&Value::Null));
    out.conditions(own, &["type", "status", "reason"]);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_new_replica_set_is_the_one_with_the_deployments_template_however_old_it_is() {
        let template = |image: &str, hash: Option<&str>| {
            let mut template = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"image": image}});
            if let Some(hash) = hash {
                template["metadata"]["labels"]["pod-template-hash"] = hash.into();
            }
            template
        };
        let set = |name: &str, time: &str, image: &str| {
            json!({"metadata": {"name": name, "creationTimestamp": time},
                "spec": {"replicas": 1, "template": template(image, Some(name))}, "status": {"replicas": 1}})
        };
        let deployment = json!({"spec": {"template": template("one", None)}});
        let sets = [set("b", "2026-01-02T00:00:00Z", "two"), set("a", "2026-01-01T00:00:00Z", "one")];
        let mut out = Text::default();
        replica_sets(&mut out, &deployment, &sets);
        let expected = "OldReplicaSets:\tb (1/1 replicas created)\nNewReplicaSet:\ta (1/1 replicas created)\n";
        assert_eq!(out.finish(), expected);
    }
}
