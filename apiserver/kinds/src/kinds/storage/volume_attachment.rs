//! VolumeAttachment: that a volume is to be attached to a node, and whether it is.

use jiff::Timestamp;
use k8s_openapi::api::storage::v1::VolumeAttachment;
use reeve_api::names;
use serde_json::{Value, json};

use super::{GROUP, driver_name};
use crate::errors::Errors;
use crate::field::FieldError;
use crate::json::{at, copy_field, entries, flag, get, has, int, list, set, text, text_at};
use crate::kind::{Column, Kind, Names, Part};
use crate::kinds::core::inline_sources;
use crate::kinds::wiring;
use crate::meta::{self, MetaRules};
use crate::path::Path;
use crate::shown::{self, Go};
use crate::{age, table};

const NAMES: Names = Names {
    group: GROUP,
    version: "v1",
    kind: "VolumeAttachment",
    plural: "volumeattachments",
    singular: "volumeattachment",
    short: &[],
    categories: &[],
    namespaced: false,
};

const META: MetaRules = MetaRules { namespaced: false, name: names::dns1123_subdomain };

/// Most bytes of what the attacher notes.
const MAX_METADATA: usize = 256 * 1024;
/// Most bytes of the message of an error.
const MAX_MESSAGE: usize = 1024;

const ACCESS_MODES: &[&str] = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

/// The spec as complaints show it.
const SPEC: Go = Go::Struct(&[
    ("Attacher", "attacher", Go::Text),
    (
        "Source",
        "source",
        Go::Struct(&[
            ("PersistentVolumeName", "persistentVolumeName", Go::Plain),
            ("InlineVolumeSpec", "inlineVolumeSpec", Go::Plain),
        ]),
    ),
    ("NodeName", "nodeName", Go::Text),
]);

const COLUMNS: &[Column] = &[
    table::NAME,
    table::any(
        "Attacher",
        "string",
        "name",
        "attacher indicates the name of the volume driver that MUST handle this request. This is the name returned by GetPluginName().",
        0,
    ),
    table::column("PV", "persistentVolumeName represents the name of the persistent volume to attach."),
    table::column("Node", "nodeName represents the node that the volume should be attached to."),
    table::any(
        "Attached",
        "boolean",
        "",
        "attached indicates the volume is successfully attached. This field must only be set by the entity completing the attach operation, i.e. the external-attacher.",
        0,
    ),
    table::AGE,
];

/// The kind.
pub(super) struct VolumeAttachments;

impl Kind for VolumeAttachments {
    wiring!(VolumeAttachment, NAMES, COLUMNS);

    fn parts(&self) -> &[Part] {
        &[Part::Status]
    }

    fn default(&self, object: &mut Value) {
        self.shape().fill(object);
    }

    fn prepare_create(&self, object: &mut Value) {
        set(object, "status", json!({"attached": false}));
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        check(object, &mut errors);
        errors.into_vec()
    }

    fn prepare_update(&self, part: Part, object: &mut Value, old: &Value) {
        if part == Part::Status {
            copy_field(object, old, "spec");
            meta::reset_for_status(object, old);
        } else {
            copy_field(object, old, "status");
        }
    }

    fn validate_update(&self, _part: Part, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        check(object, &mut errors);
        let spec = get(object, "spec");
        if spec != get(old, "spec") {
            errors.invalid_object(&Path::of("spec"), shown::go(spec, &SPEC), "field is immutable");
        }
        errors.into_vec()
    }

    fn unconditional_update(&self) -> bool {
        false
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let spec = get(object, "spec");
        vec![
            table::name(object),
            text(spec, "attacher").into(),
            text_at(spec, &["source", "persistentVolumeName"]).into(),
            text(spec, "nodeName").into(),
            flag(get(object, "status"), "attached").into(),
            age::of(object, now).into(),
        ]
    }
}

fn check(object: &Value, errors: &mut Errors) {
    META.create(object, errors);
    let (spec, path) = (get(object, "spec"), Path::of("spec"));
    driver_name(text(spec, "attacher"), &path.child("attacher"), errors);
    source(get(spec, "source"), &path.child("source"), errors);
    let node = text(spec, "nodeName");
    errors.invalid_each(&path.child("nodeName"), node, names::dns1123_subdomain(node));
    status(get(object, "status"), &Path::of("status"), errors);
    if let Some(volume) = at(spec, &["source", "persistentVolumeName"]).as_str() {
        let path = Path::of("spec.source.persistentVolumeName");
        errors.invalid_each(&path, volume, names::dns1123_subdomain(volume));
    }
}

fn source(source: &Value, path: &Path<'_>, errors: &mut Errors) {
    let detail = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    match (get(source, "persistentVolumeName").as_str(), has(source, "inlineVolumeSpec")) {
        (None, false) => errors.required(path, detail),
        (Some(_), true) => errors.forbidden(path, detail),
        (Some(""), false) => {
            errors.required(&path.child("persistentVolumeName"), "must specify non empty persistentVolumeName");
        }
        (Some(_), false) => {}
        (None, true) => inline(get(source, "inlineVolumeSpec"), &path.child("inlineVolumeSpec"), errors),
    }
}

/// A volume that stands in the pod itself: only CSI has such.
fn inline(volume: &Value, path: &Path<'_>, errors: &mut Errors) {
    const DETAIL: &str = "may not be specified in the context of inline volumes";
    for field in ["claimRef", "capacity"].into_iter().filter(|field| has(volume, field)) {
        errors.forbidden(&path.child(field), DETAIL);
    }
    if !has(volume, "csi") {
        errors.required(&path.child("csi"), "has to be specified in the context of inline volumes");
    }
    access_modes(volume, &path.child("accessModes"), errors);
    if !["", "Retain"].contains(&text(volume, "persistentVolumeReclaimPolicy")) {
        let detail = "may only be Retain in the context of inline volumes";
        errors.forbidden(&path.child("persistentVolumeReclaimPolicy"), detail);
    }
    if has(volume, "nodeAffinity") {
        errors.forbidden(&path.child("nodeAffinity"), DETAIL);
    }
    inline_sources(volume, path, errors);
    if !text(volume, "storageClassName").is_empty() {
        errors.forbidden(&path.child("storageClassName"), DETAIL);
    }
    if !["", "Filesystem"].contains(&text(volume, "volumeMode")) {
        let detail = "may not specify volumeMode other than Filesystem in the context of inline volumes";
        errors.forbidden(&path.child("volumeMode"), detail);
    }
}

fn access_modes(volume: &Value, path: &Path<'_>, errors: &mut Errors) {
    let modes: Vec<_> = list(volume, "accessModes").iter().filter_map(Value::as_str).collect();
    if modes.is_empty() {
        errors.required(path, "");
    }
    for mode in modes.iter().filter(|mode| !ACCESS_MODES.contains(mode)) {
        errors.unsupported(path, mode, ACCESS_MODES);
    }
    let single = |mode: &&&str| **mode == "ReadWriteOncePod";
    let others = modes.iter().filter(|mode| ACCESS_MODES.contains(mode) && !single(mode)).count();
    if others > 0 && modes.iter().any(|mode| single(&mode)) {
        errors.forbidden(path, "may not use ReadWriteOncePod with other access modes");
    }
}

fn status(status: &Value, path: &Path<'_>, errors: &mut Errors) {
    let bytes = |(key, value): (&str, &Value)| key.len() + value.as_str().map_or(0, str::len);
    if entries(status, "attachmentMetadata").map(bytes).sum::<usize>() > MAX_METADATA {
        errors.too_long(&path.child("attachmentMetadata"), MAX_METADATA);
    }
    for field in ["attachError", "detachError"] {
        let (error, path) = (get(status, field), path.child(field));
        if text(error, "message").len() > MAX_MESSAGE {
            // The number is Kubernetes' own.
            errors.too_long(&path.child("message"), MAX_METADATA);
        }
        if let Some(code) = int(error, "errorCode").filter(|code| *code < 0) {
            errors.invalid(&path.child("errorCode"), code, "must be between 0 and 2147483647, inclusive");
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::kind::Part;
    use crate::testing::*;
    use serde_json::json;

    const PLAIN: &str = "{apiVersion: storage.k8s.io/v1, kind: VolumeAttachment, metadata: {name: a}, spec: {attacher: d.example.com, nodeName: n1, source: {persistentVolumeName: pv1}}}";

    #[test]
    fn an_attachment_starts_unattached() {
        assert_eq!(created(PLAIN)["status"], json!({"attached": false}));
        check_valid(PLAIN);
        assert_eq!(row(PLAIN), "a | d.example.com | pv1 | n1 | false | <unknown>");
    }

    #[test]
    fn attacher_source_and_node_are_checked() {
        check_invalid(
            &PLAIN.replace("d.example.com", "''").replace("{persistentVolumeName: pv1}", "{}").replace("n1", "N_"),
            &[
                "spec.attacher: Required value",
                "spec.source: Required value: must specify exactly one of inlineVolumeSpec and persistentVolumeName",
                "spec.nodeName: Invalid value: \"N_\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
            ],
        );
        check_invalid(
            &PLAIN.replace("{persistentVolumeName: pv1}", "{inlineVolumeSpec: {capacity: {storage: 1}}}"),
            &[
                "spec.source.inlineVolumeSpec.capacity: Forbidden: may not be specified in the context of inline volumes",
                "spec.source.inlineVolumeSpec.csi: Required value: has to be specified in the context of inline volumes",
                "spec.source.inlineVolumeSpec.accessModes: Required value",
                "spec.source.inlineVolumeSpec: Required value: must specify a volume type",
            ],
        );
    }

    #[test]
    fn the_wish_stays_and_the_status_is_checked() {
        check_update(
            PLAIN,
            |new| new["spec"]["nodeName"] = json!("n2"),
            &[
                "spec: Invalid value: {\"Attacher\":\"d.example.com\",\"Source\":{\"PersistentVolumeName\":\"pv1\",\"InlineVolumeSpec\":null},\"NodeName\":\"n2\"}: field is immutable",
            ],
        );
        let (_, errors) = updated(Part::Status, PLAIN, |new| {
            new["status"]["attachError"] = json!({"message": "x".repeat(1025), "errorCode": -1});
        });
        assert_eq!(
            errors,
            [
                "status.attachError.message: Too long: may not be more than 262144 bytes",
                "status.attachError.errorCode: Invalid value: -1: must be between 0 and 2147483647, inclusive",
            ]
        );
    }
}
