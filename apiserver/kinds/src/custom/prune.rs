//! Fields that a schema does not have go (`pkg/apiserver/schema/pruning`).

use serde_json::Value;

use super::is_meta_field;
use super::schema::Schema;

/// Most unknown fields that are reported; the rest go silently.
const REPORTED_MAX: usize = 100;

/// Takes away what the schema of a whole object does not have; gives the paths of what went, sorted.
/// `apiVersion`, `kind` and `metadata` stay as they are.
pub(crate) fn prune_root(object: &mut Value, schema: &Schema) -> Vec<String> {
    prune(object, &schema.as_root())
}

/// As [`prune_root`] for a value inside an object.
pub(crate) fn prune(value: &mut Value, schema: &Schema) -> Vec<String> {
    let mut walk = Walk { path: String::new(), unknown: Vec::new() };
    walk.value(value, Some(schema));
    walk.unknown.sort();
    walk.unknown
}

struct Walk {
    path: String,
    unknown: Vec<String>,
}

impl Walk {
    /// Does something one step deeper.
    fn enter(&mut self, step: std::fmt::Arguments<'_>, inner: impl FnOnce(&mut Self)) {
        let length = self.path.len();
        // Writing to a text cannot fail.
        let _ = std::fmt::Write::write_fmt(&mut self.path, step);
        inner(self);
        self.path.truncate(length);
    }

    fn key(&mut self, name: &str, inner: impl FnOnce(&mut Self)) {
        let dot = if self.path.is_empty() { "" } else { "." };
        self.enter(format_args!("{dot}{name}"), inner);
    }

    fn index(&mut self, index: usize, inner: impl FnOnce(&mut Self)) {
        self.enter(format_args!("[{index}]"), inner);
    }

    fn report(&mut self, name: &str) {
        if self.unknown.len() < REPORTED_MAX {
            self.key(name, |walk| walk.unknown.push(walk.path.clone()));
        }
    }

    fn value(&mut self, value: &mut Value, schema: Option<&Schema>) {
        if let Some(schema) = schema.filter(|schema| schema.preserve) {
            self.keep(value, schema);
            return;
        }
        match value {
            Value::Object(fields) => {
                let mut gone = Vec::new();
                for (name, value) in fields.iter_mut() {
                    let Some(schema) = schema else {
                        self.report(name);
                        gone.push(name.clone());
                        continue;
                    };
                    if schema.embedded && is_meta_field(name) {
                        continue;
                    }
                    if let Some(property) = schema.property(name) {
                        self.key(name, |walk| walk.value(value, Some(property)));
                    } else if schema.additional.is_set() {
                        self.key(name, |walk| walk.value(value, schema.additional.schema()));
                    } else {
                        if !is_meta_field(name) || !self.path.is_empty() {
                            self.report(name);
                        }
                        gone.push(name.clone());
                    }
                }
                for name in gone {
                    fields.remove(&name);
                }
            }
            Value::Array(items) => {
                let item_schema = schema.and_then(|schema| schema.items.as_deref());
                for (index, item) in items.iter_mut().enumerate() {
                    self.index(index, |walk| walk.value(item, item_schema));
                }
            }
            _ => {}
        }
    }

    /// Keeps what is unknown here, and goes on with what is known.
    fn keep(&mut self, value: &mut Value, schema: &Schema) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields.iter_mut() {
                    if schema.embedded && is_meta_field(name) {
                        continue;
                    }
                    if let Some(property) = schema.property(name) {
                        self.key(name, |walk| walk.value(value, Some(property)));
                    } else if schema.additional.is_set() {
                        self.key(name, |walk| walk.value(value, schema.additional.schema()));
                    }
                }
            }
            Value::Array(items) => {
                let Some(item_schema) = schema.items.as_deref() else { return };
                for (index, item) in items.iter_mut().enumerate() {
                    self.index(index, |walk| walk.keep(item, item_schema));
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn unknown_fields_go_and_are_reported_by_path() {
        let schema = Schema::parse(&json!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": {
                "list": {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "string"}}}},
                "map": {"type": "object", "additionalProperties": {"type": "string"}},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
                    "properties": {"known": {"type": "object", "properties": {"a": {"type": "string"}}}}},
            }},
        }}))
        .unwrap();
        let mut object = json!({"apiVersion": "a/v1", "kind": "K", "metadata": {"name": "n", "odd": 1}, "foo": 1,
            "spec": {"list": [{"a": "1"}, {"a": "1", "b": "2"}], "map": {"x": "y"}, "other": {},
                "free": {"x": {"y": 1}, "known": {"a": "1", "b": 1}}}});
        let unknown = prune_root(&mut object, &schema);
        assert_eq!(unknown, ["foo", "spec.free.known.b", "spec.list[1].b", "spec.other"]);
        assert_eq!(
            object,
            json!({"apiVersion": "a/v1", "kind": "K", "metadata": {"name": "n", "odd": 1},
                "spec": {"list": [{"a": "1"}, {"a": "1"}], "map": {"x": "y"},
                    "free": {"x": {"y": 1}, "known": {"a": "1"}}}})
        );
    }
}
