//! The shape of a kind: its fields and their types, compact enough to be kept in memory for every kind.
//!
//! Made once from the schemas of `k8s-openapi` by [`of`] (they lack list and merge keys, and which fields are
//! left out when they are zero: those come from small tables of ours). The full schemas with their descriptions
//! are generated only when OpenAPI is asked for (`openapi`).

mod build;
mod fill;
pub(crate) mod go_types;
pub(crate) mod merge;
pub(crate) mod tables;

use crate::managed::MergeKey;
use reeve_api::patch::{FieldStrategy, ListStrategy, PatchSchema};

pub use build::of;
pub(crate) use build::{generator, reference, short_name};

/// The type of one value.
#[derive(Debug, Clone, PartialEq)]
pub enum Shape {
    /// Anything goes (`RawExtension`, JSON).
    Any,
    /// Text.
    String,
    /// Text that is base64 of bytes.
    Bytes,
    /// A timestamp of RFC 3339, to the second.
    Time,
    /// A timestamp of RFC 3339, to the microsecond.
    MicroTime,
    /// A whole number; the Go type's name, `int32` or `int64`.
    Integer(&'static str),
    /// A number.
    Number,
    /// True or false.
    Boolean,
    /// A whole number or a text.
    IntOrString,
    /// A resource quantity: a text or a number.
    Quantity,
    /// A list.
    List(&'static ListShape),
    /// A map with free keys; the shape of its values.
    Map(&'static Shape),
    /// An object with fixed fields.
    Struct(&'static StructShape),
}

/// The shape of a list.
#[derive(Debug, PartialEq)]
pub struct ListShape {
    /// The items.
    pub items: Shape,
    /// `x-kubernetes-list-type`: `atomic`, `set` or `map`.
    pub list_type: &'static str,
    /// `x-kubernetes-list-map-keys`.
    pub map_keys: &'static [&'static str],
    /// The same keys, with what each is in an item that does not have it.
    pub merge_keys: Vec<MergeKey>,
    /// `x-kubernetes-patch-merge-key`, used by strategic merge patch; `None` replaces the list as a whole,
    /// or merges as a set when [`ListShape::patch_set`] is set.
    pub patch_merge_key: Option<&'static str>,
    /// Whether strategic merge patch merges a list of plain values (`patchStrategy=merge`).
    pub patch_set: bool,
}

/// The shape of an object with fixed fields.
#[derive(Debug, PartialEq)]
pub struct StructShape {
    /// The Go type's name, `DeploymentSpec`: it stands in error texts.
    pub name: &'static str,
    /// The version of the API that the type is of, `v1`: it stands before the name.
    pub version: &'static str,
    /// Whether server-side apply replaces it as a whole (`x-kubernetes-map-type: atomic`).
    pub atomic: bool,
    /// The fields, sorted by name.
    pub fields: Vec<(&'static str, FieldShape)>,
    /// The fields that the object in Go always has, set or not (no pointer, or no `omitempty`), sorted.
    pub held: Vec<&'static str>,
}

/// One field of an object.
#[derive(Debug, PartialEq)]
pub struct FieldShape {
    /// Its type.
    pub shape: Shape,
    /// Whether the schema requires it.
    pub required: bool,
    /// Whether strategic merge patch keeps only the keys named by `$retainKeys`.
    pub retain_keys: bool,
    /// Whether the API server leaves the field out when it is empty, zero or false (a Go field that is no
    /// pointer and says `omitempty`).
    pub omit_empty: bool,
    /// Whether server-side apply replaces the map or object in it as a whole, where its type does not decide that.
    pub atomic: Option<bool>,
}

impl StructShape {
    /// The field of that name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&FieldShape> {
        self.fields.binary_search_by(|(own, _)| (*own).cmp(name)).ok().map(|index| &self.fields[index].1)
    }
}

impl Shape {
    /// The shape of the objects in a value of this shape: its own, its items' or its values'.
    #[must_use]
    pub fn inner_struct(&self) -> Option<&'static StructShape> {
        match self {
            Self::Struct(shape) => Some(shape),
            Self::List(list) => list.items.inner_struct(),
            Self::Map(values) => values.inner_struct(),
            _ => None,
        }
    }
}

/// Strategic merge patch asks the shape which lists merge by which key.
impl PatchSchema for StructShape {
    fn field(&self, field: &str) -> Option<FieldStrategy<'_>> {
        let field = StructShape::field(self, field)?;
        let list = match &field.shape {
            Shape::List(list) => match list.patch_merge_key {
                Some(key) => ListStrategy::MergeByKey(key),
                None if list.patch_set => ListStrategy::MergeAsSet,
                None => ListStrategy::Replace,
            },
            _ => ListStrategy::Replace,
        };
        let schema = field.shape.inner_struct().map(|shape| shape as &dyn PatchSchema);
        Some(FieldStrategy { list, retain_keys: field.retain_keys, schema })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::apps::v1::Deployment;
    use serde_json::json;

    #[track_caller]
    fn shape_at(path: &str) -> &'static FieldShape {
        let mut shape = of::<Deployment>().inner_struct().unwrap();
        let (last, parents) =
            path.rsplit_once('.').map_or((path, Vec::new()), |(parents, last)| (last, parents.split('.').collect()));
        for name in parents {
            shape = shape.field(name).expect(name).shape.inner_struct().expect(name);
        }
        shape.field(last).expect(last)
    }

    #[test]
    fn shapes_know_types_lists_and_merge_keys() {
        assert_eq!(shape_at("spec.replicas").shape, Shape::Integer("int32"));
        assert!(shape_at("spec.selector").required);
        assert!(shape_at("spec.strategy").retain_keys);
        assert_eq!(shape_at("spec.strategy.rollingUpdate.maxSurge").shape, Shape::IntOrString);
        assert_eq!(shape_at("metadata.creationTimestamp").shape, Shape::Time);
        let Shape::List(containers) = &shape_at("spec.template.spec.containers").shape else { panic!("no list") };
        assert_eq!((containers.list_type, containers.patch_merge_key), ("map", Some("name")));
        let Shape::List(tolerations) = &shape_at("spec.template.spec.tolerations").shape else { panic!("no list") };
        assert_eq!((tolerations.list_type, tolerations.patch_merge_key), ("atomic", None));
        let Shape::Map(limits) = &shape_at("spec.template.spec.containers.resources.limits").shape else {
            panic!("no map")
        };
        assert_eq!(**limits, Shape::Quantity);
        assert!(shape_at("spec.minReadySeconds").omit_empty && !shape_at("spec.replicas").omit_empty);
    }

    #[test]
    fn strategic_merge_patch_merges_by_the_keys_of_the_shapes() {
        let shape = of::<Deployment>().inner_struct().unwrap();
        let template = |spec| json!({"spec": {"template": {"spec": spec}}});
        let mut object = template(json!({
            "containers": [{"name": "a", "image": "one", "env": [{"name": "X", "value": "1"}]}, {"name": "b"}],
            "tolerations": [{"key": "k"}],
        }));
        let patch = template(json!({
            "containers": [{"name": "a", "image": "two", "env": [{"name": "Y", "value": "2"}]}],
            "tolerations": [{"key": "l"}],
        }));
        reeve_api::patch::strategic_merge(&mut object, &patch, shape).unwrap();
        let spec = &object["spec"]["template"]["spec"];
        assert_eq!(spec["containers"][0]["image"], "two");
        assert_eq!(spec["containers"][0]["env"].as_array().unwrap().len(), 2);
        assert_eq!((&spec["containers"][1]["name"], &spec["tolerations"]), (&json!("b"), &json!([{"key": "l"}])));
    }

    #[test]
    fn every_line_of_the_tables_names_a_field_that_exists() {
        let unknown: Vec<_> = tables::every_field()
            .filter(|(owner, field)| {
                !build::all().iter().any(|shape| shape.name == *owner && StructShape::field(shape, field).is_some())
            })
            .collect();
        assert!(unknown.is_empty(), "no such fields: {unknown:?}");
    }

    #[test]
    fn every_rule_for_merging_names_a_field_of_its_type_where_the_type_is_served() {
        let all = build::all();
        let unknown: Vec<_> = merge::every_field()
            .filter(|(owner, field)| {
                let mut known = all.iter().filter(|shape| shape.name == *owner).peekable();
                // Two types are called Event: one of them need not be served.
                let is_known = *owner != "Event" && known.peek().is_some();
                is_known && !known.any(|shape| StructShape::field(shape, field).is_some())
            })
            .collect();
        assert!(unknown.is_empty(), "no such fields: {unknown:?}");
    }
}
