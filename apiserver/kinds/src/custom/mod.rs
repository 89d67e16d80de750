//! Custom resources: what the API server knows of a kind that came as a CustomResourceDefinition.
//!
//! Everything here is pure. A schema (`openAPIV3Schema` of one version) is parsed once into a [`Schema`]; the rest
//! walks an object along it, as `k8s.io/apiextensions-apiserver/pkg/apiserver` does:
//!
//! | module | holds |
//! |---|---|
//! | [`schema`] | the schema itself |
//! | [`pattern`] | Go's regular expressions |
//! | [`formats`] | the formats of texts that are checked |
//! | [`number`] | numbers as Go prints them |
//! | [`prune`] | fields that are not in the schema go, and are reported |
//! | [`default`] | what the user left out; nulls that mean nothing |
//! | [`embedded`] | whole objects inside an object: their type and metadata |
//! | [`validate`] | the rules of OpenAPI, with the words of kube-openapi |
//! | [`versions`] | which version is the better one |
//! | [`columns`], [`scale`], [`openapi`] | tables, replicas, documentation |
//! | [`kind`] | all of it as a [`Kind`](crate::Kind) |
//! | [`correlate`] | which old value a new value comes from: unchanged values are not judged again |
//! | [`rules`], [`field_path`] | rules in CEL; the fields they blame |
//! | [`lists`] | lists that are sets or maps have each item or key once |
//! | [`merging`] | how server-side apply merges |
//! | [`jsonpath`] | the paths of printer columns and selectable fields |
//!
//! Limits: an object and a schema are as deep as the decoder lets them be (128 levels), so recursion is bounded;
//! complaints are cut off at a few hundred.

pub(crate) mod columns;
pub(crate) mod correlate;
pub(crate) mod default;
pub(crate) mod embedded;
pub(crate) mod field_path;
pub(crate) mod formats;
pub(crate) mod jsonpath;
pub(crate) mod kind;
pub(crate) mod lists;
pub(crate) mod merging;
pub(crate) mod number;
pub(crate) mod openapi;
pub(crate) mod pattern;
pub(crate) mod prune;
pub(crate) mod rules;
pub(crate) mod scale;
pub(crate) mod schema;
#[cfg(test)]
mod tests;
pub(crate) mod validate;
pub(crate) mod versions;

pub use kind::CustomKind;
pub(crate) use schema::Schema;
pub use versions::compare as compare_versions;

/// The fields every object has whatever its schema says.
pub(crate) const META_FIELDS: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Whether it is one of [`META_FIELDS`].
pub(crate) fn is_meta_field(name: &str) -> bool {
    META_FIELDS.contains(&name)
}
