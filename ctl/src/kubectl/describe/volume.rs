//! A pod's volumes.

use serde_json::Value;

use super::text::{Text, at, flag, items, plain};

/// All volumes of a pod or template.
pub(super) fn volumes(out: &mut Text, volumes: &[Value]) {
    if volumes.is_empty() {
        return out.line(0, "Volumes", "<none>");
    }
    out.title(0, "Volumes");
    for volume in volumes {
        out.title(1, at(volume, "/name"));
        let source = volume.as_object().into_iter().flatten().find(|(field, _)| *field != "name");
        match source {
            Some((kind, own)) => source_lines(out, kind, own),
            None => out.raw("  <unknown>\n"),
        }
    }
}

fn source_lines(out: &mut Text, kind: &str, own: &Value) {
    let optional = flag(own, "/optional").to_string();
    match kind {
        "configMap" => {
            let kind = "ConfigMap (a volume populated by a ConfigMap)";
            lines(out, kind, &[("Name", at(own, "/name")), ("Optional", &optional)]);
        }
        "secret" => {
            let kind = "Secret (a volume populated by a Secret)";
            lines(out, kind, &[("SecretName", at(own, "/secretName")), ("Optional", &optional)]);
        }
        "emptyDir" => {
            let kind = "EmptyDir (a temporary directory that shares a pod's lifetime)";
            let limit = own.get("sizeLimit").map(plain).filter(|limit| limit != "0");
            let limit = limit.unwrap_or_else(|| "<unset>".to_owned());
            lines(out, kind, &[("Medium", at(own, "/medium")), ("SizeLimit", &limit)]);
        }
        "hostPath" => {
            let kind = "HostPath (bare host directory volume)";
            let what = own.get("type").map_or_else(|| "<none>".to_owned(), plain);
            lines(out, kind, &[("Path", at(own, "/path")), ("HostPathType", &what)]);
        }
        "persistentVolumeClaim" => {
            let kind = "PersistentVolumeClaim (a reference to a PersistentVolumeClaim in the same namespace)";
            let read_only = flag(own, "/readOnly").to_string();
            lines(out, kind, &[("ClaimName", at(own, "/claimName")), ("ReadOnly", &read_only)]);
        }
        "nfs" => {
            let kind = "NFS (an NFS mount that lasts the lifetime of a pod)";
            let read_only = flag(own, "/readOnly").to_string();
            let all = [("Server", at(own, "/server")), ("Path", at(own, "/path")), ("ReadOnly", &read_only)];
            lines(out, kind, &all);
        }
        "csi" => csi(out, own),
        "image" => {
            let kind = "Image (a container image or OCI artifact)";
            lines(out, kind, &[("Reference", at(own, "/reference")), ("PullPolicy", at(own, "/pullPolicy"))]);
        }
        "projected" => projected(out, own),
        "downwardAPI" => downward(out, own),
        // Sources that Kubernetes knows and no pod here can have.
        _ => out.raw("  <unknown>\n"),
    }
}

fn lines(out: &mut Text, kind: &str, all: &[(&str, &str)]) {
    out.line(2, "Type", kind);
    all.iter().for_each(|(title, value)| out.line(2, title, value));
}

fn csi(out: &mut Text, own: &Value) {
    let read_only = flag(own, "/readOnly").to_string();
    let all = [("Driver", at(own, "/driver")), ("FSType", at(own, "/fsType")), ("ReadOnly", &read_only)];
    lines(out, "CSI (a Container Storage Interface (CSI) volume source)", &all);
    out.pairs(2, "VolumeAttributes", own.get("volumeAttributes"));
}

fn projected(out: &mut Text, volume: &Value) {
    out.line(2, "Type", "Projected (a volume that contains injected data from multiple sources)");
    for source in items(volume, "/sources") {
        for (field, title) in [("secret", "SecretName"), ("configMap", "ConfigMapName")] {
            if let Some(own) = source.get(field) {
                out.line(2, title, at(own, "/name"));
                out.line(2, "Optional", &flag(own, "/optional").to_string());
            }
        }
        if source.get("downwardAPI").is_some() {
            out.line(2, "DownwardAPI", "true");
        }
        if let Some(token) = source.get("serviceAccountToken") {
            out.line(2, "TokenExpirationSeconds", &token.get("expirationSeconds").map(plain).unwrap_or_default());
        }
    }
}

fn downward(out: &mut Text, volume: &Value) {
    out.line(2, "Type", "DownwardAPI (a volume populated by information about the pod)");
    out.title(2, "Items");
    for item in items(volume, "/items") {
        for pointer in ["/fieldRef/fieldPath", "/resourceFieldRef/resource"] {
            let from = at(item, pointer);
            if !from.is_empty() {
                out.raw(&format!("      {from} -> {}\n", at(item, "/path")));
            }
        }
    }
}
