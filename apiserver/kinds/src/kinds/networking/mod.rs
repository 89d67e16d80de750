//! `networking.k8s.io`: what is let in, what may talk to what, and the addresses of Services.
//!
//! Source of the rules: `pkg/apis/networking` of Kubernetes v1.36.

mod ingress;
mod ingress_class;
mod ip_address;
mod network_policy;
mod service_cidr;

use std::sync::Arc;

use reeve_api::names;
use serde_json::Value;

use crate::errors::Errors;
use crate::json::{get, has, text};
use crate::kind::Kind;
use crate::meta;
use crate::path::Path;

const GROUP: &str = "networking.k8s.io";

/// The kinds of the group, by resource name.
pub(super) fn kinds() -> Vec<Arc<dyn Kind>> {
    vec![
        Arc::new(ingress_class::IngressClasses),
        Arc::new(ingress::Ingresses),
        Arc::new(ip_address::IpAddresses),
        Arc::new(network_policy::NetworkPolicies),
        Arc::new(service_cidr::ServiceCidrs),
    ]
}

/// The group, kind and name of an object that is referred to.
fn reference(target: &Value, path: &Path<'_>, errors: &mut Errors) {
    if has(target, "apiGroup") {
        let group = text(target, "apiGroup");
        errors.invalid_each(&path.child("apiGroup"), group, names::dns1123_subdomain(group));
    }
    for field in ["kind", "name"] {
        required_segment(target, field, path, errors);
    }
}

/// A text that must be there and stands in URLs.
fn required_segment(target: &Value, field: &str, path: &Path<'_>, errors: &mut Errors) {
    match text(target, field) {
        "" => errors.required(&path.child(field), ""),
        value => errors.invalid_each(&path.child(field), value, meta::path_segment(value)),
    }
}

/// The value of an annotation.
fn annotation<'o>(object: &'o Value, name: &str) -> Option<&'o str> {
    get(get(get(object, "metadata"), "annotations"), name).as_str()
}
