//! ResourceSlice: devices that a driver offers, on one node or on several.

use jiff::Timestamp;
use k8s_openapi::api::resource::v1::ResourceSlice;
use reeve_api::names;
use serde_json::Value;

use super::device::{self, Placement};
use super::shared::{each_once, name_of, pool_name};
use super::{GROUP, device_capacity};
use crate::errors::Errors;
use crate::field::FieldError;
use crate::json::{at, flag, get, has, int, items_mut, list, object_mut, set_absent, text, text_at};
use crate::kind::{Column, Kind, Names, Part};
use crate::kinds::storage::driver_name;
use crate::kinds::wiring;
use crate::meta::{self, MetaRules};
use crate::path::Path;
use crate::{age, pod, shown, table};

const NAMES: Names = Names {
    group: GROUP,
    version: "v1",
    kind: "ResourceSlice",
    plural: "resourceslices",
    singular: "resourceslice",
    short: &[],
    categories: &[],
    namespaced: false,
};

const META: MetaRules = MetaRules { namespaced: false, name: names::dns1123_subdomain };

/// Most devices of a slice, and most when one has taints or draws on counters.
const MAX_DEVICES: usize = 128;
const MAX_ADVANCED_DEVICES: usize = 64;
const MAX_COUNTER_SETS: usize = 8;

const COLUMNS: &[Column] = &[
    table::NAME,
    table::column(
        "Node",
        "NodeName identifies the node which provides the resources in this pool. A field selector can be used to list only ResourceSlice objects belonging to a certain node.\n\nThis field can be used to limit access from nodes to ResourceSlices with the same node name. It also indicates to autoscalers that adding new nodes of the same type as some old node might also make new resources available.\n\nExactly one of NodeName, NodeSelector, AllNodes, and PerDeviceNodeSelection must be set. This field is immutable.",
    ),
    table::column(
        "Driver",
        "Driver identifies the DRA driver providing the capacity information. A field selector can be used to list only ResourceSlice objects with a certain driver name.\n\nMust be a DNS subdomain and should end with a DNS domain owned by the vendor of the driver. It should use only lower case characters. This field is immutable.",
    ),
    table::column(
        "Pool",
        "Name is used to identify the pool. For node-local devices, this is often the node name, but this is not required.\n\nIt must not be longer than 253 characters and must consist of one or more DNS sub-domains separated by slashes. This field is immutable.",
    ),
    table::AGE,
];

/// The kind.
pub(super) struct ResourceSlices;

impl Kind for ResourceSlices {
    wiring!(ResourceSlice, NAMES, COLUMNS);

    fn default(&self, object: &mut Value) {
        self.shape().fill(object);
        for device in items_mut(object_mut(object, "spec"), "devices") {
            let mappings = device.get_mut("nodeAllocatableResourceMappings").and_then(Value::as_object_mut);
            for mapping in mappings.into_iter().flat_map(|all| all.values_mut()) {
                set_absent(mapping, "allocationMultiplier", "1");
            }
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        device::drop_disabled(object);
        meta::first_generation(object);
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        META.create(object, &mut errors);
        check(get(object, "spec"), None, &mut errors);
        errors.into_vec()
    }

    fn prepare_update(&self, _part: Part, object: &mut Value, old: &Value) {
        meta::next_generation(object, old);
        device::drop_disabled(object);
    }

    fn validate_update(&self, _part: Part, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        META.update(object, old, &mut errors);
        check(get(object, "spec"), Some(get(old, "spec")), &mut errors);
        errors.into_vec()
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        let driver = text_at(object, &["spec", "driver"]);
        if driver == driver.to_lowercase() {
            return Vec::new();
        }
        let why = format!("driver names should be lowercase; {driver:?} contains uppercase characters");
        vec![format!("spec.driver: {why}")]
    }

    fn selectable_field(&self, object: &Value, field: &str) -> Option<String> {
        match field {
            "spec.nodeName" => Some(text_at(object, &["spec", "nodeName"]).to_owned()),
            "spec.driver" => Some(text_at(object, &["spec", "driver"]).to_owned()),
            _ => None,
        }
    }

    fn not_selectable(&self, field: &str) -> Option<String> {
        Some(format!("field label not supported for resource.k8s.io/v1, Kind=ResourceSlice: {field}"))
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![
            table::name(object),
            text_at(object, &["spec", "nodeName"]).into(),
            text_at(object, &["spec", "driver"]).into(),
            text_at(object, &["spec", "pool", "name"]).into(),
            age::of(object, now).into(),
        ]
    }
}

fn check(spec: &Value, was: Option<&Value>, errors: &mut Errors) {
    let path = Path::of("spec");
    driver_name(text(spec, "driver"), &path.child("driver"), errors);
    pool(get(spec, "pool"), &path.child("pool"), errors);
    if let Some(was) = was {
        let name = |spec| at(spec, &["pool", "name"]);
        errors.immutable(&path.child("pool").child("name"), name(spec), name(was));
        for field in ["driver", "nodeName"] {
            errors.immutable(&path.child(field), get(spec, field), get(was, field));
        }
    }
    nodes(spec, &path, errors);
    if has(spec, "sharedCounters") && has(spec, "devices") {
        errors.invalid(&path, "", "only one of `sharedCounters` or `devices` is allowed");
    }
    let devices = list(spec, "devices");
    let advanced = |one: &Value| !list(one, "taints").is_empty() || !list(one, "consumesCounters").is_empty();
    let max = if devices.iter().any(advanced) { MAX_ADVANCED_DEVICES } else { MAX_DEVICES };
    let each_by_itself = flag(spec, "perDeviceNodeSelection");
    each_once(devices, max, name_of, &path.child("devices"), errors, |one, path, errors| {
        let before = was.and_then(|was| list(was, "devices").iter().find(|old| name_of(old) == name_of(one)));
        device::check(one, before, each_by_itself, path, errors);
    });
    let (sets, path) = (list(spec, "sharedCounters"), path.child("sharedCounters"));
    each_once(sets, MAX_COUNTER_SETS, name_of, &path, errors, |set, path, errors| {
        device_capacity::counters(set, "name", path, errors);
    });
}

fn pool(pool: &Value, path: &Path<'_>, errors: &mut Errors) {
    pool_name(text(pool, "name"), &path.child("name"), errors);
    let number = |field| int(pool, field).unwrap_or_default();
    if number("resourceSliceCount") <= 0 {
        errors.invalid(&path.child("resourceSliceCount"), number("resourceSliceCount"), "must be greater than zero");
    }
    if number("generation") < 0 {
        let detail = "must be greater than or equal to zero";
        errors.invalid(&path.child("generation"), number("generation"), detail);
    }
}

/// On which nodes the devices are: said in exactly one way.
fn nodes(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    const ONE_OF: &str = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    let mut placement = Placement::default();
    placement.node_name(spec, "must be either unset or set to a non-empty string", path, errors);
    if has(spec, "nodeSelector") {
        placement.said("nodeSelector");
        let (selector, path) = (get(spec, "nodeSelector"), path.child("nodeSelector"));
        pod::node_selector(selector, &path, errors);
        let terms = list(selector, "nodeSelectorTerms");
        if terms.len() != 1 {
            let (path, shown) = (path.child("nodeSelectorTerms"), shown::node_terms(terms));
            let shown = if has(selector, "nodeSelectorTerms") { shown } else { "null".to_owned() };
            errors.invalid_object(&path, shown, "must have exactly one node selector term");
        }
    }
    for field in ["allNodes", "perDeviceNodeSelection"] {
        placement.flag(spec, field, path, errors);
    }
    if placement.count() == 0 {
        errors.required(path, ONE_OF);
    } else if placement.count() > 1 {
        errors.invalid(path, placement.to_string(), format!("{ONE_OF}, but multiple fields are set"));
    }
}

#[cfg(test)]
mod tests {
    use crate::kind::Part;
    use crate::testing::*;
    use serde_json::json;

    fn slice(spec: &str) -> String {
        format!("{{apiVersion: resource.k8s.io/v1, kind: ResourceSlice, metadata: {{name: a}}, spec: {spec}}}")
    }

    fn plain() -> String {
        slice(
            "{driver: d.com, pool: {name: p, resourceSliceCount: 1}, nodeName: n1, devices: [{name: x, attributes: {model: {string: m}}, capacity: {memory: {value: 1Gi}}}]}",
        )
    }

    #[test]
    fn a_slice_says_where_its_devices_are() {
        check_valid(&plain());
        assert_eq!(row(&plain()), "a | n1 | d.com | p | <unknown>");
        assert_eq!(created(&plain())["spec"]["pool"]["generation"], 0);
        check_invalid(
            &slice("{driver: D.com, pool: {name: ''}, nodeName: n1, allNodes: true, perDeviceNodeSelection: false}"),
            &[
                "spec.pool.name: Required value",
                "spec.pool.resourceSliceCount: Invalid value: 0: must be greater than zero",
                "spec.perDeviceNodeSelection: Invalid value: false: must be either unset or set to true",
                "spec: Invalid value: \"{`nodeName`, `allNodes`}\": exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required, but multiple fields are set",
            ],
        );
    }

    #[test]
    fn devices_are_checked() {
        check_invalid(
            &plain().replace(
                "capacity: {memory: {value: 1Gi}}}",
                "capacity: {memory: {value: 1Gi, requestPolicy: {}}, 'a/': {value: 1}}, nodeName: n2, taints: [{key: k}], consumesCounters: [{counterSet: c}], bindingConditions: [c]}, {name: x, attributes: {a: {}, b: {int: 1, bool: true}, c: {version: v1}}}",
            ),
            &[
                "spec.devices[0].capacity: Invalid value: \"\": the name must not be empty",
                "spec.devices[0].capacity[memory].requestPolicy: Forbidden: allowMultipleAllocations must be true",
                "spec.devices[0].taints[0].effect: Required value",
                "spec.devices[0].consumesCounters[0].counters: Required value",
                "spec.devices[0]: Invalid value: null: `nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec",
                "spec.devices[0].bindingFailureConditions: Invalid value: null: bindingFailureConditions are required to use bindingConditions",
                "spec.devices[1].attributes[a]: Invalid value: \"\": exactly one value must be specified",
                "spec.devices[1].attributes[b]: Invalid value: {\"IntValue\":1,\"BoolValue\":true,\"StringValue\":null,\"VersionValue\":null,\"IntValues\":null,\"BoolValues\":null,\"StringValues\":null,\"VersionValues\":null}: exactly one value must be specified",
                "spec.devices[1].attributes[c].version: Invalid value: \"v1\": must be a string compatible with semver.org spec 2.0.0",
                "spec.devices[1]: Duplicate value: \"x\"",
            ],
        );
    }

    #[test]
    fn capacities_that_are_shared_say_how_much_one_may_ask_for() {
        let with = |policy: &str| {
            plain().replace(
                "{value: 1Gi}}}",
                &format!("{{value: 1Gi, requestPolicy: {policy}}}}}, allowMultipleAllocations: true}}"),
            )
        };
        check_valid(&with("{default: 64Mi, validRange: {min: 64Mi, step: 64Mi}}"));
        check_invalid(
            &with("{default: 1, validValues: [2, 2Gi]}"),
            &[
                "spec.devices[0].capacity[memory].requestPolicy.validValues[1]: Invalid value: \"2Gi\": option is larger than capacity value: 1Gi",
                "spec.devices[0].capacity[memory].requestPolicy.validValues: Invalid value: \"1\": default value is not valid according to the requestPolicy",
            ],
        );
        check_invalid(
            &with("{default: 3, validRange: {min: 2, max: 2, step: 2}}"),
            &[
                "spec.devices[0].capacity[memory].requestPolicy.validRange.max: Invalid value: \"3\": default is more than max: 2",
                "spec.devices[0].capacity[memory].requestPolicy.validRange.step: Invalid value: \"3\": value is not a multiple of a given step (2) from (2)",
            ],
        );
    }

    #[test]
    fn driver_pool_and_node_stay() {
        let (new, errors) = updated(Part::Main, &plain(), |new| {
            new["spec"]["driver"] = json!("e.com");
            new["spec"]["pool"]["name"] = json!("q");
        });
        assert_eq!(
            errors,
            [
                "spec.pool.name: Invalid value: \"q\": field is immutable",
                "spec.driver: Invalid value: \"e.com\": field is immutable",
            ]
        );
        assert_eq!(new["metadata"]["generation"], 2);
    }
}
