//! CSIDriver: what the cluster must know of a CSI driver.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::storage::v1::CSIDriver;
use reeve_api::names;
use serde_json::{Value, json};

use super::GROUP;
use crate::errors::Errors;
use crate::field::FieldError;
use crate::json::{flag, get, has, int, list, object_mut, remove, set, set_absent, text};
use crate::kind::{Column, Kind, Names, Part};
use crate::kinds::wiring;
use crate::meta::{self, MetaRules};
use crate::path::Path;
use crate::{age, table};

const NAMES: Names = Names {
    group: GROUP,
    version: "v1",
    kind: "CSIDriver",
    plural: "csidrivers",
    singular: "csidriver",
    short: &[],
    categories: &[],
    namespaced: false,
};

const META: MetaRules = MetaRules { namespaced: false, name: names::dns1123_subdomain };

const POLICIES: &[&str] = &["File", "None", "ReadWriteOnceWithFSType"];
const MODES: &[&str] = &["Persistent", "Ephemeral"];

/// Shortest and longest life of a token, in seconds.
const TOKEN_LIFE: (i64, i64) = (600, 1 << 32);
/// Shortest time between two looks at how many volumes fit, in seconds.
const MIN_UPDATE_PERIOD: i64 = 10;

const TOKENS_IN_SECRETS: &str = "spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent possible logging of tokens in volume attributes";

const COLUMNS: &[Column] = &[
    table::NAME,
    table::any(
        "AttachRequired",
        "boolean",
        "",
        "attachRequired indicates this CSI volume driver requires an attach operation (because it implements the CSI ControllerPublishVolume() method), and that the Kubernetes attach detach controller should call the attach volume interface which checks the volumeattachment status and waits until the volume is attached before proceeding to mounting. The CSI external-attacher coordinates with CSI volume driver and updates the volumeattachment status when the attach operation is complete. If the value is specified to false, the attach operation will be skipped. Otherwise the attach operation will be called.\n\nThis field is immutable.",
        0,
    ),
    table::any(
        "PodInfoOnMount",
        "boolean",
        "",
        "podInfoOnMount indicates this CSI volume driver requires additional pod information (like podName, podUID, etc.) during mount operations, if set to true. If set to false, pod information will not be passed on mount. Default is false.\n\nThe CSI driver specifies podInfoOnMount as part of driver deployment. If true, Kubelet will pass pod information as VolumeContext in the CSI NodePublishVolume() calls. The CSI driver is responsible for parsing and validating the information passed in as VolumeContext.\n\nThe following VolumeContext will be passed if podInfoOnMount is set to true. This list might grow, but the prefix will be used. \"csi.storage.k8s.io/pod.name\": pod.Name \"csi.storage.k8s.io/pod.namespace\": pod.Namespace \"csi.storage.k8s.io/pod.uid\": string(pod.UID) \"csi.storage.k8s.io/ephemeral\": \"true\" if the volume is an ephemeral inline volume\n                                defined by a CSIVolumeSource, otherwise \"false\"\n\n\"csi.storage.k8s.io/ephemeral\" is a new feature in Kubernetes 1.16. It is only required for drivers which support both the \"Persistent\" and \"Ephemeral\" VolumeLifecycleMode. Other drivers can leave pod info disabled and/or ignore this field. As Kubernetes 1.15 doesn't support this field, drivers can only support one mode when deployed on such a cluster and the deployment determines which mode that is, for example via a command line parameter of the driver.\n\nThis field was immutable in Kubernetes < 1.29 and now is mutable.",
        0,
    ),
    table::any(
        "StorageCapacity",
        "boolean",
        "",
        "storageCapacity indicates that the CSI volume driver wants pod scheduling to consider the storage capacity that the driver deployment will report by creating CSIStorageCapacity objects with capacity information, if set to true.\n\nThe check can be enabled immediately when deploying a driver. In that case, provisioning new volumes with late binding will pause until the driver deployment has published some suitable CSIStorageCapacity object.\n\nAlternatively, the driver can be deployed with the field unset or false and it can be flipped later when storage capacity information has been published.\n\nThis field was immutable in Kubernetes <= 1.22 and now is mutable.",
        0,
    ),
    table::column(
        "TokenRequests",
        "tokenRequests indicates the CSI driver needs pods' service account tokens it is mounting volume for to do necessary authentication. Kubelet will pass the tokens in VolumeContext in the CSI NodePublishVolume calls. The CSI driver should parse and validate the following VolumeContext: \"csi.storage.k8s.io/serviceAccount.tokens\": {\n  \"<audience>\": {\n    \"token\": <token>,\n    \"expirationTimestamp\": <expiration timestamp in RFC3339>,\n  },\n  ...\n}\n\nNote: Audience in each TokenRequest should be different and at most one token is empty string. To receive a new token after expiry, RequiresRepublish can be used to trigger NodePublishVolume periodically.",
    ),
    table::any(
        "RequiresRepublish",
        "boolean",
        "",
        "requiresRepublish indicates the CSI driver wants `NodePublishVolume` being periodically called to reflect any possible change in the mounted volume. This field defaults to false.\n\nNote: After a successful initial NodePublishVolume call, subsequent calls to NodePublishVolume should only update the contents of the volume. New mount points will not be seen by a running container.",
        0,
    ),
    table::column(
        "Modes",
        "volumeLifecycleModes defines what kind of volumes this CSI volume driver supports. The default if the list is empty is \"Persistent\", which is the usage defined by the CSI specification and implemented in Kubernetes via the usual PV/PVC mechanism.\n\nThe other mode is \"Ephemeral\". In this mode, volumes are defined inline inside the pod spec with CSIVolumeSource and their lifecycle is tied to the lifecycle of that pod. A driver has to be aware of this because it is only going to get a NodePublishVolume call for such a volume.\n\nFor more information about implementing this mode, see https://kubernetes-csi.github.io/docs/ephemeral-local-volumes.html A driver can support one or more of these modes and more modes may be added in the future.\n\nThis field is beta. This field is immutable.",
    ),
    table::AGE,
];

/// The kind.
pub(super) struct CsiDrivers;

impl Kind for CsiDrivers {
    wiring!(CSIDriver, NAMES, COLUMNS);

    fn default(&self, object: &mut Value) {
        self.shape().fill(object);
        let spec = object_mut(object, "spec");
        for (field, value) in [
            ("attachRequired", true),
            ("podInfoOnMount", false),
            ("storageCapacity", false),
            ("requiresRepublish", false),
            ("seLinuxMount", false),
        ] {
            set_absent(spec, field, value);
        }
        set_absent(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
        if list(spec, "volumeLifecycleModes").is_empty() {
            set(spec, "volumeLifecycleModes", json!(["Persistent"]));
        }
    }

    /// Scaling by volume limits is off in Kubernetes 1.36: its field is dropped.
    fn prepare_create(&self, object: &mut Value) {
        remove(object_mut(object, "spec"), "preventPodSchedulingIfMissing");
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        META.create(object, &mut errors);
        check(get(object, "spec"), &mut errors);
        errors.into_vec()
    }

    fn prepare_update(&self, _part: Part, object: &mut Value, old: &Value) {
        self.prepare_create(object);
        meta::next_generation(object, old);
    }

    fn validate_update(&self, _part: Part, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        META.update(object, old, &mut errors);
        let (spec, was, path) = (get(object, "spec"), get(old, "spec"), Path::of("spec"));
        check(spec, &mut errors);
        for (field, shown) in [("attachRequired", "attachedRequired"), ("volumeLifecycleModes", "volumeLifecycleModes")]
        {
            errors.immutable(&path.child(shown), get(spec, field), get(was, field));
        }
        errors.into_vec()
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let spec = get(object, "spec");
        let tokens = |spec| list(spec, "tokenRequests");
        let changed = old.is_none_or(|old| tokens(get(old, "spec")) != tokens(spec));
        if changed && !tokens(spec).is_empty() && !has(spec, "serviceAccountTokenInSecrets") {
            return vec![TOKENS_IN_SECRETS.to_owned()];
        }
        Vec::new()
    }

    fn unconditional_update(&self) -> bool {
        false
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let spec = get(object, "spec");
        let texts: Vec<_> = list(spec, "volumeLifecycleModes").iter().filter_map(Value::as_str).collect();
        let audiences: Vec<_> = list(spec, "tokenRequests").iter().map(|one| text(one, "audience")).collect();
        let audiences = if has(spec, "tokenRequests") { audiences.join(",") } else { "<unset>".to_owned() };
        let required = get(spec, "attachRequired").as_bool().unwrap_or(true);
        vec![
            table::name(object),
            required.into(),
            flag(spec, "podInfoOnMount").into(),
            flag(spec, "storageCapacity").into(),
            audiences.into(),
            flag(spec, "requiresRepublish").into(),
            table::or_none(&texts.join(",")),
            age::of(object, now).into(),
        ]
    }
}

fn check(spec: &Value, errors: &mut Errors) {
    let path = Path::of("spec");
    let policy = text(spec, "fsGroupPolicy");
    if !POLICIES.contains(&policy) {
        errors.unsupported(&path.child("fsGroupPolicy"), policy, &["File", "None", "ReadWriteOnceWithFSType"]);
    }
    tokens(spec, &path.child("tokenRequests"), errors);
    for mode in list(spec, "volumeLifecycleModes").iter().filter_map(Value::as_str) {
        if !MODES.contains(&mode) {
            errors.unsupported(&path.child("volumeLifecycleModes"), mode, MODES);
        }
    }
    if let Some(period) = int(spec, "nodeAllocatableUpdatePeriodSeconds").filter(|period| *period < MIN_UPDATE_PERIOD) {
        let path = path.child("nodeAllocatableUpdatePeriodSeconds");
        errors.invalid(&path, period, format!("must be greater than or equal to {MIN_UPDATE_PERIOD} seconds"));
    }
    if has(spec, "serviceAccountTokenInSecrets") && list(spec, "tokenRequests").is_empty() {
        let (path, value) = (path.child("serviceAccountTokenInSecrets"), get(spec, "serviceAccountTokenInSecrets"));
        errors.invalid(&path, value.clone(), "serviceAccountTokenInSecrets is set but no tokenRequests are specified");
    }
}

fn tokens(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (index, request) in list(spec, "tokenRequests").iter().enumerate() {
        let (path, audience) = (path.index(index), text(request, "audience"));
        if !seen.insert(audience) {
            errors.duplicate(&path.child("audience"), audience);
            continue;
        }
        let path = path.child("expirationSeconds");
        match int(request, "expirationSeconds") {
            Some(life) if life < TOKEN_LIFE.0 => {
                errors.invalid(&path, life, "may not specify a duration less than 10 minutes");
            }
            Some(life) if life > TOKEN_LIFE.1 => {
                errors.invalid(&path, life, "may not specify a duration larger than 2^32 seconds");
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::kind::Part;
    use crate::testing::*;
    use serde_json::json;

    const PLAIN: &str = "{apiVersion: storage.k8s.io/v1, kind: CSIDriver, metadata: {name: d.example.com}}";

    #[test]
    fn a_bare_driver_gets_kubernetes_defaults() {
        check_created(
            PLAIN,
            "{apiVersion: storage.k8s.io/v1, kind: CSIDriver, metadata: {name: d.example.com}, spec: {attachRequired: true, podInfoOnMount: false, storageCapacity: false, requiresRepublish: false, seLinuxMount: false, fsGroupPolicy: ReadWriteOnceWithFSType, volumeLifecycleModes: [Persistent]}}",
        );
        check_valid(PLAIN);
        assert_eq!(row(PLAIN), "d.example.com | true | false | false | <unset> | false | <none> | <unknown>");
    }

    #[test]
    fn settings_are_checked() {
        check_invalid(
            &PLAIN.replace(
                "}}",
                "}, spec: {fsGroupPolicy: X, volumeLifecycleModes: [Y], tokenRequests: [{audience: a, expirationSeconds: 1}, {audience: a}], nodeAllocatableUpdatePeriodSeconds: 9}}",
            ),
            &[
                "spec.fsGroupPolicy: Unsupported value: \"X\": supported values: \"File\", \"None\", \"ReadWriteOnceWithFSType\"",
                "spec.tokenRequests[0].expirationSeconds: Invalid value: 1: may not specify a duration less than 10 minutes",
                "spec.tokenRequests[1].audience: Duplicate value: \"a\"",
                "spec.volumeLifecycleModes: Unsupported value: \"Y\": supported values: \"Persistent\", \"Ephemeral\"",
                "spec.nodeAllocatableUpdatePeriodSeconds: Invalid value: 9: must be greater than or equal to 10 seconds",
            ],
        );
        check_invalid(
            &PLAIN.replace("}}", "}, spec: {serviceAccountTokenInSecrets: true}}"),
            &[
                "spec.serviceAccountTokenInSecrets: Invalid value: true: serviceAccountTokenInSecrets is set but no tokenRequests are specified",
            ],
        );
        check_warned(&PLAIN.replace("}}", "}, spec: {tokenRequests: [{}]}}"), &[super::TOKENS_IN_SECRETS]);
    }

    #[test]
    fn attaching_and_modes_stay_and_changes_are_counted() {
        check_update(
            PLAIN,
            |new| {
                new["spec"]["attachRequired"] = json!(false);
                new["spec"]["volumeLifecycleModes"] = json!(["Ephemeral"]);
            },
            &[
                "spec.attachedRequired: Invalid value: false: field is immutable",
                "spec.volumeLifecycleModes: Invalid value: [\"Ephemeral\"]: field is immutable",
            ],
        );
        let (new, errors) = updated(Part::Main, PLAIN, |new| new["spec"]["podInfoOnMount"] = json!(true));
        assert_eq!((&new["metadata"]["generation"], errors.len()), (&json!(1), 0));
    }
}
