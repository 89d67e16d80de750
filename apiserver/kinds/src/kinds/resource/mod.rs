//! `resource.k8s.io`: devices, what there is of them and who wants them.
//!
//! Source of the rules: `pkg/apis/resource` of Kubernetes v1.36, with the features that are on by default: admin
//! access, alternatives, partitions, taints, binding conditions, consumable capacity, extended resources.

mod claim;
mod claim_spec;
mod claim_status;
mod claim_template;
mod device;
mod device_capacity;
mod device_class;
mod shared;
mod slice;

use std::sync::Arc;

use crate::kind::Kind;

const GROUP: &str = "resource.k8s.io";

/// The kinds of the group, by resource name.
pub(super) fn kinds() -> Vec<Arc<dyn Kind>> {
    vec![
        Arc::new(device_class::DeviceClasses),
        Arc::new(claim::ResourceClaims),
        Arc::new(claim_template::ResourceClaimTemplates),
        Arc::new(slice::ResourceSlices),
    ]
}
