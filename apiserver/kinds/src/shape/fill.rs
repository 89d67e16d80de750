//! What Go writes of a typed object even if nobody said it: the zero values of fields that are neither pointers nor
//! left out when empty. Kinds call it first when they set their defaults.

use serde_json::{Map, Value, json};

use super::{FieldShape, Shape, StructShape, tables};

impl Shape {
    /// Brings in the fields that are always there, at every level: empty texts, zeros, empty objects, null for lists.
    /// `metadata` is left alone. Idempotent.
    pub(crate) fn fill(&self, value: &mut Value) {
        match (self, value) {
            (Self::Struct(shape), Value::Object(map)) => fill_fields(shape, map),
            (Self::List(list), Value::Array(items)) => items.iter_mut().for_each(|item| list.items.fill(item)),
            (Self::Map(values), Value::Object(map)) => map.values_mut().for_each(|value| values.fill(value)),
            _ => {}
        }
    }
}

impl Shape {
    /// Makes empty lists null where Go writes null for them: what is stored and read again in its binary form has no
    /// empty lists. Whoever sends one manages the field all the same, so this comes after that is known.
    pub fn null_empty(&self, value: &mut Value) {
        match (self, value) {
            (Self::Struct(shape), Value::Object(map)) => {
                for (name, value) in map {
                    let Some(field) = shape.field(name) else { continue };
                    if value.as_array().is_some_and(Vec::is_empty) && tables::writes_null(shape.name, name) {
                        *value = Value::Null;
                    }
                    field.shape.null_empty(value);
                }
            }
            (Self::List(list), Value::Array(items)) if list.items.inner_struct().is_some() => {
                items.iter_mut().for_each(|item| list.items.null_empty(item));
            }
            (Self::Map(values), Value::Object(map)) if values.inner_struct().is_some() => {
                map.values_mut().for_each(|value| values.null_empty(value));
            }
            _ => {}
        }
    }
}

fn fill_fields(shape: &StructShape, map: &mut Map<String, Value>) {
    for (name, field) in shape.fields.iter().filter(|(name, _)| *name != "metadata" || shape.name.ends_with("Spec")) {
        if !map.contains_key(*name)
            && let Some(zero) = zero(shape.name, name, field)
        {
            map.insert((*name).to_owned(), zero);
        }
        if let Some(value) = map.get_mut(*name) {
            field.shape.fill(value);
        }
    }
}

/// What stands in a field that was left out, if anything.
fn zero(owner: &str, name: &str, field: &FieldShape) -> Option<Value> {
    if tables::writes_null(owner, name) {
        return Some(Value::Null);
    }
    if tables::is_plain_struct(owner, name) {
        return Some(json!({}));
    }
    let is_written = field.required && !tables::is_required_pointer(owner, name) || tables::is_written(owner, name);
    if !is_written {
        return None;
    }
    match field.shape {
        Shape::String => Some("".into()),
        Shape::Integer(_) | Shape::Number => Some(0.into()),
        Shape::Boolean => Some(false.into()),
        Shape::Quantity => Some("0".into()),
        Shape::Struct(_) => Some(json!({})),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape;
    use k8s_openapi::api::networking::v1::Ingress;

    #[test]
    fn what_is_always_written_is_brought_in_at_every_level_and_only_once() {
        let shape = shape::of::<Ingress>();
        let mut object =
            json!({"spec": {"rules": [{"http": {}}, {"http": {"paths": [{"backend": {"service": {}}}]}}]}});
        shape.fill(&mut object);
        let expected = json!({
            "spec": {"rules": [
                {"http": {"paths": null}},
                {"http": {"paths": [{"backend": {"service": {"name": "", "port": {}}}}]}},
            ]},
            "status": {"loadBalancer": {}},
        });
        assert_eq!(object, expected);
        shape.fill(&mut object);
        assert_eq!(object, expected);
    }

    #[test]
    fn empty_lists_become_null_where_go_writes_null_and_nowhere_else() {
        let mut object = json!({"spec": {"rules": [{"http": {"paths": []}}], "tls": []}});
        shape::of::<Ingress>().null_empty(&mut object);
        assert_eq!(object, json!({"spec": {"rules": [{"http": {"paths": null}}], "tls": []}}));
    }
}
