//! IPAddress: an address that is taken, and by what.

use jiff::Timestamp;
use k8s_openapi::api::networking::v1::IPAddress;
use reeve_api::names;
use serde_json::Value;

use super::{GROUP, required_segment};
use crate::errors::Errors;
use crate::field::FieldError;
use crate::json::{at, text};
use crate::kind::{Column, Kind, Names, Part};
use crate::kinds::wiring;
use crate::meta::{self, MetaRules};
use crate::path::Path;
use crate::{age, shown, table};

const NAMES: Names = Names {
    group: GROUP,
    version: "v1",
    kind: "IPAddress",
    plural: "ipaddresses",
    singular: "ipaddress",
    short: &["ip"],
    categories: &[],
    namespaced: false,
};

const META: MetaRules = MetaRules { namespaced: false, name: names::canonical_ip };

const COLUMNS: &[Column] = &[
    table::NAME,
    table::column(
        "ParentRef",
        "ParentRef references the resource that an IPAddress is attached to. An IPAddress must reference a parent object.",
    ),
];

/// The kind.
pub(super) struct IpAddresses;

impl Kind for IpAddresses {
    wiring!(IPAddress, NAMES, COLUMNS);

    fn default(&self, object: &mut Value) {
        self.shape().fill(object);
    }

    fn prepare_create(&self, _object: &mut Value) {}

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        check(object, &mut errors);
        errors.into_vec()
    }

    fn prepare_update(&self, _part: Part, _object: &mut Value, _old: &Value) {}

    fn validate_update(&self, _part: Part, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        META.update(object, old, &mut errors);
        check(object, &mut errors);
        if parent(object) != parent(old) {
            let field = |name: &str, own| (name.to_owned(), Value::from(text(parent(object), own)).to_string());
            let fields = [
                field("Group", "group"),
                field("Resource", "resource"),
                field("Namespace", "namespace"),
                field("Name", "name"),
            ];
            let fields: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
            let shown = if parent(object).is_null() { "null".to_owned() } else { shown::object(&fields) };
            errors.invalid_object(&Path::of("spec").child("parentRef"), shown, "field is immutable");
        }
        errors.into_vec()
    }

    /// One cell more than there are columns, as in Kubernetes 1.36.
    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![table::name(object), table::or_none(&parent_text(parent(object))), age::of(object, now).into()]
    }
}

fn parent(object: &Value) -> &Value {
    at(object, &["spec", "parentRef"])
}

/// `services/NAMESPACE/NAME`; empty without a parent.
fn parent_text(parent: &Value) -> String {
    if parent.is_null() {
        return String::new();
    }
    let mut shown = text(parent, "resource").to_owned();
    if !text(parent, "group").is_empty() {
        shown = format!("{shown}.{}", text(parent, "group"));
    }
    shown = shown.to_lowercase();
    if !text(parent, "namespace").is_empty() {
        shown = format!("{shown}/{}", text(parent, "namespace"));
    }
    format!("{shown}/{}", text(parent, "name"))
}

fn check(object: &Value, errors: &mut Errors) {
    META.create(object, errors);
    let (parent, path) = (parent(object), Path::of("spec"));
    let path = path.child("parentRef");
    if parent.is_null() {
        return errors.required(&path, "");
    }
    let (group, namespace) = (text(parent, "group"), text(parent, "namespace"));
    if !group.is_empty() {
        errors.invalid_each(&path.child("group"), group, names::dns1123_subdomain(group));
    }
    for field in ["resource", "name"] {
        required_segment(parent, field, &path, errors);
    }
    if !namespace.is_empty() {
        errors.invalid_each(&path.child("namespace"), namespace, meta::path_segment(namespace));
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::*;
    use serde_json::json;

    const PLAIN: &str = "{apiVersion: networking.k8s.io/v1, kind: IPAddress, metadata: {name: 10.0.0.1}, spec: {parentRef: {resource: services, namespace: n, name: s}}}";

    #[test]
    fn an_address_is_somebody_s() {
        check_created(PLAIN, PLAIN);
        check_valid(PLAIN);
        assert_eq!(row(PLAIN), "10.0.0.1 | services/n/s | <unknown>");
        check_invalid(
            "{apiVersion: networking.k8s.io/v1, kind: IPAddress, metadata: {name: '2001:DB8::1'}}",
            &[
                "metadata.name: Invalid value: \"2001:DB8::1\": must be in canonical form (\"2001:db8::1\")",
                "spec.parentRef: Required value",
            ],
        );
        check_invalid(
            &PLAIN.replace("resource: services, namespace: n, name: s", "group: X, namespace: 'a/b', name: '..'"),
            &[
                "spec.parentRef.group: Invalid value: \"X\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
                "spec.parentRef.resource: Required value",
                "spec.parentRef.name: Invalid value: \"..\": may not be '..'",
                "spec.parentRef.namespace: Invalid value: \"a/b\": may not contain '/'",
            ],
        );
    }

    #[test]
    fn it_stays_theirs() {
        check_update(
            PLAIN,
            |new| new["spec"]["parentRef"]["name"] = json!("t"),
            &[
                "spec.parentRef: Invalid value: {\"Group\":\"\",\"Resource\":\"services\",\"Namespace\":\"n\",\"Name\":\"t\"}: field is immutable",
            ],
        );
    }
}
