//! `pods/NAME/binding`: the scheduler gives a pod its node, once.

use reeve_kinds::field::{FieldError, FieldErrorKind};
use serde_json::{Value, json};

use super::answer::{Object, Written};
use super::request::{Body, Request, Subresource};
use super::{Registry, encode, meta};
use crate::admission;
use crate::status::{self, ApiError};

/// How often a binding is tried on newer and newer states of the pod.
const ATTEMPTS_MAX: u32 = 8;

impl Registry {
    pub(super) async fn bind(&self, request: &Request, body: Body) -> Result<Written, ApiError> {
        let attributes = self.begin_transient(request, Self::body_of("binding", "Binding")?, body).await?;
        if meta::text(&attributes.object, "name") != request.name {
            return Err(ApiError::bad_request("name in URL does not match name in Binding object"));
        }
        let node = target(&attributes.object)?.to_owned();
        admission::validate(self, &attributes).await?;
        let binding = attributes.object;
        let pod = Request { subresource: Subresource::None, ..request.clone() };
        let mut current = self.current(&pod).await?;
        for _ in 0..ATTEMPTS_MAX {
            let old = encode::bare(&current);
            check_preconditions(&pod, &binding, &old, &current)?;
            let bound = self.bound(&old, &binding, &node).map_err(|why| conflict(&pod, &why))?;
            match self.write_raw(&pod, current.revision, &bound).await? {
                Ok(written) => return Ok(accepted(&written)),
                Err(Some(newer)) => current = newer,
                Err(None) => return Err(ApiError::not_found(pod.resource.names(), &pod.name)),
            }
        }
        Err(ApiError::modified(pod.resource.names(), &pod.name))
    }

    /// The pod on its node, or why it cannot go there.
    fn bound(&self, pod: &Value, binding: &Value, node: &str) -> Result<Value, String> {
        let name = meta::text(pod, "name");
        if meta::is_terminating(pod) {
            return Err(format!("pod {name} is being deleted, cannot be assigned to a host"));
        }
        match pod["spec"]["nodeName"].as_str() {
            None | Some("") => {}
            Some(there) => return Err(format!("pod {name} is already assigned to node \"{there}\"")),
        }
        if pod["spec"]["schedulingGates"].as_array().is_some_and(|gates| !gates.is_empty()) {
            return Err(format!("pod {name} has non-empty .spec.schedulingGates"));
        }
        let mut bound = pod.clone();
        if let Some(spec) = bound.get_mut("spec").and_then(Value::as_object_mut) {
            spec.insert("nodeName".to_owned(), node.into());
        }
        merge(&mut bound, binding, "annotations");
        merge(&mut bound, binding, "labels");
        if let Some(status) = bound.get_mut("status").and_then(Value::as_object_mut) {
            // Where the scheduler meant to put it is of no use any more.
            status.remove("nominatedNodeName");
        }
        self.set_scheduled(&mut bound);
        Ok(bound)
    }

    fn set_scheduled(&self, pod: &mut Value) {
        let Some(fields) = pod.as_object_mut() else { return };
        let status = fields.entry("status").or_insert_with(|| json!({}));
        let Some(status) = status.as_object_mut() else { return };
        let conditions = status.entry("conditions").or_insert_with(|| json!([]));
        let Some(conditions) = conditions.as_array_mut() else { return };
        conditions.retain(|condition| condition["type"] != "PodScheduled");
        conditions.push(json!({
            "type": "PodScheduled", "status": "True", "lastProbeTime": null,
            "lastTransitionTime": meta::time(self.clock.now()),
        }));
    }
}

/// What the binding says of the pod's annotations or labels wins.
fn merge(pod: &mut Value, binding: &Value, field: &str) {
    let Some(new) = meta::get(binding, field).as_object().filter(|new| !new.is_empty()) else { return };
    let mut all = meta::get(pod, field).as_object().cloned().unwrap_or_default();
    all.extend(new.iter().map(|(key, value)| (key.clone(), value.clone())));
    meta::set(pod, field, all);
}

/// The binding may name the pod's uid and version.
fn check_preconditions(request: &Request, binding: &Value, pod: &Value, current: &Object) -> Result<(), ApiError> {
    let names = request.resource.names();
    meta::check_uid(binding, pod, names, request.options.dry_run)?;
    let (asked, there) = (meta::text(binding, "resourceVersion"), current.revision.to_string());
    if asked.is_empty() || asked == there {
        return Ok(());
    }
    Err(meta::version_mismatch(names, pod, asked, &there))
}

/// The node a binding names. Kubernetes answers a complaint about it as if it were its own fault.
fn target(binding: &Value) -> Result<&str, ApiError> {
    let (kind, name) = (&binding["target"]["kind"], binding["target"]["name"].as_str().unwrap_or_default());
    let mut errors = Vec::new();
    if !matches!(kind.as_str().unwrap_or_default(), "" | "Node") {
        let detail = "supported values: \"Node\", \"<empty>\"";
        errors.push(FieldError::new(FieldErrorKind::NotSupported, "target.kind", kind.clone(), detail));
    }
    if name.is_empty() {
        errors.push(FieldError::new(FieldErrorKind::Required, "target.name", Value::Null, ""));
    }
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    match texts.as_slice() {
        [] => Ok(name),
        [one] => Err(ApiError::unknown(one.as_str())),
        several => Err(ApiError::unknown(format!("[{}]", several.join(", ")))),
    }
}

fn conflict(request: &Request, why: &str) -> ApiError {
    let mut error = ApiError::conflict(request.resource.names(), &request.name, why);
    error.message = format!("Operation cannot be fulfilled on pods/binding \"{}\": {why}", request.name);
    if let Some(details) = &mut error.details {
        details.kind = "pods/binding".to_owned();
    }
    error
}

fn accepted(pod: &Object) -> Written {
    let status = status::success(None, 201);
    let object = Object::whole(status.to_string(), pod.revision);
    Written { object, created: true, is_status: true, warnings: Vec::new() }
}
