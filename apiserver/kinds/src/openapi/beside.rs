//! What is served without being stored: component statuses and reviews, with their schemas and paths.

use k8s_openapi::api::core::v1::ComponentStatus;
use serde_json::{Map, Value};

use super::Schemas;
use super::operations::Action;
use super::paths::Paths;
use super::schemas;
use crate::kinds::{component_status, reviews};

/// Adds the schemas and paths of a group and version; whether there were any.
pub(super) fn add(group: &str, version: &str, all: &mut Map<String, Value>, paths: &mut Map<String, Value>) -> bool {
    let mut has_any = false;
    for review in reviews().iter().filter(|own| own.names().group == group && own.names().version == version) {
        let Schemas { own, all: more, .. } = review.schemas();
        all.extend(more);
        schemas::mark(all, review.names(), &own);
        let mut made = Paths::new(review.names(), &own);
        made.collection(&[Action::Post]);
        paths.extend(made.all);
        has_any = true;
    }
    if (group, version) != ("", "v1") {
        return has_any;
    }
    let statuses = component_status();
    let names = statuses.names();
    let Schemas { own, all: more, .. } = schemas::of::<ComponentStatus>();
    all.extend(more);
    schemas::add_kind(all, names, &own);
    let mut made = Paths::new(names, &own);
    made.collection(&[Action::List]);
    made.object(&[Action::Get]);
    paths.extend(made.all);
    true
}
