//! `/exec/…`, `/attach/…`, `/portForward/…`: finds out which container or sandbox is meant; then the streams run.

use std::sync::Arc;

use http::{Request, StatusCode};
use hyper::body::Incoming;
use reeve_streaming::port_forward::Place;
use reeve_streaming::remote::{Kind, StreamOptions, Wanted};
use reeve_streaming::{Begun, port_forward, remote};

use super::{Answer, Backend, Target, query, text};

/// Runs a command in a container, or joins its first process.
pub(super) fn remote(backend: &Arc<Backend>, target: &Target<'_>, kind: Kind, request: Request<Incoming>) -> Answer {
    let options = StreamOptions::of(&query(request.uri().query()));
    if !options.has_stream() {
        return text(StatusCode::BAD_REQUEST, "you must specify at least 1 of stdin, stdout, stderr");
    }
    let container = match container_of(backend, target, kind) {
        Ok(id) => id,
        Err((code, message)) => return text(code, message),
    };
    let wanted = Wanted { engine: Arc::clone(&backend.node.engine), container, kind, options };
    begin(backend, "remote command", remote::serve(wanted, request))
}

/// Leads connections to ports of a pod.
pub(super) async fn port_forward(
    backend: &Arc<Backend>,
    namespace: &str,
    pod: &str,
    request: Request<Incoming>,
) -> Answer {
    let place = async {
        let sandbox = backend.views.get(namespace, pod).and_then(|view| view.borrow().sandbox.clone());
        let place = sandbox.map(|sandbox| Place::new(Arc::clone(&backend.node.engine), sandbox));
        place.ok_or_else(|| text(StatusCode::NOT_FOUND, format!("pod not found (\"{pod}_{namespace}\")")))
    };
    begin(backend, "port forward", port_forward::serve(place, request).await)
}

fn begin(backend: &Backend, name: &'static str, begun: Begun) -> Answer {
    if let Some(session) = begun.session {
        backend.node.component.spawn(name, session);
    }
    begun.answer
}

/// The id of a running container, or the kubelet's reason why there is none.
fn container_of(backend: &Backend, target: &Target<'_>, kind: Kind) -> Result<String, (StatusCode, String)> {
    let (pod, name) = (target.pod, target.container);
    let view = backend.views.get(target.namespace, pod);
    let view = view.ok_or_else(|| (StatusCode::NOT_FOUND, "pod does not exist".to_owned()))?;
    let view = view.borrow();
    let found = view.containers.iter().find(|view| view.name == name);
    let id = found.filter(|found| found.running).and_then(|found| found.id.clone());
    id.ok_or_else(|| {
        let message = match kind {
            Kind::Exec => format!("container not found (\"{name}\")"),
            Kind::Attach => format!("container {name} not found in pod {pod}_{}", target.namespace),
        };
        (StatusCode::INTERNAL_SERVER_ERROR, message)
    })
}
