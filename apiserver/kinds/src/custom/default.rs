//! What the user left out, and nulls that mean nothing (`pkg/apiserver/schema/defaulting`).

use serde_json::Value;

use super::schema::Schema;

/// Fills in the schema's defaults; a null that the schema does not allow counts as left out.
pub(crate) fn fill(value: &mut Value, schema: &Schema) {
    match value {
        Value::Object(fields) => {
            for (name, property) in &schema.properties {
                let Some(default) = &property.default else { continue };
                let missing = fields.get(name).is_none_or(|value| value.is_null() && !property.nullable);
                if missing {
                    fields.insert(name.clone(), default.clone());
                }
            }
            for (name, value) in fields.iter_mut() {
                if let Some(property) = schema.property(name) {
                    fill(value, property);
                } else if let Some(additional) = schema.additional.schema() {
                    fill_null(value, additional);
                    fill(value, additional);
                }
            }
        }
        Value::Array(items) => {
            let Some(schema) = schema.items.as_deref() else { return };
            for item in items {
                fill_null(item, schema);
                fill(item, schema);
            }
        }
        _ => {}
    }
}

fn fill_null(value: &mut Value, schema: &Schema) {
    if value.is_null() && !schema.nullable {
        *value = schema.default.clone().unwrap_or(Value::Null);
    }
}

/// Takes away nulls that are neither allowed nor replaced by a default.
pub(crate) fn drop_nulls(value: &mut Value, schema: Option<&Schema>) {
    match value {
        Value::Object(fields) => fields.retain(|name, value| {
            let schema = schema.and_then(|schema| schema.field(name));
            let meaningless =
                value.is_null() && schema.is_some_and(|schema| !schema.nullable && schema.default.is_none());
            if !meaningless {
                drop_nulls(value, schema);
            }
            !meaningless
        }),
        Value::Array(items) => {
            let schema = schema.and_then(|schema| schema.items.as_deref());
            items.iter_mut().for_each(|item| drop_nulls(item, schema));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn defaults_are_nested_and_nulls_count_as_left_out_where_they_are_not_allowed() {
        let schema = Schema::parse(&json!({"type": "object", "properties": {
            "a": {"type": "string", "default": "x"},
            "b": {"type": "string", "nullable": true, "default": "y"},
            "c": {"type": "string"},
            "o": {"type": "object", "default": {}, "properties": {"n": {"type": "integer", "default": 3}}},
            "l": {"type": "array", "items": {"type": "object", "properties": {"p": {"type": "string", "default": "TCP"}}}},
            "m": {"type": "object", "additionalProperties": {"type": "string", "default": "z"}},
        }}))
        .unwrap();
        let mut value = json!({"a": null, "b": null, "c": null, "l": [{}, {"p": "UDP"}], "m": {"k": null}});
        drop_nulls(&mut value, Some(&schema));
        fill(&mut value, &schema);
        assert_eq!(
            value,
            json!({"a": "x", "b": null, "o": {"n": 3}, "l": [{"p": "TCP"}, {"p": "UDP"}], "m": {"k": "z"}})
        );
    }
}
