//! Defaults in a schema are values of that schema (`pkg/apiserver/schema/defaulting/validation.go`).

use serde_json::{Map, Value};

use crate::custom::embedded::{self, Malformed};
use crate::custom::prune;
use crate::custom::rules::{self, Ratchet, Rules};
use crate::custom::schema::Schema;
use crate::custom::{is_meta_field, validate};
use crate::errors::Errors;
use crate::field::FieldError;
use crate::json::get;
use crate::path::Path;

/// Everything wrong with the defaults of the schema of a whole object.
pub(super) fn check(schema: &Schema, source: &Value, path: &Path<'_>, require_pruned: bool, errors: &mut Errors) {
    let root = schema.as_root();
    Walk { root: &root, require_pruned, steps: Vec::new() }.schema((&root, source), path, false, errors);
}

/// Whether a schema has defaults with fields it does not know.
pub(super) fn any_unpruned(schema: &Schema) -> bool {
    let own = schema.default.as_ref().is_some_and(|default| !is_pruned(default, schema));
    own || schema.items.as_deref().is_some_and(any_unpruned)
        || schema.additional.schema().is_some_and(any_unpruned)
        || schema.properties.iter().any(|(_, property)| any_unpruned(property))
}

fn is_pruned(default: &Value, schema: &Schema) -> bool {
    let mut pruned = default.clone();
    prune::prune(&mut pruned, schema);
    &pruned == default
}

/// A step from an object to the default inside it.
#[derive(Clone)]
enum Step<'s> {
    Field(&'s str),
    Item,
}

struct Walk<'s> {
    /// The whole object around: the root or an embedded one.
    root: &'s Schema,
    require_pruned: bool,
    /// From there to here.
    steps: Vec<Step<'s>>,
}

impl<'s> Walk<'s> {
    fn schema(
        &mut self,
        (schema, source): (&'s Schema, &Value),
        path: &Path<'_>,
        inside_meta: bool,
        errors: &mut Errors,
    ) {
        if schema.embedded && !self.steps.is_empty() {
            Walk { root: schema, require_pruned: self.require_pruned, steps: Vec::new() }.schema(
                (schema, source),
                path,
                false,
                errors,
            );
            return;
        }
        if let Some(default) = &schema.default {
            self.value(default, (schema, source), path, inside_meta, errors);
        }
        if let Some(items) = schema.items.as_deref() {
            self.steps.push(Step::Item);
            self.schema((items, get(source, "items")), &path.child("items"), inside_meta, errors);
            self.steps.pop();
        }
        let properties = path.child("properties");
        for (name, property) in &schema.properties {
            let meta = inside_meta || (schema.embedded && is_meta_field(name));
            self.steps.push(Step::Field(name));
            let source = get(get(source, "properties"), name);
            self.schema((property, source), &properties.key(name), meta, errors);
            self.steps.pop();
        }
    }

    fn value(
        &self,
        default: &Value,
        (schema, source): (&Schema, &Value),
        path: &Path<'_>,
        inside_meta: bool,
        errors: &mut Errors,
    ) {
        let path = path.child("default");
        if inside_meta {
            if let Err(why) = self.in_metadata(default) {
                errors.invalid(&path, default.clone(), format!("must result in valid metadata: {why}"));
                return;
            }
        } else {
            if self.require_pruned && !is_pruned(default, schema) {
                errors.invalid(&path, default.clone(), "must not have unknown fields");
            }
            let mut coerced = default.clone();
            let mut found = Errors::default();
            match embedded::coerce_at(&mut coerced, schema, &path, Malformed::Refuse) {
                Err(error) => found.push(*error),
                Ok(_) => embedded::check(&coerced, schema, &path, &mut found),
            }
            if found.count() > 0 {
                found.into_vec().into_iter().for_each(|error| errors.push(error));
                return;
            }
        }
        let mut found = validate::check(schema, default, &path.to_string());
        if found.is_empty()
            && let Some(rules) = Rules::of(source, schema.embedded)
        {
            found = rules::check(&rules, schema, default, Some(default), Ratchet::default(), &path);
            if found.is_empty() {
                found = rules::check(&rules, schema, default, None, Ratchet::default(), &path);
            }
        }
        found.into_iter().for_each(|error| errors.push(error));
    }

    /// Puts the default into an object of its own and judges that object's type and metadata.
    fn in_metadata(&self, default: &Value) -> Result<(), String> {
        let mut object = default.clone();
        for step in self.steps.iter().rev() {
            object = match step {
                Step::Field(name) => Value::Object(Map::from_iter([((*name).to_owned(), object)])),
                Step::Item => Value::Array(vec![object]),
            };
        }
        if let Value::Object(fields) = &mut object {
            fields.entry("kind").or_insert_with(|| "Validation".into());
            fields.entry("apiVersion").or_insert_with(|| "validation/v1".into());
        }
        embedded::coerce(&mut object, self.root, Malformed::Refuse).map_err(|error| error.to_string())?;
        let mut found = Errors::default();
        embedded::check(&object, self.root, &Path::ROOT, &mut found);
        match told_together(&found.into_vec()) {
            Some(text) => Err(text),
            None => Ok(()),
        }
    }
}

/// Several complaints as one text; none for none.
fn told_together(errors: &[FieldError]) -> Option<String> {
    let texts: Vec<_> = errors.iter().map(ToString::to_string).collect();
    match texts.as_slice() {
        [] => None,
        [one] => Some(one.clone()),
        many => Some(format!("[{}]", many.join(", "))),
    }
}
