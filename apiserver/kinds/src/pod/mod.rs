//! Pod specs and pod templates: their defaults and rules, for Pod, ReplicaSet, Deployment and whatever follows.
//!
//! Source: `pkg/apis/core/v1/defaults.go` and `pkg/apis/core/validation` of Kubernetes v1.36. Sources of volumes
//! that Reeve cannot mount yet are only checked for being the only one. What is not here: the Pod kind itself
//! (`kinds::pods`).

mod affinity;
mod container;
mod defaults;
mod env;
mod handler;
mod level;
mod qos;
pub(crate) mod resources;
mod security;
mod spec;
mod volume;
mod warnings;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

pub(crate) use affinity::{node_selector_additions, tolerations};
pub(crate) use defaults::{default_pod, default_template, keep_for_status};
pub(crate) use handler::port as port_number_or_name;
pub(crate) use qos::qos_class;
pub(crate) use spec::{pod_only, spec, template};
pub(crate) use warnings::{controller_warnings, name_warning, spec_warnings};

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
}
