//! Which policies are asked about a request: every policy that is about it, with each binding that is, with each of the
//! binding's parameters. Decided before any of them is asked.

use serde_json::Value;

use super::book::Bound;
use super::compiled::{Binding, Common};
use super::{book, params};
use crate::admission::Attributes;
use crate::admission::matching::{self, Match};
use crate::registry::Registry;
use crate::status::ApiError;

/// A policy with a binding and its parameters, to be asked.
pub(super) struct Invocation<'p, P> {
    pub(super) policy: &'p P,
    pub(super) binding: &'p Binding,
    /// In which version it sees the request.
    pub(super) version: Match,
    /// Each set of parameters is asked about by itself.
    pub(super) params: Vec<Value>,
}

/// What a policy is about cannot be found out, or its parameters cannot be had.
pub(super) struct Misconfigured<'p> {
    pub(super) policy: &'p Common,
    /// None: the policy itself is at fault.
    pub(super) binding: Option<&'p Binding>,
    /// `failed to configure binding: …`
    pub(super) why: String,
}

/// What comes next for a request, in the order of policies and bindings.
pub(super) enum Step<'p, P> {
    Ask(Invocation<'p, P>),
    Fail(Misconfigured<'p>),
}

/// All steps for a request; `common` is what both kinds of policies have.
pub(super) async fn plan<'p, P>(
    registry: &Registry,
    attributes: &Attributes<'_>,
    policies: &'p [Bound<P>],
    common: fn(&P) -> &Common,
) -> Vec<Step<'p, P>> {
    let mut steps = Vec::new();
    for bound in policies {
        let policy = common(&bound.policy);
        let failed = |binding: Option<&'p Binding>, why: String| {
            let what = if binding.is_some() { "binding" } else { "policy" };
            Step::Fail(Misconfigured { policy, binding, why: format!("failed to configure {what}: {why}") })
        };
        let version = match policy.about.find(registry, attributes).await {
            Ok(Match::No) => continue,
            Ok(version) => version,
            Err(error) => {
                steps.push(failed(None, error.message));
                continue;
            }
        };
        if let Some(Err(why)) = policy.param_kind.as_ref().map(|kind| kind.resource(registry)) {
            steps.push(failed(None, why));
            continue;
        }
        for binding in &bound.bindings {
            match parameters(registry, attributes, policy, binding).await {
                Ok(None) => {}
                Ok(Some(params)) => {
                    let version = version.clone();
                    steps.push(Step::Ask(Invocation { policy: &*bound.policy, binding, version, params }));
                }
                Err(why) => steps.push(failed(Some(binding), why)),
            }
        }
    }
    steps
}

/// The parameters of a binding; none when it is not about the request.
async fn parameters(
    registry: &Registry,
    attributes: &Attributes<'_>,
    policy: &Common,
    binding: &Binding,
) -> Result<Option<Vec<Value>>, String> {
    if let Some(about) = &binding.about {
        let found = about.find(registry, attributes).await.map_err(|error| error.message)?;
        if matches!(found, Match::No) {
            return Ok(None);
        }
    }
    let kind = policy.param_kind.as_ref();
    params::collect(registry, kind, binding.params.as_ref(), attributes.namespace()).await.map(Some)
}

/// Whether no policy is asked about the request, whatever it is about.
pub(super) fn is_exempt(attributes: &Attributes<'_>) -> bool {
    book::is_exempt(&attributes.request.resource)
}

/// The namespace the request is in, as expressions see it: without what changes all the time. Null for what is in
/// none.
///
/// # Errors
/// When there is none of that name.
pub(super) async fn namespace_of(registry: &Registry, attributes: &Attributes<'_>) -> Result<Value, ApiError> {
    let (kind, name) = (attributes.kind, attributes.namespace());
    if name.is_empty() || (kind.group.is_empty() && kind.version == "v1" && kind.kind == "Namespace") {
        return Ok(Value::Null);
    }
    let mut object = matching::namespace(registry, name).await?.value();
    if let Some(fields) = object.as_object_mut() {
        fields.remove("apiVersion");
        fields.remove("kind");
    }
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
        metadata.remove("ownerReferences");
    }
    Ok(object)
}
