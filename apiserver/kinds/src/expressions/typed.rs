//! Checking expressions against the types of the kinds they are about. What is found changes nothing about how a
//! policy acts: it is told in the policy's status.
//!
//! Environment and wording are those of Kubernetes' type checker (`admission/plugin/policy/validating`): any value may
//! come out, and nothing is made ready to run.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use reeve_cel::{Decl, Env, Type};
use serde_json::{Map, Value};

use super::{BASE, plain, variables_decl};
use crate::kind::Kind;
use crate::openapi;

/// What references to schemas begin with.
const SCHEMAS: &str = "#/components/schemas/";

/// The declaration of a kind's objects; none when nothing is known of them, or when their type holds itself.
#[must_use]
pub fn declaration(kind: &dyn Kind) -> Option<Decl> {
    let openapi::Schemas { own, mut all, .. } = kind.schemas();
    for (name, schema) in openapi::of::<ObjectMeta>().all {
        all.entry(name).or_insert(schema);
    }
    if !is_finite(&all, &own, &mut BTreeSet::new()) {
        return None;
    }
    let resolve = |reference: &str| all.get(reference.strip_prefix(SCHEMAS)?);
    Decl::from_schema(all.get(&own)?, kind.names().kind, true, &resolve)
}

/// Whether no schema below this one refers to one that it is below.
fn is_finite(all: &Map<String, Value>, name: &str, above: &mut BTreeSet<String>) -> bool {
    let Some(schema) = all.get(name) else { return true };
    if !above.insert(name.to_owned()) {
        return false;
    }
    let mut below = BTreeSet::new();
    references(schema, &mut below);
    let finite = below.into_iter().all(|name| is_finite(all, name, above));
    above.remove(name);
    finite
}

fn references<'s>(schema: &'s Value, found: &mut BTreeSet<&'s str>) {
    match schema {
        Value::Object(fields) => {
            let own = fields.get("$ref").and_then(Value::as_str);
            found.extend(own.and_then(|reference| reference.strip_prefix(SCHEMAS)));
            fields.values().for_each(|value| references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

/// Checks the expressions of one policy against one kind.
#[derive(Debug)]
pub struct TypeChecker {
    env: Env,
    variables: BTreeMap<String, Type>,
}

impl TypeChecker {
    /// For objects as declared. `params` is there when the policy has parameters, and holds their declaration when it
    /// is known.
    #[must_use]
    pub fn new(object: &Decl, params: Option<Option<&Decl>>) -> Self {
        let mut env = BASE.clone().declared("object", object).declared("oldObject", object);
        env = match params {
            None => env,
            Some(None) => env.variable("params", Type::Dyn),
            Some(Some(params)) => env.declared("params", params),
        };
        let env = env.variable("authorizer", Type::object("kubernetes.authorization.Authorizer"));
        Self { env, variables: BTreeMap::new() }
    }

    /// Adds a variable, which later expressions may speak of, whatever is wrong with it.
    pub fn variable(&mut self, name: &str, text: &str) {
        let of = self.env().compile(text).map_or(Type::Dyn, |program| plain(program.output()));
        self.variables.insert(name.to_owned(), of);
    }

    /// What is wrong with an expression, as cel-go says it; none when nothing is.
    #[must_use]
    pub fn check(&self, text: &str) -> Option<String> {
        // Without issues only its running could fail, and that is not asked here.
        let error = self.env().compile(text).err().filter(|error| !error.issues().is_empty())?;
        Some(error.to_string())
    }

    fn env(&self) -> Env {
        self.env.clone().lazy_object("variables", &variables_decl(&self.variables))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployments() -> Decl {
        let kinds = crate::builtin();
        let kind = kinds.iter().find(|kind| kind.names().plural == "deployments").expect("it is served");
        declaration(&**kind).expect("it is described")
    }

    #[test]
    fn expressions_are_checked_against_the_fields_of_the_kind() {
        let decl = deployments();
        let mut checker = TypeChecker::new(&decl, None);
        checker.variable("replicas", "object.spec.replicas");
        checker.variable("broken", "object.spec.nope");
        for good in [
            "object.spec.replicas > 1 && object.metadata.namespace == 'a' && oldObject.spec.paused",
            "object.spec.template.spec.containers.all(c, c.image != '' && c.resources.limits['cpu'] == '1')",
            "variables.replicas + 1 == 2 && variables.broken == 'x'",
            "object.metadata.labels['a'] == 'b' && object.metadata.creationTimestamp < timestamp('2026-01-01T00:00:00Z')",
            "object.spec.strategy.rollingUpdate.maxSurge == '25%' && authorizer.path('/x').check('get').allowed()",
        ] {
            assert_eq!(checker.check(good), None, "{good}");
        }
        assert_eq!(
            checker.check("object.spec.replicas == '1'").as_deref(),
            Some(
                "ERROR: <input>:1:22: found no matching overload for '_==_' applied to '(int, string)'\n | object.spec.replicas == '1'\n | .....................^"
            )
        );
        let wrong = checker.check("object.spec.foo == 1 || variables.replicas == 'x'").expect("two issues");
        assert!(wrong.contains("undefined field 'foo'") && wrong.contains("applied to '(int, string)'"), "{wrong}");
        assert!(checker.check("params.x == 1").is_some_and(|issue| issue.contains("undeclared reference to 'params'")));
        assert_eq!(TypeChecker::new(&decl, Some(None)).check("params.x == 1"), None);
        let typed = TypeChecker::new(&decl, Some(Some(&decl)));
        assert!(typed.check("params.spec.replicas == ''").is_some());
    }

    #[test]
    fn every_kind_but_those_that_hold_themselves_is_described() {
        let without: Vec<_> = crate::builtin()
            .iter()
            .filter(|kind| declaration(&***kind).is_none())
            .map(|kind| kind.names().plural)
            .collect();
        assert_eq!(without, ["customresourcedefinitions"]);
    }
}
