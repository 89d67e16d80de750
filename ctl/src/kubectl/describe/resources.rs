//! Everything but pods.

use base64::Engine as _;
use serde_json::Value;

use super::pod;
use super::text::{Text, at, date, items, plain};

fn number(object: &Value, pointer: &str) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0)
}

/// A Deployment with its ReplicaSets.
pub(super) fn deployment(out: &mut Text, own: &Value, sets: &[Value]) {
    out.line(0, "Name", at(own, "/metadata/name"));
    out.line(0, "Namespace", at(own, "/metadata/namespace"));
    out.line(0, "CreationTimestamp", &date(at(own, "/metadata/creationTimestamp")));
    out.pairs(0, "Labels", own.pointer("/metadata/labels"), "=");
    out.annotations(own);
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
    out.conditions(own, &["type", "status", "reason"]);
    let revision =
        |set: &Value| at(set, "/metadata/annotations/deployment.kubernetes.io~1revision").parse::<i64>().unwrap_or(0);
    let newest = sets.iter().max_by_key(|set| revision(set));
    let shown = |set: &Value| {
        let (ready, wanted) = (number(set, "/status/replicas"), number(set, "/spec/replicas"));
        format!("{} ({ready}/{wanted} replicas created)", at(set, "/metadata/name"))
    };
    let old: Vec<String> = sets.iter().filter(|set| Some(*set) != newest).map(shown).collect();
    out.line(0, "OldReplicaSets", &if old.is_empty() { "<none>".to_owned() } else { old.join(", ") });
    out.line(0, "NewReplicaSet", &newest.map_or_else(|| "<none>".to_owned(), shown));
}

/// A ReplicaSet.
pub(super) fn replica_set(out: &mut Text, own: &Value) {
    out.line(0, "Name", at(own, "/metadata/name"));
    out.line(0, "Namespace", at(own, "/metadata/namespace"));
    out.line(0, "Selector", &pod::selector(own));
    out.pairs(0, "Labels", own.pointer("/metadata/labels"), "=");
    out.annotations(own);
    let owner = items(own, "/metadata/ownerReferences").iter().find(|own| own.get("controller") == Some(&true.into()));
    if let Some(owner) = owner {
        out.line(0, "Controlled By", &format!("{}/{}", at(owner, "/kind"), at(owner, "/name")));
    }
    let (current, wanted) = (number(own, "/status/replicas"), number(own, "/spec/replicas"));
    out.line(0, "Replicas", &format!("{current} current / {wanted} desired"));
    pod::template(out, own.pointer("/spec/template").unwrap_or(&Value::Null));
}

/// A Service with its slices.
pub(super) fn service(out: &mut Text, own: &Value, slices: &[Value]) {
    out.meta(own);
    out.pairs(0, "Selector", own.pointer("/spec/selector"), "=");
    out.line(0, "Type", at(own, "/spec/type"));
    out.line_if(0, "IP Family Policy", at(own, "/spec/ipFamilyPolicy"));
    let families: Vec<String> = items(own, "/spec/ipFamilies").iter().map(plain).collect();
    out.line_if(0, "IP Families", &families.join(","));
    out.line(0, "IP", at(own, "/spec/clusterIP"));
    let ips: Vec<String> = items(own, "/spec/clusterIPs").iter().map(plain).collect();
    out.line(0, "IPs", &ips.join(","));
    out.line_if(0, "External Name", at(own, "/spec/externalName"));
    for port in items(own, "/spec/ports") {
        let name = Some(at(port, "/name")).filter(|own| !own.is_empty()).unwrap_or("<unset>");
        let protocol = at(port, "/protocol");
        out.raw(&format!("Port:\t{name}\t{}/{protocol}\n", port.get("port").map(plain).unwrap_or_default()));
        out.line(0, "TargetPort", &format!("{}/{protocol}", port.get("targetPort").map(plain).unwrap_or_default()));
        if let Some(node) = port.get("nodePort") {
            out.raw(&format!("NodePort:\t{name}\t{}/{protocol}\n", plain(node)));
        }
        out.line(0, "Endpoints", &endpoints(slices, at(port, "/name")));
    }
    out.line(0, "Session Affinity", at(own, "/spec/sessionAffinity"));
    out.line_if(0, "External Traffic Policy", at(own, "/spec/externalTrafficPolicy"));
    out.line_if(0, "Internal Traffic Policy", at(own, "/spec/internalTrafficPolicy"));
}

/// The ready endpoints of a port: three of them, and how many more there are.
fn endpoints(slices: &[Value], port: &str) -> String {
    const SHOWN: usize = 3;
    let mut all = Vec::new();
    for slice in slices {
        for own in items(slice, "/ports").iter().filter(|own| at(own, "/name") == port) {
            let number = own.get("port").map(plain).unwrap_or_default();
            let ready = |own: &&Value| own.pointer("/conditions/ready").and_then(Value::as_bool).unwrap_or(true);
            let addresses =
                items(slice, "/endpoints").iter().filter(ready).filter_map(|own| own.pointer("/addresses/0"));
            all.extend(addresses.map(|address| format!("{}:{number}", plain(address))));
        }
    }
    if all.len() > SHOWN {
        return format!("{} + {} more...", all[..SHOWN].join(","), all.len() - SHOWN);
    }
    if all.is_empty() { "<none>".to_owned() } else { all.join(",") }
}

/// A node with its pods.
pub(super) fn node(out: &mut Text, own: &Value, pods: &[Value]) {
    out.line(0, "Name", at(own, "/metadata/name"));
    out.pairs(0, "Labels", own.pointer("/metadata/labels"), "=");
    out.annotations(own);
    out.line(0, "CreationTimestamp", &date(at(own, "/metadata/creationTimestamp")));
    let taint = |own: &Value| {
        let value = at(own, "/value");
        let joined = if value.is_empty() { String::new() } else { format!("={value}") };
        format!("{}{joined}:{}", at(own, "/key"), at(own, "/effect"))
    };
    let taints: Vec<String> = items(own, "/spec/taints").iter().map(taint).collect();
    out.line(0, "Taints", &if taints.is_empty() { "<none>".to_owned() } else { taints.join("\n\t") });
    let unschedulable = own.pointer("/spec/unschedulable").and_then(Value::as_bool).unwrap_or(false);
    out.line(0, "Unschedulable", &unschedulable.to_string());
    out.conditions(own, &["type", "status", "lastHeartbeatTime", "lastTransitionTime", "reason", "message"]);
    out.title(0, "Addresses");
    items(own, "/status/addresses")
        .iter()
        .for_each(|address| out.line(1, at(address, "/type"), at(address, "/address")));
    for (title, pointer) in [("Capacity", "/status/capacity"), ("Allocatable", "/status/allocatable")] {
        out.title(0, title);
        for (name, amount) in own.pointer(pointer).and_then(Value::as_object).into_iter().flatten() {
            out.line(1, name, &plain(amount));
        }
    }
    out.title(0, "System Info");
    let titles = [
        ("Machine ID", "machineID"),
        ("System UUID", "systemUUID"),
        ("Boot ID", "bootID"),
        ("Kernel Version", "kernelVersion"),
        ("OS Image", "osImage"),
        ("Operating System", "operatingSystem"),
        ("Architecture", "architecture"),
        ("Container Runtime Version", "containerRuntimeVersion"),
        ("Kubelet Version", "kubeletVersion"),
    ];
    titles.iter().for_each(|(title, field)| out.line(1, title, at(own, &format!("/status/nodeInfo/{field}"))));
    out.line_if(0, "PodCIDR", at(own, "/spec/podCIDR"));
    pods_of_node(out, pods);
}

fn pods_of_node(out: &mut Text, pods: &[Value]) {
    let done = |pod: &&Value| !matches!(at(pod, "/status/phase"), "Succeeded" | "Failed");
    let pods: Vec<&Value> = pods.iter().filter(done).collect();
    out.line(0, "Non-terminated Pods", &format!("({} in total)", pods.len()));
    out.raw("  Namespace\tName\tCPU Requests\tMemory Requests\n  ---------\t----\t------------\t---------------\n");
    for pod in pods {
        let requests = |name: &str| {
            let own = items(pod, "/spec/containers").iter().map(|own| at(own, &format!("/resources/requests/{name}")));
            let all: Vec<&str> = own.filter(|own| !own.is_empty()).collect();
            if all.is_empty() { "0".to_owned() } else { all.join("+") }
        };
        let (namespace, name) = (at(pod, "/metadata/namespace"), at(pod, "/metadata/name"));
        out.raw(&format!("  {namespace}\t{name}\t{}\t{}\n", requests("cpu"), requests("memory")));
    }
}

/// A ConfigMap with its data.
pub(super) fn config_map(out: &mut Text, own: &Value) {
    out.meta(own);
    out.raw("\nData\n====\n");
    for (key, value) in own.pointer("/data").and_then(Value::as_object).into_iter().flatten() {
        out.raw(&format!("{key}:\n----\n{}\n\n", plain(value)));
    }
    out.raw("\nBinaryData\n====\n");
    for (key, value) in own.pointer("/binaryData").and_then(Value::as_object).into_iter().flatten() {
        out.raw(&format!("{key}: {} bytes\n", decoded_len(value)));
    }
    out.raw("\n");
}

fn decoded_len(value: &Value) -> usize {
    base64::engine::general_purpose::STANDARD.decode(plain(value)).map_or(0, |bytes| bytes.len())
}

/// A Secret: sizes, never contents.
pub(super) fn secret(out: &mut Text, own: &Value) {
    out.meta(own);
    out.raw(&format!("\nType:\t{}\n\nData\n====\n", at(own, "/type")));
    for (key, value) in own.pointer("/data").and_then(Value::as_object).into_iter().flatten() {
        out.raw(&format!("{key}:\t{} bytes\n", decoded_len(value)));
    }
}

/// A Namespace. `limits`: whether the server knows quotas and limit ranges.
pub(super) fn namespace(out: &mut Text, own: &Value, limits: bool) {
    out.meta(own);
    out.line(0, "Status", at(own, "/status/phase"));
    if !items(own, "/status/conditions").is_empty() {
        out.conditions(own, &["type", "status", "lastTransitionTime", "reason", "message"]);
    } else if limits {
        out.raw("\nNo resource quota.\n\nNo LimitRange resource.\n");
    }
}

/// A ServiceAccount.
pub(super) fn service_account(out: &mut Text, own: &Value) {
    out.meta(own);
    for (title, pointer) in [("Image pull secrets", "/imagePullSecrets"), ("Mountable secrets", "/secrets")] {
        let names: Vec<&str> = items(own, pointer).iter().map(|own| at(own, "/name")).collect();
        out.line(0, title, &if names.is_empty() { "<none>".to_owned() } else { names.join(", ") });
    }
    // Tokens are asked for when they are needed; there are no lasting ones.
    out.line(0, "Tokens", "<none>");
}

/// Any other object: its fields, titled and indented.
pub(super) fn any(out: &mut Text, own: &Value) {
    out.meta(own);
    out.line(0, "API Version", at(own, "/apiVersion"));
    out.line(0, "Kind", at(own, "/kind"));
    out.title(0, "Metadata");
    out.line(1, "Creation Timestamp", at(own, "/metadata/creationTimestamp"));
    out.line_if(1, "Resource Version", at(own, "/metadata/resourceVersion"));
    out.line_if(1, "UID", at(own, "/metadata/uid"));
    let known = ["apiVersion", "kind", "metadata"];
    for (key, value) in own.as_object().into_iter().flatten().filter(|(key, _)| !known.contains(&key.as_str())) {
        field(out, 0, &spaced(key), value);
    }
}

/// `clusterIP` → `Cluster IP`
fn spaced(key: &str) -> String {
    let mut title = String::new();
    let mut before = ' ';
    for c in key.chars() {
        if title.is_empty() {
            title.extend(c.to_uppercase());
        } else {
            if c.is_uppercase() && !before.is_uppercase() {
                title.push(' ');
            }
            title.push(c);
        }
        before = c;
    }
    title
}

fn field(out: &mut Text, level: usize, title: &str, value: &Value) {
    match value {
        Value::Object(map) if map.is_empty() => out.title(level, title),
        Value::Object(map) => {
            out.title(level, title);
            map.iter().for_each(|(key, value)| field(out, level + 1, &spaced(key), value));
        }
        Value::Array(list) => {
            out.title(level, title);
            for item in list {
                match item {
                    Value::Object(map) => {
                        map.iter().for_each(|(key, value)| field(out, level + 1, &spaced(key), value))
                    }
                    plain_item => out.raw(&format!("{}{}\n", "  ".repeat(level + 1), plain(plain_item))),
                }
            }
        }
        other => out.line(level, title, &plain(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubectl::output::tabwriter;

    #[test]
    fn an_object_of_any_kind_is_shown_field_by_field() {
        let own = serde_json::json!({"apiVersion": "x/v1", "kind": "K", "metadata": {"name": "n"},
            "spec": {"clusterIP": "1", "list": [{"a": 1}, {"a": 2}]}});
        let mut out = Text::default();
        any(&mut out, &own);
        let text = tabwriter::align(&out.finish());
        assert!(text.contains("Spec:\n  Cluster IP:  1\n  List:\n    A:  1\n    A:  2\n"), "{text}");
    }

    #[test]
    fn a_secret_shows_sizes_and_never_contents() {
        let own = serde_json::json!({"metadata": {"name": "s"}, "type": "Opaque", "data": {"k": "aGVsbG8="}});
        let mut out = Text::default();
        secret(&mut out, &own);
        let text = out.finish();
        assert!(text.contains("k:\t5 bytes") && !text.contains("aGVsbG8="), "{text}");
    }
}
