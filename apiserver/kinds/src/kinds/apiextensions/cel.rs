//! Rules in CEL are accepted when they compile and when what they can cost at most is bearable.
//!
//! Source: `apis/apiextensions/validation` (validation.go, cel_validation.go).

use serde_json::Value;

use super::internal::rule_shown;
use super::openapi::{self, Place};
use crate::custom::rules::{Rule, cardinality, declared};
use crate::errors::Errors;
use crate::json::{entries, flag, get, has, int, list, text};
use crate::path::Path;

/// Most one rule may cost for a whole object, estimated.
const RULE_COST_MAX: u64 = 10_000_000;
/// Most all rules of a schema may cost together, estimated.
const SCHEMA_COST_MAX: u64 = 100_000_000;
/// How many of the costliest rules are told.
const COSTLIEST: usize = 4;

/// What all rules cost together.
#[derive(Default)]
struct Total {
    cost: u64,
    /// The costliest rules with their places, the first the most.
    costliest: Vec<(u64, String)>,
}

impl Total {
    fn add(&mut self, place: &Path<'_>, cost: u64) {
        self.cost = self.cost.saturating_add(cost);
        if cost >= SCHEMA_COST_MAX / 100 {
            self.costliest.push((cost, place.to_string()));
            self.costliest.sort_by_key(|rule| std::cmp::Reverse(rule.0));
            self.costliest.truncate(COSTLIEST);
        }
    }
}

/// What is known of the place where a schema stands.
#[derive(Clone)]
struct Here {
    /// How often the value can be in an object; none for as often as fits.
    often: Option<u64>,
    /// The list whose items have no old value.
    uncorrelated: Option<String>,
    root: bool,
}

/// Everything wrong with the rules of a schema that is structural. `limited`: whether single rules are held to their
/// limit; unchanged schemas are not.
pub(super) fn check(schema: &Value, path: &Path<'_>, place: &Place<'_>, limited: bool, errors: &mut Errors) {
    let mut walk = Walk { place, limited, total: Total::default(), errors };
    walk.schema(schema, path, &Here { often: Some(1), uncorrelated: None, root: true });
    let Total { cost, costliest } = walk.total;
    if cost <= SCHEMA_COST_MAX {
        return;
    }
    let detail = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
    for (_, place) in costliest {
        errors.forbidden(&Path::of(&place), detail);
    }
    let what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
    errors.forbidden(path, too_much(what, cost, SCHEMA_COST_MAX));
}

struct Walk<'w, 'p> {
    place: &'w Place<'p>,
    limited: bool,
    total: Total,
    errors: &'w mut Errors,
}

impl Walk<'_, '_> {
    fn schema(&mut self, schema: &Value, path: &Path<'_>, here: &Here) {
        let often = here.often.zip(most_elements(schema)).map(|(often, most)| often.saturating_mul(most));
        let inner = Here { often, uncorrelated: here.uncorrelated.clone(), root: false };
        let additional = get(schema, "additionalProperties");
        if additional.is_object() {
            self.schema(additional, &path.child("additionalProperties"), &inner);
        }
        let properties = path.child("properties");
        for (name, property) in entries(schema, "properties") {
            self.schema(property, &properties.key(name), &inner);
        }
        let items = get(schema, "items");
        if items.is_object() {
            let mut inner = inner;
            if text(schema, "x-kubernetes-list-type") != "map" && inner.uncorrelated.is_none() {
                inner.uncorrelated = Some(path.to_string());
            }
            self.schema(items, &path.child("items"), &inner);
        }
        if !list(schema, "x-kubernetes-validations").is_empty() {
            self.rules(schema, path, here);
        }
    }

    fn rules(&mut self, schema: &Value, path: &Path<'_>, here: &Here) {
        let mut found = Errors::default();
        openapi::check(schema, path, self.place, &mut found);
        if found.count() > 0 {
            return;
        }
        let embedded = flag(schema, "x-kubernetes-embedded-resource");
        let Some(decl) = declared(schema, here.root || embedded) else { return };
        let often = here.often.unwrap_or_else(|| cardinality(&decl));
        let path = path.child("x-kubernetes-validations");
        for (index, written) in list(schema, "x-kubernetes-validations").iter().enumerate() {
            let path = path.index(index);
            let rule = Rule::compile(written, schema, &decl);
            let cost = |program| Rule::cost(program, &decl).saturating_mul(often);
            self.cost(&path.child("rule"), "estimated rule cost", rule.program.as_ref().map_or(0, cost));
            if let Err(why) = &rule.program {
                self.errors.invalid_object(&path.child("rule"), rule_shown(written), why.as_str());
            }
            match &rule.message {
                Some(Err(why)) => {
                    self.errors.invalid_object(&path.child("messageExpression"), rule_shown(written), why.as_str());
                }
                Some(Ok(program)) => {
                    let cost = Rule::cost(program, &decl);
                    self.cost(&path.child("messageExpression"), "estimated messageExpression cost", cost);
                }
                None => {}
            }
            if rule.uses_old {
                if let Some(list) = &here.uncorrelated {
                    let detail =
                        format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {list}");
                    self.errors.invalid(&path.child("rule"), text(written, "rule"), detail);
                }
            } else if has(written, "optionalOldSelf") {
                let value = get(written, "optionalOldSelf").clone();
                let detail = "may not be set if oldSelf is not used in rule";
                self.errors.invalid(&path.child("optionalOldSelf"), value, detail);
            }
        }
    }

    fn cost(&mut self, path: &Path<'_>, what: &str, cost: u64) {
        if self.limited && cost > RULE_COST_MAX {
            self.errors.forbidden(path, too_much(what, cost, RULE_COST_MAX));
        }
        self.total.add(path, cost);
    }
}

/// How many values can be directly inside a value; none for as many as fit.
fn most_elements(schema: &Value) -> Option<u64> {
    let most = |field| int(schema, field).map(|most| u64::try_from(most).unwrap_or_default());
    match text(schema, "type") {
        "object" if has(schema, "additionalProperties") => most("maxProperties"),
        "array" => most("maxItems"),
        _ => Some(1),
    }
}

/// The text that something costs too much.
fn too_much(what: &str, cost: u64, limit: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "a rough factor is told")]
    let factor = cost as f64 / limit as f64;
    let factor = if factor > 100.0 {
        "more than 100x".to_owned()
    } else if factor < 1.5 {
        format!("{factor:.6}x")
    } else {
        format!("{factor:.1}x")
    };
    format!(
        "{what} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and \
         maxLength where arrays, maps, and strings are declared)"
    )
}
