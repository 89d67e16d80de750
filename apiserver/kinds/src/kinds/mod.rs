//! The built-in kinds, one folder for each API group.

mod admissionregistration;
mod apiextensions;
mod apiregistration;
mod apps;
mod autoscaling;
mod batch;
mod certificates;
mod coordination;
mod core;
mod discovery;
mod events;
mod flowcontrol;
mod networking;
mod node;
mod policy;
mod rbac;
mod resource;
mod scheduling;
mod storage;
mod transient;

use std::sync::Arc;

pub use self::core::service_address_rules;
pub use apiextensions::{Approval, approval_of, is_protected_group};

pub use transient::{bodies, body, reviews};

use crate::kind::Kind;

/// Objects that every cluster has from its start, for the server to create.
pub mod bootstrap {
    pub use super::flowcontrol::bootstrap::*;
    pub use super::rbac::bootstrap::*;
    pub use super::scheduling::priority_class::system_classes;
}

/// The kind whose objects are made when they are asked for; it is none of [`builtin`], for nothing of it is stored.
#[must_use]
pub fn component_status() -> Arc<dyn Kind> {
    Arc::new(core::component_status::ComponentStatuses)
}

/// Every built-in kind, in the order of discovery: core group first, then the groups as kube-apiserver installs
/// them, in each the resources by name.
#[must_use]
pub fn builtin() -> Vec<Arc<dyn Kind>> {
    let groups = [
        core::kinds(),
        apiregistration::kinds(),
        apps::kinds(),
        events::kinds(),
        autoscaling::kinds(),
        batch::kinds(),
        certificates::kinds(),
        networking::kinds(),
        policy::kinds(),
        rbac::kinds(),
        storage::kinds(),
        admissionregistration::kinds(),
        apiextensions::kinds(),
        scheduling::kinds(),
        coordination::kinds(),
        node::kinds(),
        discovery::kinds(),
        resource::kinds(),
        flowcontrol::kinds(),
    ];
    groups.into_iter().flatten().collect()
}

/// The methods of [`Kind`] that only pass on what stands beside them: `wiring!(TYPE, NAMES, COLUMNS);` with the
/// type of `k8s-openapi`, the kind's [`Names`](crate::Names) and its columns.
macro_rules! wiring {
    ($type:ty, $names:expr, $columns:expr) => {
        fn names(&self) -> &crate::kind::Names {
            &$names
        }

        fn shape(&self) -> &'static crate::shape::Shape {
            static SHAPE: std::sync::OnceLock<&'static crate::shape::Shape> = std::sync::OnceLock::new();
            SHAPE.get_or_init(crate::shape::of::<$type>)
        }

        fn schemas(&self) -> crate::openapi::Schemas {
            crate::openapi::of::<$type>()
        }

        fn columns(&self) -> &[crate::kind::Column] {
            $columns
        }
    };
}
use wiring;
