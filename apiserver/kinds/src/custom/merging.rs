//! How server-side apply merges a custom resource: which lists and maps of its schema are merged item by item.
//!
//! Made once per version from the schema as it is published. Source: `pkg/schemaconv` of kube-openapi, for which a text
//! with a format (but `byte`) may be any single value.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::schema::{Additional, ListType, Schema, Type};
use crate::managed::{ATOMIC, DEDUCED, ListKind, ListRule, MapFields, MapRule, MergeKey, MergeSchema, Rule, Scalar};
use crate::shape::Shape;

/// The merge rules of one place and of what is below it.
pub(crate) enum Merging {
    /// One value.
    Scalar(Scalar),
    /// A list.
    List(Items),
    /// An object or map.
    Map(Fields),
    /// Whatever the value is: the schema names no type.
    Either(Items, Fields),
    /// What every object has.
    Metadata,
}

/// A list's rules.
pub(crate) struct Items {
    by: ListType,
    keys: Vec<MergeKey>,
    /// `None`: nothing is said of the items, which are replaced as a whole.
    item: Option<Box<Merging>>,
}

/// An object's rules.
pub(crate) struct Fields {
    atomic: bool,
    named: BTreeMap<String, Merging>,
    other: Other,
}

/// What stands under keys that are not named.
enum Other {
    /// Nothing may.
    Nothing,
    /// Anything, merged as it looks.
    Anything,
    Known(Box<Merging>),
}

impl Merging {
    /// The rules of whole objects with this schema; `free`: the definition lets them have any field.
    pub(crate) fn of(schema: &Schema, free: bool) -> Self {
        Self::Map(Reader { free }.at(schema).object(schema, true))
    }
}

#[derive(Clone, Copy)]
struct Reader {
    /// Whether a schema above takes unknown fields; all below it then do.
    free: bool,
}

impl Reader {
    fn at(self, schema: &Schema) -> Self {
        Self { free: self.free || schema.preserve }
    }

    fn read(self, schema: &Schema) -> Merging {
        let reader = self.at(schema);
        match schema.kind {
            Some(Type::Object) => Merging::Map(reader.object(schema, schema.embedded)),
            Some(Type::Array) => Merging::List(reader.items(schema)),
            Some(Type::String) => {
                Merging::Scalar(match schema.checks.as_ref().and_then(|checks| checks.format.as_ref()) {
                    Some(format) if format.name != "byte" => Scalar::Untyped,
                    _ => Scalar::String,
                })
            }
            Some(Type::Integer | Type::Number) => Merging::Scalar(Scalar::Numeric),
            Some(Type::Boolean) => Merging::Scalar(Scalar::Boolean),
            Some(Type::IntOrString) | None => {
                Merging::Either(reader.items(schema), reader.object(schema, schema.embedded))
            }
        }
    }

    /// The rules of an object; `whole`: with a type and metadata.
    fn object(self, schema: &Schema, whole: bool) -> Fields {
        let named = schema.properties.iter().map(|(name, schema)| (name.clone(), self.read(schema)));
        let mut named: BTreeMap<_, _> = named.collect();
        if whole {
            for name in ["apiVersion", "kind"] {
                named.insert(name.to_owned(), Merging::Scalar(Scalar::String));
            }
            named.insert("metadata".to_owned(), Merging::Metadata);
        }
        let other = match &schema.additional {
            Additional::Schema(values) => Other::Known(Box::new(self.read(values))),
            Additional::Allowed(true) => Other::Anything,
            Additional::Allowed(false) => Other::Nothing,
            // An object of which no field is known is free-form.
            Additional::Unset if self.free || named.is_empty() => Other::Anything,
            Additional::Unset => Other::Nothing,
        };
        Fields { atomic: schema.atomic_map, named, other }
    }

    fn items(self, schema: &Schema) -> Items {
        let default = |key: &str| schema.items.as_ref().and_then(|items| items.property(key)?.default.clone());
        let names = match &schema.list_type {
            ListType::Map(keys) => keys.as_slice(),
            ListType::Atomic | ListType::Set => &[],
        };
        let keys = names.iter().map(|key| MergeKey { name: key.clone().into(), default: default(key) }).collect();
        let item = schema.items.as_ref().map(|items| Box::new(self.read(items)));
        Items { by: schema.list_type.clone(), keys, item }
    }
}

impl MergeSchema for Merging {
    fn rule(&self) -> Rule<'_> {
        match self {
            Self::Scalar(scalar) => Rule::Scalar(*scalar),
            Self::List(items) => Rule::List(items.rule()),
            Self::Map(fields) => Rule::Map(fields.rule()),
            Self::Either(items, fields) => Rule::Either { list: items.rule(), map: fields.rule() },
            Self::Metadata => metadata().rule(),
        }
    }
}

impl Items {
    fn rule(&self) -> ListRule<'_> {
        let kind = match self.by {
            ListType::Atomic => ListKind::Atomic,
            ListType::Set => ListKind::Set,
            ListType::Map(_) => ListKind::Keyed(&self.keys),
        };
        let items = self.item.as_deref().map_or(&ATOMIC as &dyn MergeSchema, |item| item);
        ListRule { kind, items }
    }
}

impl Fields {
    fn rule(&self) -> MapRule<'_> {
        MapRule { atomic: self.atomic, fields: self }
    }
}

impl MapFields for Fields {
    fn field(&self, name: &str) -> Option<&dyn MergeSchema> {
        self.named.get(name).map(|field| field as &dyn MergeSchema)
    }

    fn other(&self) -> Option<&dyn MergeSchema> {
        match &self.other {
            Other::Nothing => None,
            Other::Anything => Some(&DEDUCED),
            Other::Known(values) => Some(&**values),
        }
    }
}

/// The shape of `ObjectMeta`.
fn metadata() -> &'static Shape {
    static SHAPE: OnceLock<&'static Shape> = OnceLock::new();
    SHAPE.get_or_init(crate::shape::of::<ObjectMeta>)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::managed::{field_set, merge, validate};

    fn merging(schema: &Value) -> Merging {
        Merging::of(&Schema::parse(schema).unwrap(), false)
    }

    fn schema() -> Merging {
        let port = json!({"type": "object", "required": ["number"], "properties": {"number": {"type": "integer"},
            "protocol": {"type": "string", "default": "TCP"}, "name": {"type": "string"}}});
        merging(&json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
            "ports": {"type": "array", "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["number", "protocol"], "items": port},
            "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
            "args": {"type": "array", "items": {"type": "string"}},
            "limits": {"type": "object", "additionalProperties": {"x-kubernetes-int-or-string": true}},
            "whole": {"type": "object", "x-kubernetes-map-type": "atomic", "additionalProperties": {"type": "string"}},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
                "properties": {"known": {"type": "object", "properties": {"a": {"type": "string"}}}}},
            "tpl": {"type": "object", "x-kubernetes-embedded-resource": true},
        }}}}))
    }

    fn complaints(value: &Value) -> String {
        validate(&schema(), value, false).err().map(|why| why.to_string()).unwrap_or_default()
    }

    #[test]
    fn a_field_that_the_schema_does_not_have_is_not_declared() {
        assert_eq!(complaints(&json!({"unknown": 1})), ".unknown: field not declared in schema");
        assert_eq!(
            complaints(&json!({"metadata": {"foo": 1}, "spec": {"tpl": {"metadata": {"bar": 1}}}})),
            "errors:\n  .metadata.foo: field not declared in schema\n  \
             .spec.tpl.metadata.bar: field not declared in schema"
        );
        assert_eq!(complaints(&json!({"spec": {"free": {"x": 1, "known": {"b": 1}}, "limits": {"cpu": "1"}}})), "");
        assert_eq!(complaints(&json!({"spec": {"tpl": {"spec": 1}}})), ".spec.tpl.spec: field not declared in schema");
        let empty = merging(&json!({"type": "object"}));
        assert!(validate(&empty, &json!({"spec": 1}), false).is_err());
    }

    #[test]
    fn a_text_with_a_format_may_be_any_single_value_but_for_bytes() {
        let text = |format: &str| json!({"type": "string", "format": format});
        let schema = merging(&json!({"type": "object", "properties": {
            "when": text("date-time"), "bytes": text("byte"), "odd": text("no-format")}}));
        let why = |value: Value| validate(&schema, &value, false).err().map(|why| why.to_string()).unwrap_or_default();
        assert_eq!(why(json!({"when": 1, "bytes": "eA=="})), "");
        assert_eq!(why(json!({"when": ["a"]})), ".when: expected any scalar, got &{[a]}");
        for field in ["bytes", "odd"] {
            let expected = format!(".{field}: expected string, got &value.valueUnstructured{{Value:5}}");
            assert_eq!(why(json!({field: 5})), expected);
        }
    }

    #[test]
    fn lists_and_maps_merge_as_their_schema_says() {
        let live = json!({"spec": {"ports": [{"number": 1, "protocol": "TCP", "name": "a"}, {"number": 2, "protocol": "UDP"}],
            "tags": ["a", "b"], "args": ["x"], "limits": {"cpu": 1}, "whole": {"a": "1"}}});
        let config = json!({"spec": {"ports": [{"number": 1, "name": "b"}], "tags": ["c"], "args": ["y"],
            "limits": {"memory": "1Gi"}, "whole": {"b": "2"}}});
        assert_eq!(
            merge(&schema(), &live, &config).unwrap(),
            json!({"spec": {"ports": [{"number": 1, "protocol": "TCP", "name": "b"}, {"number": 2, "protocol": "UDP"}],
                "tags": ["a", "b", "c"], "args": ["y"], "limits": {"cpu": 1, "memory": "1Gi"}, "whole": {"b": "2"}}})
        );
    }

    #[test]
    fn who_manages_an_item_is_told_by_its_keys_with_their_defaults() {
        let object = json!({"spec": {"ports": [{"number": 1}], "tags": ["a"], "args": ["x"], "whole": {"a": "1"}}});
        let set = field_set(&schema(), &object);
        assert_eq!(
            set.value(),
            json!({"f:spec": {
                "f:args": {},
                "f:ports": {"k:{\"number\":1,\"protocol\":\"TCP\"}": {".": {}, "f:number": {}}},
                "f:tags": {"v:\"a\"": {}},
                "f:whole": {},
            }})
        );
    }
}
