//! `componentstatuses`: whether scheduler, controllers and store work, found out when somebody asks.
//!
//! Nothing is stored, so there is nothing to watch. Source: Kubernetes' `pkg/registry/core/componentstatus`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{Method, StatusCode};
use reeve_kinds::Names;
use reeve_store::Revision;

use super::encode::Encoder;
use super::negotiate::{self, Offer};
use super::response::{self, Answer};
use super::{Api, Call, query};
use crate::cache::{Filter, Lazy, ResourceCache};
use crate::registry::{List, Object, Request, Resource, Subresource, Warnings};
use crate::status::ApiError;

/// The components in Kubernetes' order; the name of the store is Kubernetes', whatever it is.
const COMPONENTS: [&str; 3] = ["controller-manager", "scheduler", STORE];
const STORE: &str = "etcd-0";

/// Which components of this process are running. Cheap to clone; clones know the same.
#[derive(Debug, Clone, Default)]
pub struct RunningComponents(Arc<Mutex<BTreeMap<&'static str, usize>>>);

/// A component runs as long as this is there.
#[derive(Debug)]
pub struct Running {
    name: &'static str,
    all: RunningComponents,
}

impl RunningComponents {
    /// Says that `scheduler` or `controller-manager` runs, until the answer is dropped.
    #[must_use]
    pub fn enter(&self, name: &'static str) -> Running {
        self.with(|all| *all.entry(name).or_default() += 1);
        Running { name, all: self.clone() }
    }

    fn is_running(&self, name: &str) -> bool {
        self.with(|all| all.get(name).is_some_and(|number| *number > 0))
    }

    fn with<T>(&self, work: impl FnOnce(&mut BTreeMap<&'static str, usize>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.all.with(|all| {
            if let Some(number) = all.get_mut(self.name) {
                *number = number.saturating_sub(1);
            }
        });
    }
}

/// What answering needs.
pub(crate) struct ComponentStatuses {
    /// A resource without a storage that is fed: it has names, columns and the form of a list.
    pub(crate) resource: Arc<Resource>,
    pub(crate) running: RunningComponents,
}

impl Default for ComponentStatuses {
    fn default() -> Self {
        let kind = reeve_kinds::component_status();
        let storage = ResourceCache::new(Bytes::from_static(b"/registry/core/componentstatuses/"), None);
        let resource = Arc::new(Resource::new(kind, Arc::new(storage), None));
        Self { resource, running: RunningComponents::default() }
    }
}

/// Whether the path means them.
pub(crate) fn is_meant(path: &super::route::ResourcePath) -> bool {
    (path.group.as_str(), path.version.as_str(), path.resource.as_str()) == ("", "v1", "componentstatuses")
}

/// Answers a request for them.
pub(crate) async fn serve(api: &Api, call: Call) -> Result<Answer, ApiError> {
    let path = &call.path;
    if path.is_longer || !path.subresource.is_empty() || !path.namespace.is_empty() {
        return Err(ApiError::no_such_path());
    }
    let resource = &api.components.resource;
    if !matches!(call.parts.method, Method::GET | Method::HEAD) || (call.verb == "watch" && path.is_watch) {
        return Err(ApiError::method_not_allowed());
    }
    let deprecated = resource.kind.deprecation().unwrap_or_default().to_owned();
    let answered = answer(api, call, resource).await;
    match answered {
        Ok(mut answer) => {
            response::warn(&mut answer, &[deprecated]);
            Ok(answer)
        }
        Err(error) => Err(ApiError { warnings: vec![deprecated], ..error }),
    }
}

async fn answer(api: &Api, call: Call, resource: &Arc<Resource>) -> Result<Answer, ApiError> {
    if call.verb == "watch" {
        return Err(ApiError::method_not_supported(resource.names(), "watch"));
    }
    let format =
        negotiate::format(&call.parts.headers, &call.query, Offer { protobuf: true, table: true, metadata: true })?;
    let encoder = Encoder { resource, format, now: api.clock.now() };
    let name = &call.path.name;
    if !name.is_empty() {
        if !COMPONENTS.contains(&name.as_str()) {
            let names = Names { plural: "componentstatus", ..resource.names().clone() };
            return Err(ApiError::not_found(&names, name));
        }
        return encoder.object(StatusCode::OK, &status(api, name).await).await;
    }
    let request = Request {
        user: call.user,
        resource: Arc::clone(resource),
        namespace: String::new(),
        name: String::new(),
        subresource: Subresource::None,
        options: query::options(&call.query, "list")?,
        warnings: Warnings::default(),
    };
    let filter = Filter::new(&request)?;
    let mut items = Vec::new();
    for name in COMPONENTS {
        let object = status(api, name).await;
        if filter.matches(name.as_bytes(), &Lazy::new(&object)) {
            items.push(object);
        }
    }
    encoder.list(List { revision: Revision(0), continue_token: String::new(), remaining: None, items }).await
}

async fn status(api: &Api, name: &str) -> Object {
    let (status, message) = match name {
        STORE if api.health.store_answers().await => HEALTHY,
        STORE => ("False", "the store does not answer"),
        name if api.components.running.is_running(name) => HEALTHY,
        _ => ("False", "it is not running"),
    };
    // In the order of the fields, as all objects are sent.
    let condition = format!(r#"{{"type":"Healthy","status":"{status}","message":"{message}"}}"#);
    let head = format!(r#"{{"kind":"ComponentStatus","apiVersion":"v1","metadata":{{"name":"{name}"}}"#);
    Object::whole(format!("{head},\"conditions\":[{condition}]}}"), Revision(0))
}

const HEALTHY: (&str, &str) = ("True", "ok");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_component_runs_as_long_as_somebody_says_so() {
        let running = RunningComponents::default();
        let (first, second) = (running.enter("scheduler"), running.clone().enter("scheduler"));
        drop(first);
        assert!(running.is_running("scheduler") && !running.is_running("controller-manager"));
        drop(second);
        assert!(!running.is_running("scheduler"));
    }
}
