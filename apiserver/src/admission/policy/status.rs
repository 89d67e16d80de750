//! The status of ValidatingAdmissionPolicies: their expressions are checked against the types of the kinds that their
//! rules name, once for each generation. What is found is told and changes nothing else.
//!
//! Source: `validatingadmissionpolicy-status` of kube-controller-manager and `plugin/policy/validating/typechecking`.
//! It needs the schemas of all kinds, which are here.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::StreamExt as _;
use reeve_cel::Decl;
use reeve_kinds::Part;
use reeve_kinds::expressions::{TypeChecker, declaration};
use serde_json::{Value, json};
use tracing::warn;

use crate::admission::matching::texts;
use crate::custom::own_request;
use crate::registry::{Body, EventType, Patch, Registry, Resource, Resources, Subresource};
use crate::status::ApiError;

/// Whose fields the status is.
const MANAGER: &str = "validatingadmissionpolicy-status";

/// Most kinds that one rule is checked against.
const KINDS_MAX: usize = 10;

/// Pause before the policies are watched anew after a failure.
const RETRY: Duration = Duration::from_secs(1);

/// Follows the policies until the registry is stopped.
pub(crate) fn spawn(registry: &Arc<Registry>) {
    let policies = registry.resource("admissionregistration.k8s.io", "v1", "validatingadmissionpolicies");
    let Some(policies) = policies else { return };
    let (stop, registry) = (registry.cache.stop.clone(), Arc::downgrade(registry));
    tokio::spawn(async move { stop.run_until_cancelled(follow(registry, policies)).await });
}

async fn follow(registry: Weak<Registry>, policies: Arc<Resource>) {
    loop {
        let Some(strong) = registry.upgrade() else { return };
        // Without a version a watch begins with everything there is.
        let watch = strong.watch(&own_request(Arc::clone(&policies), "")).await;
        drop(strong);
        let ended = match watch {
            Ok(mut events) => loop {
                let Some(Ok(event)) = events.next().await else { break Ok(()) };
                let Some(registry) = registry.upgrade() else { return };
                if matches!(event.kind, EventType::Added | EventType::Modified)
                    && let Err(error) = look_at(&registry, &policies, &event.object.value()).await
                {
                    break Err(error);
                }
            },
            Err(error) => Err(error),
        };
        if let Err(error) = ended {
            warn!(%error, "The status of a policy cannot be written; trying again.");
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Checks a policy that has changed since it was looked at last.
async fn look_at(registry: &Registry, policies: &Arc<Resource>, policy: &Value) -> Result<(), ApiError> {
    let generation = policy["metadata"]["generation"].as_i64().unwrap_or_default();
    if generation <= policy["status"]["observedGeneration"].as_i64().unwrap_or_default() {
        return Ok(());
    }
    let warnings = warnings(&registry.resources(), &policy["spec"]);
    let checked = if warnings.is_empty() { json!({}) } else { json!({ "expressionWarnings": warnings }) };
    let name = policy["metadata"]["name"].as_str().unwrap_or_default();
    let status = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": { "name": name },
        "status": { "observedGeneration": generation, "typeChecking": checked },
    });
    let mut request = own_request(Arc::clone(policies), name);
    request.subresource = Subresource::Part(Part::Status);
    MANAGER.clone_into(&mut request.options.field_manager);
    request.options.force = Some(true);
    match registry.patch(&request, Patch::Apply(Body::from(status))).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}

/// What is wrong with a policy's expressions, as `expressionWarnings`.
fn warnings(resources: &Resources, spec: &Value) -> Vec<Value> {
    let kinds: Vec<(String, Decl)> = kinds(resources, spec)
        .into_iter()
        .filter_map(|((group, version, kind), resource)| {
            let shown = if group.is_empty() { format!("/{version}") } else { format!("{group}/{version}") };
            Some((format!("{shown}, Kind={kind}"), declaration(&*resource.kind)?))
        })
        .collect();
    if kinds.is_empty() {
        return Vec::new();
    }
    let params = params(resources, spec);
    let params = params.as_ref().map(Option::as_ref);
    let checkers: Vec<(&str, TypeChecker)> =
        kinds.iter().map(|(shown, decl)| (shown.as_str(), checker(decl, params, spec))).collect();
    let mut warnings = Vec::new();
    for (index, validation) in items(spec, "validations").enumerate() {
        for field in ["expression", "messageExpression"] {
            let text = validation[field].as_str().unwrap_or_default();
            if text.is_empty() && field == "messageExpression" {
                continue;
            }
            let found: Vec<String> = checkers
                .iter()
                .filter_map(|(shown, checker)| Some(format!("{shown}: {}\n", checker.check(text)?)))
                .collect();
            if !found.is_empty() {
                let place = format!("spec.validations[{index}].{field}");
                warnings.push(json!({ "fieldRef": place, "warning": found.join("\n") }));
            }
        }
    }
    warnings
}

fn items<'v>(owner: &'v Value, field: &str) -> impl Iterator<Item = &'v Value> + use<'v> {
    owner[field].as_array().into_iter().flatten()
}

fn checker(object: &Decl, params: Option<Option<&Decl>>, spec: &Value) -> TypeChecker {
    let mut checker = TypeChecker::new(object, params);
    for variable in items(spec, "variables") {
        let text = |field: &str| variable[field].as_str().unwrap_or_default();
        checker.variable(text("name"), text("expression"));
    }
    checker
}

/// None: the policy has no parameters; none within: nothing is known of their kind.
fn params(resources: &Resources, spec: &Value) -> Option<Option<Decl>> {
    let kind = spec.get("paramKind").filter(|kind| kind.is_object())?;
    let is_it = |resource: &&Arc<Resource>| {
        let names = resource.names();
        kind["apiVersion"] == names.api_version() && kind["kind"] == names.kind
    };
    Some(resources.iter().find(is_it).and_then(|resource| declaration(&*resource.kind)))
}

/// The kinds that rules name, in order of group, version and kind: without wildcards, for those mean nothing certain.
fn kinds<'r>(resources: &'r Resources, spec: &Value) -> BTreeMap<(&'r str, &'r str, &'r str), &'r Arc<Resource>> {
    let mut found = BTreeMap::new();
    for rule in items(&spec["matchConstraints"], "resourceRules") {
        let sorted = |field: &str| {
            let mut all = texts(rule, field);
            all.sort();
            all
        };
        let (groups, versions) = (sorted("apiGroups"), sorted("apiVersions"));
        if groups.iter().chain(&versions).any(|one| one.contains('*')) {
            continue;
        }
        let plurals = sorted("resources");
        let named = groups.iter().flat_map(|group| versions.iter().map(move |version| (group, version)));
        let named = named.flat_map(|(group, version)| plurals.iter().map(move |plural| (group, version, plural)));
        let known = named.filter_map(|(group, version, plural)| resources.get(group, version, plural));
        for (count, resource) in known.enumerate() {
            let names = resource.names();
            found.insert((names.group, names.version, names.kind), resource);
            // Enough is enough, also for the rules to come.
            if count + 1 == KINDS_MAX {
                return found;
            }
        }
    }
    found
}
