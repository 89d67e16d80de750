//! APIService: a group and version of the API, and the Service that serves it; without one this server does.
//!
//! Rules and words: `kube-aggregator/pkg/apis/apiregistration`.

use jiff::Timestamp;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use reeve_api::names;
use serde_json::{Value, json};

use crate::errors::Errors;
use crate::field::FieldError;
use crate::json::{at, copy_field, flag, get, int, list, object_mut, set, set_default, some_mut, text};
use crate::kind::{Column, Kind, Names, Part};
use crate::kinds::wiring;
use crate::meta::{self, MetaRules};
use crate::path::Path;
use crate::{age, table};

const NAMES: Names = Names {
    group: "apiregistration.k8s.io",
    version: "v1",
    kind: "APIService",
    plural: "apiservices",
    singular: "apiservice",
    short: &[],
    categories: &["api-extensions"],
    namespaced: false,
};

const META: MetaRules = MetaRules { namespaced: false, name: meta::path_segment };

const COLUMNS: &[Column] = &[
    table::NAME,
    table::column("Service", "The reference to the service that hosts this API endpoint."),
    table::column("Available", "Whether this service is available."),
    table::AGE,
];

const STATUSES: &[&str] = &["True", "False", "Unknown"];
const DEFAULT_PORT: i64 = 443;
const GROUP_PRIORITY_MAX: i64 = 20_000;
const VERSION_PRIORITY_MAX: i64 = 1000;

/// The kind.
pub(super) struct ApiServices;

impl Kind for ApiServices {
    wiring!(APIService, NAMES, COLUMNS);

    fn parts(&self) -> &[Part] {
        &[Part::Status]
    }

    fn default(&self, object: &mut Value) {
        self.shape().fill(object);
        if let Some(service) = some_mut(object_mut(object, "spec"), "service") {
            set_default(service, "port", DEFAULT_PORT);
        }
        object_mut(object, "status");
    }

    /// What this server serves itself is available at once.
    fn prepare_create(&self, object: &mut Value) {
        let is_local = at(object, &["spec", "service"]).is_null();
        let mut local = json!({
            "type": "Available", "status": "True", "reason": "Local",
            "message": "Local APIServices are always available",
        });
        if let Some(since) = at(object, &["metadata", "creationTimestamp"]).as_str() {
            set(&mut local, "lastTransitionTime", since);
        }
        set(object, "status", if is_local { json!({ "conditions": [local] }) } else { json!({}) });
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        META.create(object, &mut errors);
        rules(object, &mut errors);
        errors.into_vec()
    }

    fn prepare_update(&self, part: Part, object: &mut Value, old: &Value) {
        if part != Part::Status {
            return copy_field(object, old, "status");
        }
        copy_field(object, old, "spec");
        let was = get(old, "metadata");
        for field in ["labels", "annotations", "finalizers", "ownerReferences"] {
            copy_field(object_mut(object, "metadata"), was, field);
        }
    }

    fn validate_update(&self, part: Part, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        META.update(object, old, &mut errors);
        if part == Part::Status {
            status_rules(get(object, "status"), &mut errors);
        } else {
            rules(object, &mut errors);
        }
        errors.into_vec()
    }

    fn unconditional_update(&self) -> bool {
        false
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let service = at(object, &["spec", "service"]);
        let shown = match service.is_object() {
            true => format!("{}/{}", text(service, "namespace"), text(service, "name")),
            false => "Local".to_owned(),
        };
        vec![table::name(object), shown.into(), available(object).into(), age::of(object, now).into()]
    }
}

fn available(object: &Value) -> String {
    let conditions = list(get(object, "status"), "conditions");
    let Some(condition) = conditions.iter().find(|condition| text(condition, "type") == "Available") else {
        return "Unknown".to_owned();
    };
    match (text(condition, "status"), text(condition, "reason")) {
        ("True", _) => "True".to_owned(),
        (status, "") => status.to_owned(),
        (status, reason) => format!("{status} ({reason})"),
    }
}

fn rules(object: &Value, errors: &mut Errors) {
    let (spec, path) = (get(object, "spec"), Path::of("spec"));
    let (group, version) = (text(spec, "group"), text(spec, "version"));
    let (name, wanted) = (text(get(object, "metadata"), "name"), format!("{version}.{group}"));
    if name != wanted && !name.is_empty() && meta::path_segment(name).is_empty() {
        let here = Path::of("metadata");
        errors.invalid(&here.child("name"), name, format!("must be `spec.version+\".\"+spec.group`: {wanted:?}"));
    }
    if group.is_empty() && version != "v1" {
        let why = "only v1 may have an empty group and it better be legacy kube";
        errors.required(&path.child("group"), why);
    }
    if !group.is_empty() {
        errors.invalid_each(&path.child("group"), group, names::dns1123_subdomain(group));
    }
    errors.invalid_each(&path.child("version"), version, names::dns1035_label(version));
    for (field, most) in [("groupPriorityMinimum", GROUP_PRIORITY_MAX), ("versionPriority", VERSION_PRIORITY_MAX)] {
        let priority = int(spec, field).unwrap_or_default();
        if priority <= 0 || priority > most {
            errors.invalid(&path.child(field), priority, format!("must be positive and less than {most}"));
        }
    }
    server(spec, &path, errors);
}

fn server(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (service, insecure) = (get(spec, "service"), flag(spec, "insecureSkipTLSVerify"));
    let bundle_len = bundle_len(text(spec, "caBundle"));
    let skip = path.child("insecureSkipTLSVerify");
    if service.is_null() {
        if bundle_len > 0 {
            let why = "local APIServices may not have a caBundle";
            errors.invalid(&path.child("caBundle"), format!("{bundle_len} bytes"), why);
        }
        if insecure {
            errors.invalid(&skip, true, "local APIServices may not have insecureSkipTLSVerify");
        }
        return;
    }
    let here = path.child("service");
    for field in ["namespace", "name"] {
        if text(service, field).is_empty() {
            errors.required(&here.child(field), "");
        }
    }
    let port = int(service, "port").unwrap_or_default();
    let broken = names::port_number(port);
    if !broken.is_empty() {
        errors.invalid(&here.child("port"), port, format!("port is not valid: {}", broken.join(", ")));
    }
    if insecure && bundle_len > 0 {
        errors.invalid(&skip, true, "may not be true if caBundle is present");
    }
}

/// Bytes behind a Base64 text.
fn bundle_len(text: &str) -> usize {
    text.trim_end_matches('=').len() * 3 / 4
}

fn status_rules(status: &Value, errors: &mut Errors) {
    let path = Path::of("status");
    let path = path.child("conditions");
    for (index, condition) in list(status, "conditions").iter().enumerate() {
        let stated = text(condition, "status");
        if !STATUSES.contains(&stated) {
            errors.unsupported(&path.index(index).child("status"), stated, STATUSES);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::*;

    const PLAIN: &str = "{apiVersion: apiregistration.k8s.io/v1, kind: APIService, metadata: {name: v1.a.b},
        spec: {group: a.b, version: v1, groupPriorityMinimum: 100, versionPriority: 10,
        service: {namespace: n, name: s}}}";

    #[test]
    fn what_is_served_elsewhere_is_not_known_to_be_available() {
        check_valid(PLAIN);
        let object = created(PLAIN);
        assert_eq!((&object["spec"]["service"]["port"], &object["status"]), (&443.into(), &serde_json::json!({})));
        assert_eq!(row(PLAIN), "v1.a.b | n/s | Unknown | <unknown>");
    }

    #[test]
    fn what_is_served_here_is_available_at_once() {
        let local = PLAIN.replace(",\n        service: {namespace: n, name: s}", "");
        check_valid(&local);
        assert_eq!(created(&local)["status"]["conditions"][0]["reason"], "Local");
    }

    #[test]
    fn name_priorities_and_trust_make_sense() {
        check_invalid(
            &PLAIN
                .replace("v1.a.b", "x")
                .replace("groupPriorityMinimum: 100", "groupPriorityMinimum: 0")
                .replace("versionPriority: 10", "versionPriority: 1001")
                .replace("spec: {", "spec: {insecureSkipTLSVerify: true, caBundle: YWJj, "),
            &[
                "metadata.name: Invalid value: \"x\": must be `spec.version+\".\"+spec.group`: \"v1.a.b\"",
                "spec.groupPriorityMinimum: Invalid value: 0: must be positive and less than 20000",
                "spec.versionPriority: Invalid value: 1001: must be positive and less than 1000",
                "spec.insecureSkipTLSVerify: Invalid value: true: may not be true if caBundle is present",
            ],
        );
    }
}
