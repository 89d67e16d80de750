//! ComponentStatus: whether a component works, as the API server sees it. Made when it is asked for; never stored.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ComponentStatus;
use serde_json::Value;

use crate::field::FieldError;
use crate::json::{list, text};
use crate::kind::{Column, Kind, Names, Part};
use crate::kinds::wiring;
use crate::table;

const NAMES: Names = Names {
    group: "",
    version: "v1",
    kind: "ComponentStatus",
    plural: "componentstatuses",
    singular: "componentstatus",
    short: &["cs"],
    categories: &[],
    namespaced: false,
};

const COLUMNS: &[Column] = &[
    table::NAME,
    table::column("Status", "Status of the component conditions"),
    table::column("Message", "Message of the component conditions"),
    table::column("Error", "Error of the component conditions"),
];

/// The kind. Nobody writes objects of it.
pub(crate) struct ComponentStatuses;

impl Kind for ComponentStatuses {
    wiring!(ComponentStatus, NAMES, COLUMNS);

    fn default(&self, _object: &mut Value) {}

    fn prepare_create(&self, _object: &mut Value) {}

    fn validate_create(&self, _object: &Value) -> Vec<FieldError> {
        Vec::new()
    }

    fn prepare_update(&self, _part: Part, _object: &mut Value, _old: &Value) {}

    fn validate_update(&self, _part: Part, _object: &Value, _old: &Value) -> Vec<FieldError> {
        Vec::new()
    }

    fn deprecation(&self) -> Option<&'static str> {
        Some("v1 ComponentStatus is deprecated in v1.19+")
    }

    fn row(&self, object: &Value, _now: Timestamp) -> Vec<Value> {
        let healthy = list(object, "conditions").iter().find(|condition| text(condition, "type") == "Healthy");
        let field = |name: &str| healthy.map_or("", |condition| text(condition, name));
        let status = match field("status") {
            "True" => "Healthy",
            "False" => "Unhealthy",
            _ => "Unknown",
        };
        vec![table::name(object), status.into(), field("message").into(), field("error").into()]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_row_says_how_the_component_is() {
        let row = |conditions: Value| {
            ComponentStatuses.row(&json!({"metadata": {"name": "x"}, "conditions": conditions}), Timestamp::UNIX_EPOCH)
        };
        let condition = json!([{"type": "Healthy", "status": "True", "message": "ok"}]);
        assert_eq!(row(condition), [json!("x"), json!("Healthy"), json!("ok"), json!("")]);
        assert_eq!(row(json!([])), [json!("x"), json!("Unknown"), json!(""), json!("")]);
    }
}
