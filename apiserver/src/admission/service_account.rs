//! ServiceAccount: each pod runs as a service account that exists, with its token, the cluster's CA and the
//! namespace mounted where client libraries look for them.

use std::time::Duration;

use reeve_api::rng::RngExt as _;
use serde_json::{Map, Value, json};

use super::{Attributes, forbidden};
use crate::registry::{Object, Registry};
use crate::status::ApiError;

/// Where the token and its companions are mounted; fixed by client libraries.
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// What the names of these volumes begin with.
const VOLUME_PREFIX: &str = "kube-api-access-";

/// Life of a token: an hour, and the seven seconds by which Kubernetes marks tokens of this kind.
const TOKEN_SECONDS: i64 = 3607;

/// The account of pods that name none; made by a controller a moment after its namespace.
const DEFAULT: &str = "default";

/// How long a pod waits for the default account of a new namespace.
const DEFAULT_WAIT_MAX: Duration = Duration::from_secs(1);

/// Sets the account and mounts what belongs to it.
pub(super) async fn admit(registry: &Registry, attributes: &mut Attributes<'_>) -> Result<(), ApiError> {
    let name = account_name(&attributes.object);
    let namespace = &attributes.request.namespace;
    let Some(account) = find(registry, namespace, &name).await? else {
        let why = format!("error looking up service account {namespace}/{name}: serviceaccount \"{name}\" not found");
        return Err(forbidden(attributes, &why));
    };
    let account = account.value();
    let Some(spec) = attributes.object.get_mut("spec").and_then(Value::as_object_mut) else { return Ok(()) };
    spec.insert("serviceAccountName".to_owned(), name.as_str().into());
    spec.insert("serviceAccount".to_owned(), name.into());
    let pull_secrets = &account["imagePullSecrets"];
    let names_none = spec.get("imagePullSecrets").and_then(Value::as_array).is_none_or(Vec::is_empty);
    if names_none && pull_secrets.is_array() {
        spec.insert("imagePullSecrets".to_owned(), pull_secrets.clone());
    }
    let wanted = spec.get("automountServiceAccountToken").and_then(Value::as_bool);
    if wanted.or_else(|| account["automountServiceAccountToken"].as_bool()).unwrap_or(true) {
        let volumes = spec.get("volumes").and_then(Value::as_array).into_iter().flatten();
        let there = volumes.filter_map(|volume| volume["name"].as_str()).find(|name| name.starts_with(VOLUME_PREFIX));
        match there.map(str::to_owned) {
            // From an earlier round: containers that came since get it too.
            Some(volume) => _ = mount_into_all(spec, &volume),
            None => mount(spec, &format!("{VOLUME_PREFIX}{}", registry.rng.suffix(5))),
        }
    }
    Ok(())
}

fn account_name(pod: &Value) -> String {
    let stated = ["serviceAccountName", "serviceAccount"].iter().filter_map(|field| pod["spec"][*field].as_str());
    stated.into_iter().find(|name| !name.is_empty()).unwrap_or(DEFAULT).to_owned()
}

async fn find(registry: &Registry, namespace: &str, name: &str) -> Result<Option<Object>, ApiError> {
    let Some(accounts) = registry.core("serviceaccounts") else { return Ok(None) };
    if let Some(found) = registry.peek(&accounts, namespace, name) {
        return Ok(Some(found));
    }
    registry.fresh().await?;
    if name != DEFAULT {
        return Ok(registry.peek(&accounts, namespace, name));
    }
    let mut progress = registry.cache.progress();
    let appears = progress.wait_for(|_| registry.peek(&accounts, namespace, name).is_some());
    // Not there in time: the caller says so.
    let _ = tokio::time::timeout(DEFAULT_WAIT_MAX, appears).await.is_ok_and(|waited| waited.is_ok());
    Ok(registry.peek(&accounts, namespace, name))
}

/// Mounts the volume into every container that has nothing at its place; the volume is only made when one has not.
fn mount(spec: &mut Map<String, Value>, volume: &str) {
    if !mount_into_all(spec, volume) {
        return;
    }
    let volumes = spec.entry("volumes").or_insert_with(|| json!([]));
    if volumes.is_null() {
        *volumes = json!([]);
    }
    if let Some(volumes) = volumes.as_array_mut() {
        volumes.push(token_volume(volume));
    }
}

fn mount_into_all(spec: &mut Map<String, Value>, volume: &str) -> bool {
    let mut used = false;
    for list in ["initContainers", "containers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            used |= mount_into(container, volume);
        }
    }
    used
}

fn mount_into(container: &mut Value, volume: &str) -> bool {
    let Some(fields) = container.as_object_mut() else { return false };
    let mounts = fields.entry("volumeMounts").or_insert_with(|| json!([]));
    if mounts.is_null() {
        *mounts = json!([]);
    }
    let Some(mounts) = mounts.as_array_mut() else { return false };
    if mounts.iter().any(|mount| mount["mountPath"] == MOUNT_PATH) {
        return false;
    }
    mounts.push(json!({ "name": volume, "readOnly": true, "mountPath": MOUNT_PATH }));
    true
}

fn token_volume(name: &str) -> Value {
    json!({
        "name": name,
        "projected": { "defaultMode": 420, "sources": [
            { "serviceAccountToken": { "expirationSeconds": TOKEN_SECONDS, "path": "token" } },
            { "configMap": { "name": "kube-root-ca.crt", "items": [{ "key": "ca.crt", "path": "ca.crt" }] } },
            { "downwardAPI": { "items": [
                { "path": "namespace", "fieldRef": { "apiVersion": "v1", "fieldPath": "metadata.namespace" } },
            ] } },
        ] },
    })
}
