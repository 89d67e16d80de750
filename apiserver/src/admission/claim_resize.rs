//! PersistentVolumeClaimResize: a bound claim grows only when its storage class allows it.
//!
//! Source: Kubernetes' plugin `storage/persistentvolume/resize`.

use reeve_api::quantity::Quantity;
use serde_json::Value;

use super::{Attributes, Operation, forbidden};
use crate::registry::{Registry, meta};
use crate::status::ApiError;

/// Refuses to let a claim grow that cannot.
pub(super) fn validate(registry: &Registry, attributes: &Attributes<'_>) -> Result<(), ApiError> {
    let Some(old) = attributes
        .old
        .filter(|_| attributes.operation == Operation::Update && attributes.is("", "persistentvolumeclaims"))
    else {
        return Ok(());
    };
    let size = |claim: &Value| Quantity::from_value(&claim["spec"]["resources"]["requests"]["storage"]).ok();
    let claim = &attributes.object;
    if size(claim) <= size(old) {
        return Ok(());
    }
    if old["status"]["phase"] != "Bound" {
        return Err(forbidden(attributes, "Only bound persistent volume claims can be expanded"));
    }
    let annotated = meta::get(claim, "annotations")["volume.beta.kubernetes.io/storage-class"].as_str();
    let name = annotated.or_else(|| claim["spec"]["storageClassName"].as_str()).unwrap_or_default();
    let classes = registry.resource("storage.k8s.io", "v1", "storageclasses");
    let class = classes.and_then(|classes| registry.peek(&classes, "", name));
    if !name.is_empty() && class.is_some_and(|class| class.value()["allowVolumeExpansion"] == true) {
        return Ok(());
    }
    let why = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must \
               support resize";
    Err(forbidden(attributes, why))
}
