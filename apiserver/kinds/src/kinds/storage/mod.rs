//! `storage.k8s.io`: classes of storage, drivers, and what is attached where.
//!
//! Source of the rules: `pkg/apis/storage` of Kubernetes v1.36.

mod attributes_class;
mod csi_driver;
mod csi_node;
mod csi_storage_capacity;
mod storage_class;
mod volume_attachment;

use std::sync::Arc;

use reeve_api::names;
use serde_json::Value;

use crate::errors::Errors;
use crate::json::{entries, get};
use crate::kind::Kind;
use crate::path::Path;

const GROUP: &str = "storage.k8s.io";

/// Most parameters of a class, and most bytes they may have together.
const MAX_PARAMETERS: usize = 512;
const MAX_PARAMETER_BYTES: usize = 256 * 1024;

/// The kinds of the group, by resource name.
pub(super) fn kinds() -> Vec<Arc<dyn Kind>> {
    vec![
        Arc::new(csi_driver::CsiDrivers),
        Arc::new(csi_node::CsiNodes),
        Arc::new(csi_storage_capacity::CsiStorageCapacities),
        Arc::new(storage_class::StorageClasses),
        Arc::new(volume_attachment::VolumeAttachments),
        Arc::new(attributes_class::VolumeAttributesClasses),
    ]
}

/// The name of what provisions volumes.
fn provisioner(name: &str, path: &Path<'_>, errors: &mut Errors) {
    if name.is_empty() {
        errors.required(path, "");
    } else {
        let name = name.to_lowercase();
        errors.invalid_each(path, &name, names::qualified_name(&name));
    }
}

/// What a class hands to its driver.
fn parameters(object: &Value, may_be_empty: bool, errors: &mut Errors) {
    let path = Path::of("parameters");
    let count = entries(object, "parameters").count();
    if count > MAX_PARAMETERS {
        return errors.too_long(&path, MAX_PARAMETERS);
    }
    let mut bytes = 0;
    for (key, value) in entries(object, "parameters") {
        if key.is_empty() {
            errors.invalid(&path, key, "field can not be empty.");
        }
        bytes += key.len() + value.as_str().map_or(0, str::len);
    }
    if bytes > MAX_PARAMETER_BYTES {
        errors.too_long(&path, MAX_PARAMETER_BYTES);
    }
    if !may_be_empty && count == 0 {
        errors.required(&path, "must contain at least one key/value pair");
    }
}

/// The name of a CSI driver.
pub(super) fn driver_name(name: &str, path: &Path<'_>, errors: &mut Errors) {
    if name.is_empty() {
        return errors.required(path, "");
    }
    if name.len() > names::LABEL_MAX {
        errors.too_long(path, names::LABEL_MAX);
    }
    errors.invalid_each(path, name, names::dns1123_subdomain(&name.to_lowercase()));
}

/// Whether an annotation of the object says `true`.
fn annotated_true(object: &Value, annotation: &str) -> bool {
    get(get(get(object, "metadata"), "annotations"), annotation) == "true"
}
