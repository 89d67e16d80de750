//! Tests of PersistentVolume: objects in, objects, complaints and rows out.

use super::*;
use crate::testing::*;

fn volume(spec: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: PersistentVolume, metadata: {{name: v}}, spec: {{capacity: {{storage: 1Gi}}, accessModes: [ReadWriteOnce]{spec}}}}}"
    )
}

#[test]
fn a_volume_is_kept_and_a_file_system_unless_told_otherwise() {
    check_created(
        &volume(", hostPath: {path: /data}"),
        "{apiVersion: v1, kind: PersistentVolume, metadata: {name: v}, spec: {capacity: {storage: 1Gi}, accessModes: [ReadWriteOnce], hostPath: {path: /data, type: ''}, persistentVolumeReclaimPolicy: Retain, volumeMode: Filesystem}, status: {phase: Pending}}",
    );
}

#[test]
fn a_volume_has_one_sound_source() {
    check_valid(&volume(", csi: {driver: csi.example.org, volumeHandle: h}"));
    check_invalid(&volume(""), &["spec: Required value: must specify a volume type"]);
    check_invalid(
        &volume(", local: {path: a/../b}, nfs: {server: s, path: /p}"),
        &["spec.local: Forbidden: may not specify more than 1 volume type"],
    );
    check_invalid(
        &volume(", local: {path: a/../b}"),
        &[
            "spec.local.path: Invalid value: \"a/../b\": must not contain '..'",
            "spec.nodeAffinity: Required value: Local volume requires node affinity",
        ],
    );
    check_invalid(
        &volume(", csi: {driver: '', controllerExpandSecretRef: {name: A}}, volumeAttributesClassName: ''"),
        &[
            "spec.csi.driver: Required value",
            "spec.csi.volumeHandle: Required value",
            "spec.csi.controllerExpandSecretRef.name: Invalid value: \"A\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
            "spec.csi.controllerExpandSecretRef.namespace: Required value",
            "spec.volumeAttributesClassName: Required value: an empty string is disallowed",
        ],
    );
    check_invalid(
        &volume(", iscsi: {targetPortal: p, iqn: iqn.bad, lun: 300}"),
        &[
            "spec.iscsi.iqn: Invalid value: \"iqn.bad\": must be valid format",
            "spec.iscsi.lun: Invalid value: 300: must be between 0 and 255, inclusive",
        ],
    );
}

#[test]
fn capacity_modes_and_policies_are_checked() {
    check_invalid(
        "{apiVersion: v1, kind: PersistentVolume, metadata: {name: v}, spec: {capacity: {cpu: 1}, hostPath: {path: /}, persistentVolumeReclaimPolicy: Recycle}}",
        &[
            "spec.accessModes: Required value",
            "spec.capacity: Unsupported value: {\"cpu\":\"1\"}: supported values: \"storage\"",
            "spec.persistentVolumeReclaimPolicy: Forbidden: may not be 'recycle' for a hostPath mount of '/'",
        ],
    );
    check_invalid(
        &volume(", hostPath: {path: /d}, nodeAffinity: {}, persistentVolumeReclaimPolicy: Odd, volumeMode: Tape")
            .replace("[ReadWriteOnce]", "[ReadWriteOnce, ReadWriteOncePod]"),
        &[
            "spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes",
            "spec.persistentVolumeReclaimPolicy: Unsupported value: \"Odd\": supported values: \"Delete\", \"Recycle\", \"Retain\"",
            "spec.nodeAffinity.required: Required value: must specify required node constraints",
            "spec.volumeMode: Unsupported value: \"Tape\": supported values: \"Block\", \"Filesystem\"",
        ],
    );
}

#[test]
fn the_source_stays() {
    let plain = volume(", hostPath: {path: /data}");
    check_update(&plain, |volume| volume["spec"]["capacity"]["storage"] = json!("2Gi"), &[]);
    let (_, errors) = updated(Part::Main, &plain, |volume| volume["spec"]["hostPath"]["path"] = json!("/other"));
    assert_eq!(errors.len(), 1);
    assert!(
        errors[0].starts_with(
            "spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation\n@@ -"
        ),
        "{}",
        errors[0]
    );
    assert!(errors[0].contains("-  \"Path\": \"/data\",\n+  \"Path\": \"/other\",\n"), "{}", errors[0]);
    let csi = volume(", csi: {driver: csi.example.org, volumeHandle: h}");
    check_update(
        &csi,
        |volume| volume["spec"]["csi"]["controllerExpandSecretRef"] = json!({"name": "s", "namespace": "n"}),
        &[],
    );
}

#[test]
fn old_annotations_and_policies_are_warned_of() {
    check_warned(
        &volume(", hostPath: {path: /d}, persistentVolumeReclaimPolicy: Recycle")
            .replace("{name: v}", "{name: v, annotations: {volume.beta.kubernetes.io/storage-class: fast}}"),
        &[
            "metadata.annotations[volume.beta.kubernetes.io/storage-class]: deprecated since v1.8; use \"storageClassName\" attribute instead",
            "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.",
        ],
    );
}

#[test]
fn a_row_shows_who_has_it() {
    let shown = row(
        "{apiVersion: v1, kind: PersistentVolume, metadata: {name: v, creationTimestamp: '2026-01-01T00:50:00Z'}, spec: {capacity: {storage: 1Gi}, accessModes: [ReadWriteOnce, ReadOnlyMany], persistentVolumeReclaimPolicy: Retain, claimRef: {namespace: n, name: c}, storageClassName: fast, volumeMode: Filesystem}, status: {phase: Bound}}",
    );
    assert_eq!(shown, "v | 1Gi | RWO,ROX | Retain | Bound | n/c | fast | <unset> |  | 10m | Filesystem");
}
