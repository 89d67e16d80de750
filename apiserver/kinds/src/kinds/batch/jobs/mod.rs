//! Job: pods that run until enough of them have succeeded.

mod indexes;
mod policies;
mod rules;
mod status;
mod update;

#[cfg(test)]
mod tests;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use reeve_api::names;
use serde_json::{Value, json};

pub(super) use rules::template_rules;

use crate::errors::Errors;
use crate::field::FieldError;
use crate::json::{
    at, copy_field, entries, flag, get, has, int, items_mut, list, object_mut, set, set_absent, set_default, text,
    text_at,
};
use crate::kind::{Column, Kind, Names, Part};
use crate::kinds::apps::workload;
use crate::kinds::wiring;
use crate::meta::{self, MetaRules};
use crate::path::Path;
use crate::{age, pod, table};

const NAMES: Names = Names {
    group: "batch",
    version: "v1",
    kind: "Job",
    plural: "jobs",
    singular: "job",
    short: &[],
    categories: &["all"],
    namespaced: true,
};

const META: MetaRules = MetaRules { namespaced: true, name: names::dns1123_subdomain };

const COLUMNS: &[Column] = &[
    table::NAME,
    table::column("Status", "Status of the job."),
    table::column(
        "Completions",
        "The number of pods which reached phase Succeeded. The value increases monotonically for a given spec. However, it may decrease in reaction to scale down of elastic indexed jobs.",
    ),
    table::column("Duration", "Time required to complete the job."),
    table::AGE,
    table::wide("Containers", "Names of each container in the template."),
    table::wide("Images", "Images referenced by each container in the template."),
    table::wide(
        "Selector",
        "A label query over pods that should match the pod count. Normally, the system sets this field for you. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors",
    ),
];

/// Labels with the Job's name: the old one and the one of today.
const NAME_LABELS: [&str; 2] = ["job-name", "batch.kubernetes.io/job-name"];

/// Labels with the Job's uid.
const UID_LABELS: [&str; 2] = ["controller-uid", "batch.kubernetes.io/controller-uid"];

/// The kind.
pub(super) struct Jobs;

impl Kind for Jobs {
    wiring!(Job, NAMES, COLUMNS);

    fn parts(&self) -> &[Part] {
        &[Part::Status]
    }

    fn default(&self, object: &mut Value) {
        self.shape().fill(object);
        let labels = at(object, &["spec", "template", "metadata", "labels"]).clone();
        let spec = object_mut(object, "spec");
        default_job_spec(spec);
        if !has(spec, "completions") && !has(spec, "parallelism") {
            set(spec, "completions", 1);
        }
        set_default(spec, "parallelism", 1);
        let many = if has(spec, "backoffLimitPerIndex") { i64::from(i32::MAX) } else { 6 };
        set_default(spec, "backoffLimit", many);
        set_absent(spec, "completionMode", "NonIndexed");
        set_default(spec, "suspend", false);
        let replace = if has(spec, "podFailurePolicy") { "Failed" } else { "TerminatingOrFailed" };
        set_absent(spec, "podReplacementPolicy", replace);
        set_default(spec, "manualSelector", false);
        object_mut(object, "status");
        let meta = object_mut(object, "metadata");
        if !labels.is_null() && entries(meta, "labels").count() == 0 {
            set(meta, "labels", labels);
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        if !flag(get(object, "spec"), "manualSelector") {
            generate_selector(object);
        }
        set(object, "status", json!({}));
        meta::first_generation(object);
        workload::drop_disabled(object);
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        rules::whole(object, true, &mut errors);
        errors.into_vec()
    }

    fn prepare_update(&self, part: Part, object: &mut Value, old: &Value) {
        copy_field(object, old, if part == Part::Main { "status" } else { "spec" });
        workload::drop_disabled(object);
        meta::next_generation(object, old);
    }

    fn validate_update(&self, part: Part, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        if part == Part::Main {
            update::rules(object, old, &mut errors);
        } else {
            META.update(object, old, &mut errors);
            status::rules(object, old, &mut errors);
        }
        errors.into_vec()
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        if old.is_some_and(|old| meta::generation(old) == meta::generation(object)) {
            return Vec::new();
        }
        let name = pod::name_warning(object, "Pod names and hostnames").filter(|_| old.is_none());
        name.into_iter().chain(spec_warnings(get(object, "spec"), &Path::of("spec"))).collect()
    }

    fn selectable_field(&self, object: &Value, field: &str) -> Option<String> {
        let succeeded = int(get(object, "status"), "succeeded").unwrap_or_default();
        (field == "status.successful").then(|| succeeded.to_string())
    }

    fn not_selectable(&self, field: &str) -> Option<String> {
        Some(format!("field label {field:?} not supported for Job"))
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let (spec, status) = (get(object, "spec"), get(object, "status"));
        let pod_spec = at(spec, &["template", "spec"]);
        vec![
            table::name(object),
            state(object).into(),
            completions(spec, int(status, "succeeded").unwrap_or_default()).into(),
            age::between(text(status, "startTime"), text(status, "completionTime"), now).into(),
            age::of(object, now).into(),
            table::containers(pod_spec, "name"),
            table::containers(pod_spec, "image"),
            table::selector(get(spec, "selector")),
        ]
    }
}

/// Defaults of a job's spec, wherever it stands: those of its template and its failure policy.
pub(super) fn default_job_spec(spec: &mut Value) {
    pod::default_template(object_mut(spec, "template"));
    if has(spec, "podFailurePolicy") {
        for rule in items_mut(object_mut(spec, "podFailurePolicy"), "rules") {
            for pattern in items_mut(rule, "onPodConditions") {
                set_default(pattern, "status", "True");
            }
        }
    }
}

/// The pods of a Job are told by its uid, unless the user takes care of that. A Job without labels of its own has
/// those of its template, these among them.
fn generate_selector(object: &mut Value) {
    let of = |field: &str| text_at(object, &["metadata", field]).to_owned();
    let (name, uid) = (of("name"), of("uid"));
    let own = at(object, &["metadata", "labels"]).clone();
    let spec = object_mut(object, "spec");
    let labels = object_mut(object_mut(object_mut(spec, "template"), "metadata"), "labels");
    let shared = own.is_null() || own == *labels;
    // A name that is still to be generated comes in a second round.
    for (keys, value) in [(NAME_LABELS, &name), (UID_LABELS, &uid)].into_iter().filter(|(_, value)| !value.is_empty()) {
        for key in keys.into_iter().filter(|key| labels.get(key).is_none()).collect::<Vec<_>>() {
            set(labels, key, value.as_str());
        }
    }
    let labels = labels.clone();
    let selected = object_mut(object_mut(spec, "selector"), "matchLabels");
    if selected.get(UID_LABELS[1]).is_none() {
        set(selected, UID_LABELS[1], uid);
    }
    if shared {
        set(object_mut(object, "metadata"), "labels", labels);
    }
}

/// The warnings about a job's spec at `path`.
pub(super) fn spec_warnings(spec: &Value, path: &Path<'_>) -> Vec<String> {
    let count = |field: &str| int(spec, field).unwrap_or_default();
    let mut warnings = Vec::new();
    if text(spec, "completionMode") == "Indexed" && count("completions") > 100_000 && count("parallelism") > 10_000 {
        warnings.push(format!("{path}: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, Kubernetes might not be able to track completedIndexes when a big number of indexes fail"));
    }
    let template = get(spec, "template");
    warnings.extend(pod::warnings(get(template, "metadata"), get(template, "spec"), &path.child("template")));
    warnings
}

/// Whether the status has a condition and it is true.
fn is_true(object: &Value, condition: &str) -> bool {
    let conditions = list(get(object, "status"), "conditions");
    conditions.iter().any(|one| text(one, "type") == condition && text(one, "status") == "True")
}

fn state(object: &Value) -> &'static str {
    let told = |names: &[&'static str]| names.iter().copied().find(|name| is_true(object, name));
    if let Some(end) = told(&["Complete", "Failed"]) {
        return end;
    }
    if has(get(object, "metadata"), "deletionTimestamp") {
        return "Terminating";
    }
    told(&["Suspended", "FailureTarget", "SuccessCriteriaMet"]).unwrap_or("Running")
}

fn completions(spec: &Value, succeeded: i64) -> String {
    match (int(spec, "completions"), int(spec, "parallelism").unwrap_or_default()) {
        (Some(wanted), _) => format!("{succeeded}/{wanted}"),
        (None, at_once) if at_once > 1 => format!("{succeeded}/1 of {at_once}"),
        (None, _) => format!("{succeeded}/1"),
    }
}
