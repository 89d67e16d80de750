//! PersistentVolumeClaim: a pod's wish for storage, and what it got.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use reeve_api::names;
use reeve_api::quantity::Quantity;
use serde_json::{Value, json};

use crate::claim::{self, OLD_CLASS};
use crate::errors::Errors;
use crate::field::FieldError;
use crate::json::{at, copy_field, entries, get, has, list, object_mut, remove, set, some_mut, text, text_at};
use crate::kind::{Column, Kind, Names, Part};
use crate::kinds::wiring;
use crate::meta::MetaRules;
use crate::path::Path;
use crate::pod::resources;
use crate::{age, shown, table};

const NAMES: Names = Names {
    group: "",
    version: "v1",
    kind: "PersistentVolumeClaim",
    plural: "persistentvolumeclaims",
    singular: "persistentvolumeclaim",
    short: &["pvc"],
    categories: &[],
    namespaced: true,
};

const META: MetaRules = MetaRules { namespaced: true, name: names::dns1123_subdomain };

const COLUMNS: &[Column] = &[
    table::NAME,
    table::column("Status", "phase represents the current phase of PersistentVolumeClaim."),
    table::column("Volume", "volumeName is the binding reference to the PersistentVolume backing this claim."),
    table::column("Capacity", "capacity represents the actual resources of the underlying volume."),
    table::column(
        "Access Modes",
        "accessModes contains the actual access modes the volume backing the PVC has. More info: https://kubernetes.io/docs/concepts/storage/persistent-volumes#access-modes-1",
    ),
    table::column("StorageClass", "StorageClass of the pvc"),
    table::column("VolumeAttributesClass", "VolumeAttributesClass of the pvc"),
    table::AGE,
    table::wide(
        "VolumeMode",
        "volumeMode defines what type of volume is required by the claim. Value of Filesystem is implied when not included in claim spec.",
    ),
];

/// How far a claim's growth can be.
const RESIZE_STATUSES: &[&str] = &[
    "ControllerResizeInProgress",
    "ControllerResizeInfeasible",
    "NodeResizeInProgress",
    "NodeResizeInfeasible",
    "NodeResizePending",
];

/// The kind.
pub(super) struct PersistentVolumeClaims;

impl Kind for PersistentVolumeClaims {
    wiring!(PersistentVolumeClaim, NAMES, COLUMNS);

    fn parts(&self) -> &[Part] {
        &[Part::Status]
    }

    fn default(&self, object: &mut Value) {
        self.shape().fill(object);
        claim::default(object);
    }

    fn prepare_create(&self, object: &mut Value) {
        set(object, "status", json!({"phase": "Pending"}));
        data_sources(object_mut(object, "spec"), &Value::Null);
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        META.create(object, &mut errors);
        claim::spec_rules(get(object, "spec"), false, &Path::of("spec"), &mut errors);
        errors.into_vec()
    }

    fn prepare_update(&self, part: Part, object: &mut Value, old: &Value) {
        if part == Part::Main {
            copy_field(object, old, "status");
            data_sources(object_mut(object, "spec"), get(old, "spec"));
        } else {
            copy_field(object, old, "spec");
        }
    }

    fn validate_update(&self, part: Part, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        META.update(object, old, &mut errors);
        if part == Part::Main {
            META.create(object, &mut errors);
            claim::spec_rules(get(object, "spec"), names_group(get(old, "spec")), &Path::of("spec"), &mut errors);
            changes(object, old, &mut errors);
        } else {
            status_rules(object, &mut errors);
        }
        errors.into_vec()
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        let mut warnings = Vec::new();
        if has(at(object, &["metadata", "annotations"]), OLD_CLASS) {
            let advice = "deprecated since v1.8; use \"storageClassName\" attribute instead";
            warnings.push(format!("metadata.annotations[{OLD_CLASS}]: {advice}"));
        }
        warnings.extend(claim::warnings(get(object, "spec"), &Path::of("spec")));
        warnings
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let (spec, status) = (get(object, "spec"), get(object, "status"));
        let volume = text(spec, "volumeName");
        let (mut capacity, mut modes) = (String::new(), String::new());
        if !volume.is_empty() {
            capacity = Quantity::from_value(at(status, &["capacity", "storage"])).unwrap_or_default().to_string();
            modes = claim::short_modes(list(status, "accessModes"));
        }
        let is_going = has(get(object, "metadata"), "deletionTimestamp");
        vec![
            table::name(object),
            if is_going { "Terminating" } else { text(status, "phase") }.into(),
            volume.into(),
            capacity.into(),
            modes.into(),
            claim::storage_class(object).into(),
            table::or_unset(get(spec, "volumeAttributesClassName")),
            age::of(object, now).into(),
            table::or_unset(get(spec, "volumeMode")),
        ]
    }
}

/// What the claim is filled from stands in an old field and in a new one: each follows the other. A source of
/// another namespace is not taken, and the old field takes claims and snapshots only.
fn data_sources(spec: &mut Value, was: &Value) {
    let had_new = has(was, "dataSourceRef");
    if !text_at(spec, &["dataSourceRef", "namespace"]).is_empty() && !had_new {
        remove(spec, "dataSourceRef");
    }
    let old = get(spec, "dataSource");
    let is_known = matches!(
        (text(old, "kind"), text(old, "apiGroup")),
        ("PersistentVolumeClaim", "") | ("VolumeSnapshot", "snapshot.storage.k8s.io")
    );
    if !has(was, "dataSource") && !had_new && !has(spec, "dataSourceRef") && !is_known {
        remove(spec, "dataSource");
    }
    let (old, new) = (get(spec, "dataSource").clone(), get(spec, "dataSourceRef").clone());
    if new.is_null() && !old.is_null() {
        set(spec, "dataSourceRef", old);
    } else if old.is_null() && !new.is_null() && text(&new, "namespace").is_empty() {
        set(spec, "dataSource", new);
        if let Some(source) = some_mut(spec, "dataSource") {
            remove(source, "namespace");
        }
    }
}

/// Whether a source names a group: whatever it is, it was accepted.
fn names_group(was: &Value) -> bool {
    ["dataSource", "dataSourceRef"].iter().any(|field| has(get(was, field), "apiGroup"))
}

/// Rules for a change: only a bound claim's size and attributes change.
fn changes(object: &Value, old: &Value, errors: &mut Errors) {
    let (spec, mut before) = (get(object, "spec"), get(old, "spec").clone());
    data_sources(&mut before, get(old, "spec"));
    let mut masked = spec.clone();
    let note = |object| get(at(object, &["metadata", "annotations"]), OLD_CLASS).as_str().map(str::to_owned);
    let (old_class, new_class) = (note(old), note(object));
    let class = get(spec, "storageClassName").as_str();
    let had_class = has(&before, "storageClassName");
    if text(&before, "volumeName").is_empty() {
        copy_field(&mut before, spec, "volumeName");
    }
    // The class may move from the old annotation to the field, or come where there was none.
    if old_class.is_some()
        && !had_class
        && class == old_class.as_deref()
        && (new_class.is_none() || new_class == old_class)
    {
        remove(&mut masked, "storageClassName");
    } else {
        if new_class.as_deref().unwrap_or_default() != old_class.as_deref().unwrap_or_default() {
            let path = Path::of("metadata");
            let path = path.child("annotations");
            errors.invalid(&path.child(OLD_CLASS), new_class.unwrap_or_default(), "field is immutable");
        }
        if class.is_some() && !had_class && (old_class.is_none() || class == old_class.as_deref()) {
            remove(&mut masked, "storageClassName");
        }
    }
    if text_at(object, &["status", "phase"]) == "Bound" {
        if let Some(requests) = some_mut(&mut masked, "resources").and_then(|all| some_mut(all, "requests")) {
            copy_field(requests, at(&before, &["resources", "requests"]), "storage");
        }
        copy_field(&mut masked, &before, "volumeAttributesClassName");
    }
    let path = Path::of("spec");
    if masked != before {
        let difference = shown::difference("PersistentVolumeClaimSpec", &before, &masked);
        let detail =
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
        errors.forbidden(&path, format!("{detail}\n{difference}"));
    }
    size(object, old, &path, errors);
    errors.immutable(&Path::of("volumeMode"), get(spec, "volumeMode"), get(&before, "volumeMode"));
    attributes_class(spec, old, &path.child("volumeAttributesClassName"), errors);
}

/// A wish may shrink, but not to what there is already or less.
fn size(object: &Value, old: &Value, path: &Path<'_>, errors: &mut Errors) {
    let storage = |holder: &Value, at_: &[&str]| Quantity::from_value(at(holder, at_)).unwrap_or_default();
    let wish = ["spec", "resources", "requests", "storage"];
    let now = storage(object, &wish);
    if now < storage(old, &wish) && now <= storage(old, &["status", "capacity", "storage"]) {
        let path = path.child("resources");
        let path = path.child("requests");
        errors.forbidden(&path.child("storage"), "field can not be less than status.capacity");
    }
}

fn attributes_class(spec: &Value, old: &Value, path: &Path<'_>, errors: &mut Errors) {
    let field = "volumeAttributesClassName";
    let class = get(spec, field);
    if class == at(old, &["spec", field]) || !has(get(old, "status"), "currentVolumeAttributesClassName") {
        return;
    }
    let what = match class.as_str() {
        None => "nil",
        Some("") => "empty string",
        Some(_) => return,
    };
    let detail = format!("update to {what} is forbidden when status.currentVolumeAttributesClassName is not nil");
    errors.forbidden(path, detail);
}

fn status_rules(object: &Value, errors: &mut Errors) {
    if list(get(object, "spec"), "accessModes").is_empty() {
        errors.required(&Path::of("Spec").child("accessModes"), "");
    }
    let (status, path) = (get(object, "status"), Path::of("status"));
    let not_below_zero = |amount: &Value, path: &Path<'_>, errors: &mut Errors| {
        let below = Quantity::from_value(amount).ok().map(|amount| amount.value()).filter(|amount| *amount < 0);
        if let Some(amount) = below {
            errors.invalid(path, amount, "must be a valid resource quantity");
        }
        below.is_none()
    };
    let capacity = path.child("capacity");
    for (name, amount) in entries(status, "capacity") {
        not_below_zero(amount, &capacity.key(name), errors);
    }
    let statuses = path.child("allocatedResourceStatuses");
    for (name, state) in entries(status, "allocatedResourceStatuses") {
        claimed_resource(name, &statuses, errors);
        if !state.as_str().is_some_and(|state| RESIZE_STATUSES.contains(&state)) {
            errors.unsupported(&statuses, name, RESIZE_STATUSES);
        }
    }
    let allocated = path.child("allocatedResources");
    for (name, amount) in entries(status, "allocatedResources") {
        let here = allocated.key(name);
        if claimed_resource(name, &allocated, errors) && not_below_zero(amount, &here, errors) {
            resources::quantity("storage", amount, &here, errors);
        }
    }
}

/// A claim counts storage, and whatever others call theirs. Gives whether the name has no fault.
fn claimed_resource(name: &str, path: &Path<'_>, errors: &mut Errors) -> bool {
    let before = errors.count();
    errors.invalid_each(path, name, names::qualified_name(name));
    if errors.count() == before && resources::is_native(name) && name != "storage" {
        errors.unsupported(path, name, &["storage"]);
    }
    errors.count() == before
}

#[cfg(test)]
mod tests {
    use crate::kind::Part;
    use crate::testing::*;
    use serde_json::json;

    fn claim(spec: &str) -> String {
        format!(
            "{{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {{name: c, namespace: n}}, spec: {{{spec}}}}}"
        )
    }

    fn plain() -> String {
        claim("accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}")
    }

    #[test]
    fn a_new_claim_waits_and_wants_a_file_system() {
        check_created(
            &plain(),
            "{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: c, namespace: n}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}, volumeMode: Filesystem}, status: {phase: Pending}}",
        );
    }

    #[test]
    fn both_fields_for_a_source_say_the_same() {
        let from = "accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}, ";
        let spec = |source: &str| created(&claim(&format!("{from}{source}")))["spec"].clone();
        let other = json!({"apiGroup": null, "kind": "PersistentVolumeClaim", "name": "a"});
        for field in ["dataSource", "dataSourceRef"] {
            let spec = spec(&format!("{field}: {{kind: PersistentVolumeClaim, name: a}}"));
            assert_eq!((&spec["dataSource"], &spec["dataSourceRef"]), (&other, &other), "{field}");
        }
        let spec = spec("dataSource: {apiGroup: example.org, kind: Tape, name: a}");
        assert_eq!((&spec["dataSource"], &spec["dataSourceRef"]), (&json!(null), &json!(null)));
        check_invalid(
            &claim(&format!(
                "{from}dataSource: {{kind: PersistentVolumeClaim, name: a}}, dataSourceRef: {{kind: PersistentVolumeClaim, name: b}}"
            )),
            &["spec: Invalid value: {}: must match dataSourceRef"],
        );
    }

    #[test]
    fn a_claim_says_how_much_and_how() {
        check_valid(&plain());
        check_invalid(
            &claim("accessModes: [Never], resources: {requests: {storage: 0}}, volumeMode: Tape"),
            &[
                "spec.accessModes: Unsupported value: \"Never\": supported values: \"ReadOnlyMany\", \"ReadWriteMany\", \"ReadWriteOnce\", \"ReadWriteOncePod\"",
                "spec.resources[storage]: Invalid value: \"0\": must be greater than zero",
                "spec.volumeMode: Unsupported value: \"Tape\": supported values: \"Block\", \"Filesystem\"",
            ],
        );
        check_invalid(
            &claim(""),
            &[
                "spec.accessModes: Required value: at least 1 access mode is required",
                "spec.resources[storage]: Required value",
            ],
        );
    }

    #[test]
    fn the_volume_is_set_once_and_the_class_may_come_later() {
        check_update(&plain(), |claim| claim["spec"]["volumeName"] = json!("v"), &[]);
        check_update(&plain(), |claim| claim["spec"]["storageClassName"] = json!("fast"), &[]);
        let (_, errors) =
            updated(Part::Main, &plain(), |claim| claim["spec"]["accessModes"] = json!(["ReadWriteMany"]));
        assert_eq!(errors.len(), 1);
        assert!(errors[0].starts_with("spec: Forbidden: spec is immutable after creation except resources.requests"));
        assert!(errors[0].contains("-  \"ReadWriteOnce\"\n+  \"ReadWriteMany\"\n"), "{}", errors[0]);
    }

    #[test]
    fn a_row_shows_what_the_claim_got() {
        assert_eq!(
            row(
                "{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: c, namespace: n, creationTimestamp: '2026-01-01T00:50:00Z'}, spec: {volumeName: v, storageClassName: fast, volumeMode: Block}, status: {phase: Bound, capacity: {storage: 2Gi}, accessModes: [ReadWriteMany, ReadWriteOnce]}}"
            ),
            "c | Bound | v | 2Gi | RWO,RWX | fast | <unset> | 10m | Block"
        );
    }
}
