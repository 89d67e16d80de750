//! `/containerLogs/NAMESPACE/POD/CONTAINER`: what `kubectl logs` shows.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode, header};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use jiff::Timestamp;
use reeve_streaming::truth;
use tokio::sync::{mpsc, watch};

use super::{Answer, Backend, Target, query, text};
use crate::logs::follow::{Ended, LogOptions, stream};
use crate::pod::view::{ContainerView, PodView};

/// Pieces of a log between the file and the client. When it is full, reading waits for the client.
const PIECES: usize = 4;

/// Answers with the log, or with the kubelet's reason why there is none.
pub(crate) async fn serve(backend: &Arc<Backend>, target: &Target<'_>, raw_query: Option<&str>) -> Answer {
    let (options, previous) = match options(&query(raw_query), backend.node.now()) {
        Ok(options) => options,
        Err(message) => return text(StatusCode::BAD_REQUEST, message),
    };
    let Some(view) = backend.views.get(target.namespace, target.pod) else {
        return text(StatusCode::NOT_FOUND, format!("pod \"{}\" does not exist", target.pod));
    };
    let (path, attempt) = match log_of(backend, target, &view.borrow(), previous) {
        Ok(found) => found,
        Err((code, message)) => return text(code, message),
    };
    let ended = options.follow.then(|| ended(view, target.container.to_owned(), attempt));
    let (sink, pieces) = mpsc::channel(PIECES);
    backend.node.component.spawn("log", async move {
        if let Err(error) = stream(&path, &options, ended, &sink).await {
            // Without a receiver the client has gone.
            let _ = sink.send(Err(error)).await;
        }
    });
    let frames = futures::stream::unfold(pieces, |mut pieces: mpsc::Receiver<std::io::Result<Bytes>>| async {
        pieces.recv().await.map(|piece| (piece.map(Frame::data), pieces))
    });
    let mut answer = Response::new(StreamBody::new(frames).boxed());
    let kind = header::HeaderValue::from_static("text/plain; charset=utf-8");
    answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    answer
}

/// The log file of the wanted life of a container, and which life that is.
fn log_of(
    backend: &Backend,
    target: &Target<'_>,
    view: &PodView,
    previous: bool,
) -> Result<(PathBuf, u32), (StatusCode, String)> {
    let (pod, container) = (target.pod, target.container);
    let found = view.containers.iter().find(|view| view.name == container);
    let missing = || (StatusCode::NOT_FOUND, format!("container \"{container}\" not found in pod \"{pod}\""));
    let found = found.ok_or_else(missing)?;
    let attempt = wanted_life(found, previous, pod).map_err(|why| (StatusCode::BAD_REQUEST, why))?;
    let uid = view.pod.as_ref().and_then(|pod| pod.metadata.uid.clone()).unwrap_or_default();
    let dir = backend.node.config.log_dir(target.namespace, pod, &uid);
    Ok((dir.join(container).join(format!("{attempt}.log")), attempt))
}

/// Source: kubelet `validateContainerLogStatus`.
fn wanted_life(view: &ContainerView, previous: bool, pod: &str) -> Result<u32, String> {
    let name = &view.name;
    if previous {
        return view
            .previous
            .ok_or_else(|| format!("previous terminated container \"{name}\" in pod \"{pod}\" not found"));
    }
    match (&view.id, &view.waiting) {
        (Some(_), _) => Ok(view.attempt),
        (None, Some(reason)) => Err(format!("container \"{name}\" in pod \"{pod}\" is waiting to start: {reason}")),
        (None, None) => Err(format!("container \"{name}\" in pod \"{pod}\" is not available")),
    }
}

/// Resolves when that life of the container is over.
fn ended(mut view: watch::Receiver<PodView>, container: String, attempt: u32) -> Ended {
    Box::pin(async move {
        let over = |view: &PodView| {
            let current = view.containers.iter().find(|view| view.name == container);
            current.is_none_or(|current| !current.running || current.attempt != attempt)
        };
        // An error means that the pod is gone.
        let _ = view.wait_for(over).await;
    })
}

/// Reads the query. `previous` is not an option of the log but of which one.
fn options(pairs: &[(String, String)], now: Timestamp) -> Result<(LogOptions, bool), String> {
    let mut options = LogOptions::default();
    let mut previous = false;
    for (key, value) in pairs {
        match key.as_str() {
            "follow" => options.follow = truth(value),
            "previous" => previous = truth(value),
            "timestamps" => options.timestamps = truth(value),
            "tailLines" => options.tail_lines = Some(number(key, value)?),
            "limitBytes" => options.limit_bytes = Some(number(key, value)?),
            "sinceSeconds" => {
                let since: u64 = number(key, value)?;
                let since =
                    now.checked_sub(jiff::SignedDuration::try_from(Duration::from_secs(since)).unwrap_or_default());
                options.since = Some(since.unwrap_or(Timestamp::MIN));
            }
            "sinceTime" => options.since = Some(number(key, value)?),
            "stream" if value == "Stdout" => options.stream = Some("stdout".to_owned()),
            "stream" if value == "Stderr" => options.stream = Some("stderr".to_owned()),
            _ => {}
        }
    }
    Ok((options, previous))
}

fn number<T: FromStr>(key: &str, value: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("invalid value {value:?} for {key}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(id: Option<&str>, waiting: Option<&str>, previous: Option<u32>) -> ContainerView {
        ContainerView {
            name: "c".to_owned(),
            id: id.map(str::to_owned),
            attempt: 2,
            running: id.is_some(),
            previous,
            waiting: waiting.map(str::to_owned),
        }
    }

    #[test]
    fn a_log_that_is_not_there_is_refused_in_the_kubelets_words() {
        assert_eq!(wanted_life(&view(Some("x"), None, None), false, "p"), Ok(2));
        assert_eq!(wanted_life(&view(Some("x"), None, Some(1)), true, "p"), Ok(1));
        assert_eq!(
            wanted_life(&view(Some("x"), None, None), true, "p").unwrap_err(),
            "previous terminated container \"c\" in pod \"p\" not found"
        );
        assert_eq!(
            wanted_life(&view(None, Some("ContainerCreating"), None), false, "p").unwrap_err(),
            "container \"c\" in pod \"p\" is waiting to start: ContainerCreating"
        );
    }

    #[test]
    fn the_query_is_the_kubelets() {
        let now = Timestamp::from_second(100).unwrap();
        let raw = "follow=true&tailLines=5&sinceSeconds=30&timestamps=1&previous=false&limitBytes=9";
        let (options, previous) = options(&query(Some(raw)), now).unwrap();
        assert!(!previous && options.follow && options.timestamps);
        assert_eq!((options.tail_lines, options.limit_bytes), (Some(5), Some(9)));
        assert_eq!(options.since, Some(Timestamp::from_second(70).unwrap()));
        assert!(super::options(&query(Some("tailLines=x")), now).is_err());
    }
}
