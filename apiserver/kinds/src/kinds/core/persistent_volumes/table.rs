//! What `kubectl get pv` shows.

use jiff::Timestamp;
use reeve_api::quantity::Quantity;
use serde_json::Value;

use crate::json::{at, get, has, list, text, text_at};
use crate::kind::Column;
use crate::{age, claim, table};

pub(super) const COLUMNS: &[Column] = &[
    table::NAME,
    table::column(
        "Capacity",
        "capacity is the description of the persistent volume's resources and capacity. More info: https://kubernetes.io/docs/concepts/storage/persistent-volumes#capacity",
    ),
    table::column(
        "Access Modes",
        "accessModes contains all ways the volume can be mounted. More info: https://kubernetes.io/docs/concepts/storage/persistent-volumes#access-modes",
    ),
    table::column(
        "Reclaim Policy",
        "persistentVolumeReclaimPolicy defines what happens to a persistent volume when released from its claim. Valid options are Retain (default for manually created PersistentVolumes), Delete (default for dynamically provisioned PersistentVolumes), and Recycle (deprecated). Recycle must be supported by the volume plugin underlying this PersistentVolume. More info: https://kubernetes.io/docs/concepts/storage/persistent-volumes#reclaiming",
    ),
    table::column(
        "Status",
        "phase indicates if a volume is available, bound to a claim, or released by a claim. More info: https://kubernetes.io/docs/concepts/storage/persistent-volumes#phase",
    ),
    table::column(
        "Claim",
        "claimRef is part of a bi-directional binding between PersistentVolume and PersistentVolumeClaim. Expected to be non-nil when bound. claim.VolumeName is the authoritative bind between PV and PVC. More info: https://kubernetes.io/docs/concepts/storage/persistent-volumes#binding",
    ),
    table::column("StorageClass", "StorageClass of the pv"),
    table::column("VolumeAttributesClass", "VolumeAttributesClass of the pv"),
    table::column(
        "Reason",
        "reason is a brief CamelCase string that describes any failure and is meant for machine parsing and tidy display in the CLI.",
    ),
    table::AGE,
    table::wide(
        "VolumeMode",
        "volumeMode defines if a volume is intended to be used with a formatted filesystem or to remain in raw block state. Value of Filesystem is implied when not included in spec.",
    ),
];

/// The cells of one volume.
pub(super) fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (get(object, "spec"), get(object, "status"));
    let claimed = match get(spec, "claimRef") {
        Value::Null => String::new(),
        claim => format!("{}/{}", text(claim, "namespace"), text(claim, "name")),
    };
    let is_going = has(get(object, "metadata"), "deletionTimestamp");
    vec![
        table::name(object),
        Quantity::from_value(at(spec, &["capacity", "storage"])).unwrap_or_default().to_string().into(),
        claim::short_modes(list(spec, "accessModes")).into(),
        text(spec, "persistentVolumeReclaimPolicy").into(),
        if is_going { "Terminating" } else { text_at(status, &["phase"]) }.into(),
        claimed.into(),
        claim::storage_class(object).into(),
        table::or_unset(get(spec, "volumeAttributesClassName")),
        text(status, "reason").into(),
        age::of(object, now).into(),
        table::or_unset(get(spec, "volumeMode")),
    ]
}
