//! The shape of a kind: its fields and their types, compact enough to be kept in memory for every kind.
//!
//! Made once from the schemas of `k8s-openapi` (which lack list and merge keys: those come from a small table
//! of ours). The full schemas with their descriptions are generated only when OpenAPI is asked for.

/// The type of one value.
#[derive(Debug, Clone, PartialEq)]
pub enum Shape {
    /// Anything goes (`RawExtension`, JSON).
    Any,
    /// Text.
    String,
    /// Text that is base64 of bytes.
    Bytes,
    /// A timestamp of RFC 3339.
    Time,
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
    /// The fields, sorted by name.
    pub fields: Vec<(&'static str, FieldShape)>,
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
}

impl StructShape {
    /// The field of that name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&FieldShape> {
        self.fields.binary_search_by(|(own, _)| (*own).cmp(name)).ok().map(|index| &self.fields[index].1)
    }
}
