//! Asking a cluster from outside whether it is ready, with its own admin kubeconfig.

use std::path::Path;
use std::time::Duration;

use super::error::{ClusterError, at};
use super::kubeconfig::Entry;

/// Whether the API server of that kubeconfig answers `/readyz` with 200 in time.
pub(crate) fn is_ready(kubeconfig: &Path, wait: Duration) -> bool {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return false };
    runtime.block_on(async { tokio::time::timeout(wait, ask(kubeconfig)).await.unwrap_or(false) })
}

async fn ask(kubeconfig: &Path) -> bool {
    let Ok(file) = kube::config::Kubeconfig::read_from(kubeconfig) else { return false };
    let Ok(config) = kube::Config::from_custom_kubeconfig(file, &kube::config::KubeConfigOptions::default()).await
    else {
        return false;
    };
    let Ok(client) = kube::Client::try_from(config) else { return false };
    let Ok(request) = http::Request::get("/readyz").body(Vec::new()) else { return false };
    client.request_text(request).await.is_ok()
}

/// The entry of a cluster's own kubeconfig, for merging it into the user's.
pub(crate) fn entry_from(path: &Path) -> Result<Entry, ClusterError> {
    use base64::Engine as _;
    let refuse = |reason: &str| ClusterError::Kubeconfig { path: path.to_path_buf(), reason: reason.to_owned() };
    let text = std::fs::read_to_string(path).map_err(|err| ClusterError::io(at("read", path), err))?;
    let tree: serde_yaml::Value = serde_yaml::from_str(&text).map_err(|err| refuse(&err.to_string()))?;
    let field = |list: &str, inner: &str, name: &str| -> Result<String, ClusterError> {
        let value = tree.get(list).and_then(|list| list.get(0)).and_then(|item| item.get(inner));
        let value = value.and_then(|inner| inner.get(name)).and_then(serde_yaml::Value::as_str);
        value.map(str::to_owned).ok_or_else(|| refuse(&format!("{list}[0].{inner}.{name} is missing")))
    };
    let pem = |encoded: String| -> Result<String, ClusterError> {
        let bytes =
            base64::engine::general_purpose::STANDARD.decode(encoded).map_err(|err| refuse(&err.to_string()))?;
        String::from_utf8(bytes).map_err(|err| refuse(&err.to_string()))
    };
    let name = tree.get("current-context").and_then(serde_yaml::Value::as_str);
    Ok(Entry {
        name: name.ok_or_else(|| refuse("current-context is missing"))?.to_owned(),
        server: field("clusters", "cluster", "server")?,
        ca_pem: pem(field("clusters", "cluster", "certificate-authority-data")?)?,
        cert_pem: pem(field("users", "user", "client-certificate-data")?)?,
        key_pem: pem(field("users", "user", "client-key-data")?)?,
    })
}
