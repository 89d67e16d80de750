//! ConfigMaps, Secrets, Namespaces, ServiceAccounts, and kinds that have no describer of their own.

use base64::Engine as _;
use serde_json::Value;

use super::text::{Text, at, items, plain};

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
