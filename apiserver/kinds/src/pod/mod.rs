//! Pod specs and pod templates: their defaults and rules, for Pod, ReplicaSet, Deployment and whatever follows.
//!
//! Source: `pkg/apis/core/v1/defaults.go` and `pkg/apis/core/validation` of Kubernetes v1.36. What is not
//! here: the Pod kind itself (`kinds::pods`).

mod affinity;
mod annotations;
mod container;
mod defaults;
mod env;
mod handler;
mod level;
mod network_volume;
mod os;
mod overlaps;
mod projection;
mod qos;
pub(crate) mod resources;
mod security;
mod spec;
mod volume;
mod warnings;
mod windows;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::json::{list, some_mut};
use crate::path::Path;

pub(crate) use affinity::{node_affinity_additions, node_selector, node_selector_additions, tolerations};
pub(crate) use annotations::{
    changes as annotation_changes, match_fields as annotations_match_fields, rules as annotation_rules,
};
pub(crate) use defaults::{
    default_pod, default_template, default_volume_sources, drop_disabled, drop_disabled_of_template, keep_for_status,
};
pub(crate) use handler::port as port_number_or_name;
pub(crate) use network_volume::{csi_driver, iscsi, iscsi_initiator};
pub(crate) use qos::qos_class;
pub(crate) use resources::overhead;
pub(crate) use spec::{pod_only, spec, template};
pub(crate) use volume::source as volume_source;
pub(crate) use warnings::{
    controller_warnings, deprecated_node_label, name_warning, node_term as old_node_labels, warnings,
};

/// What the rules inside a pod spec must know of the rest of it.
struct Scope<'v> {
    /// Whether the spec is a pod's own, not a template's.
    is_pod: bool,
    /// The volumes by name.
    volumes: BTreeMap<&'v str, &'v Value>,
    /// `terminationGracePeriodSeconds`.
    grace: i64,
    /// `restartPolicy`.
    restart_policy: &'v str,
    /// Names of `resourceClaims`.
    claims: BTreeSet<&'v str>,
    /// Whether the pod shares the host's user namespace.
    host_users: bool,
    /// `os.name`
    os: Option<&'v str>,
}

/// What the API server changes in a new pod before it is checked.
pub(crate) fn prepare_create(pod: &mut Value) {
    if let Some(spec) = some_mut(pod, "spec") {
        drop_disabled(spec);
    }
    affinity::apply_label_keys(pod);
}

/// Every container of a pod spec with its path, in Kubernetes' order: init, regular, ephemeral.
fn visit(spec: &Value, path: &Path<'_>, visitor: &mut dyn FnMut(&Value, &Path<'_>)) {
    for kind in ["initContainers", "containers", "ephemeralContainers"] {
        let path = path.child(kind);
        for (index, container) in list(spec, kind).iter().enumerate() {
            visitor(container, &path.index(index));
        }
    }
}
