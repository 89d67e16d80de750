//! `POST /checkpoint/NAMESPACE/POD/CONTAINER`: a running container into an archive of the node.
//!
//! Source: kubelet `Server.checkpoint` and `Kubelet.CheckpointContainer`. Who may ask is decided by the API server: the
//! node's own server talks to nobody else.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, StatusCode, header};
use jiff::Timestamp;
use serde_json::json;

use super::{Answer, Backend, Target, text};

/// Makes a checkpoint and answers with its place.
pub(super) async fn make(backend: &Arc<Backend>, target: &Target<'_>, query: &[(String, String)]) -> Answer {
    let (namespace, pod, name) = (target.namespace, target.pod, target.container);
    let Some(view) = backend.views.get(namespace, pod) else {
        return text(StatusCode::NOT_FOUND, "pod does not exist");
    };
    let found = view.borrow().containers.iter().find(|view| view.name == name).cloned();
    let Some(found) = found else {
        return text(StatusCode::NOT_FOUND, format!("container {name} does not exist"));
    };
    let timeout = match timeout(query) {
        Ok(timeout) => timeout,
        Err(message) => return text(StatusCode::NOT_FOUND, message),
    };
    let failed = |why: String| {
        let message = format!("checkpointing of {namespace}/{pod}/{name} failed ({why})");
        text(StatusCode::INTERNAL_SERVER_ERROR, message)
    };
    let Some(id) = found.id.filter(|_| found.running) else {
        return failed(format!("container {name} not found"));
    };
    let dir = backend.node.config.data_dir.join("checkpoints");
    if let Err(error) = tokio::fs::create_dir_all(&dir).await {
        return failed(format!("failed to make {}: {error}", dir.display()));
    }
    let place = place(&dir, target, backend.node.now());
    if let Err(error) = backend.node.engine.checkpoint_container(&id, &place, timeout).await {
        return failed(error.to_string());
    }
    let mut answer = text(StatusCode::OK, json!({ "items": [place] }).to_string());
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

/// The kubelet's name of the archive.
fn place(dir: &Path, target: &Target<'_>, now: Timestamp) -> PathBuf {
    let Target { namespace, pod, container } = target;
    let second = Timestamp::from_second(now.as_second()).unwrap_or(now);
    dir.join(format!("checkpoint-{pod}_{namespace}-{container}-{second}.tar"))
}

/// The last one that is given, in seconds; zero means the engine's own.
fn timeout(query: &[(String, String)]) -> Result<Option<Duration>, &'static str> {
    let Some((_, text)) = query.iter().rfind(|(key, _)| key == "timeout") else { return Ok(None) };
    let seconds: i64 = text.parse().map_err(|_| "cannot parse value of timeout parameter")?;
    Ok(u64::try_from(seconds).ok().filter(|seconds| *seconds > 0).map(Duration::from_secs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_is_named_as_the_kubelet_names_it() {
        let target = Target { namespace: "shop", pod: "web", container: "main" };
        let path = place(Path::new("/c"), &target, Timestamp::from_millisecond(1_700_000_000_500).unwrap());
        assert_eq!(path, Path::new("/c/checkpoint-web_shop-main-2023-11-14T22:13:20Z.tar"));
    }

    #[test]
    fn the_last_timeout_counts() {
        let query = |values: &[&str]| -> Vec<(String, String)> {
            values.iter().map(|value| ("timeout".to_owned(), (*value).to_owned())).collect()
        };
        assert_eq!(timeout(&query(&[])), Ok(None));
        assert_eq!(timeout(&query(&["x", "7"])), Ok(Some(Duration::from_secs(7))));
        assert_eq!(timeout(&query(&["0"])), Ok(None));
        assert_eq!(timeout(&query(&["7", "x"])), Err("cannot parse value of timeout parameter"));
    }
}
