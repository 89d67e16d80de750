//! `flowcontrol.apiserver.k8s.io`: which requests wait for which, when there are too many.
//!
//! Source of the rules: `pkg/apis/flowcontrol` of Kubernetes v1.36.

pub(super) mod bootstrap;
mod flow_schema;
mod policy_rules;
mod priority_level;

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;

use crate::errors::Errors;
use crate::json::{get, list, text};
use crate::kind::Kind;
use crate::path::Path;

const GROUP: &str = "flowcontrol.apiserver.k8s.io";

/// The kinds of the group, by resource name.
pub(super) fn kinds() -> Vec<Arc<dyn Kind>> {
    vec![Arc::new(flow_schema::FlowSchemas), Arc::new(priority_level::PriorityLevels)]
}

/// Conditions have types, each another.
fn conditions(object: &Value, errors: &mut Errors) {
    let (mut seen, path) = (BTreeSet::new(), Path::of("status"));
    let path = path.child("conditions");
    for (index, condition) in list(get(object, "status"), "conditions").iter().enumerate() {
        let (path, kind) = (path.index(index), text(condition, "type"));
        if !seen.insert(kind) {
            errors.duplicate(&path.child("type"), kind);
        }
        if kind.is_empty() {
            errors.required(&path.child("type"), "");
        }
    }
}
