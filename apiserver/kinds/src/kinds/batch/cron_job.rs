//! CronJob: Jobs made of one template at the times of a schedule.

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::CronJob;
use reeve_api::names;
use serde_json::{Value, json};

use super::{jobs, schedule};
use crate::errors::Errors;
use crate::field::FieldError;
use crate::json::{at, copy_field, get, has, int, list, object_mut, set, set_default, some_mut, text, text_at};
use crate::kind::{Column, Kind, Names, Part};
use crate::kinds::wiring;
use crate::meta::{self, MetaRules};
use crate::path::Path;
use crate::{age, pod, table};

const NAMES: Names = Names {
    group: "batch",
    version: "v1",
    kind: "CronJob",
    plural: "cronjobs",
    singular: "cronjob",
    short: &["cj"],
    categories: &["all"],
    namespaced: true,
};

const META: MetaRules = MetaRules { namespaced: true, name: names::dns1123_subdomain };

const COLUMNS: &[Column] = &[
    table::NAME,
    table::column("Schedule", "The schedule in Cron format, see https://en.wikipedia.org/wiki/Cron."),
    table::column(
        "Timezone",
        "The time zone name for the given schedule, see https://en.wikipedia.org/wiki/List_of_tz_database_time_zones. If not specified, this will default to the time zone of the kube-controller-manager process. The set of valid time zone names and the time zone offset is loaded from the system-wide time zone database by the API server during CronJob validation and the controller manager during execution. If no system-wide time zone database can be found a bundled version of the database is used instead. If the time zone name becomes invalid during the lifetime of a CronJob or due to a change in host configuration, the controller will stop creating new new Jobs and will create a system event with the reason UnknownTimeZone. More information can be found in https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/#time-zones",
    ),
    table::boolean(
        "Suspend",
        "This flag tells the controller to suspend subsequent executions, it does not apply to already started executions.  Defaults to false.",
    ),
    table::number("Active", "A list of pointers to currently running jobs."),
    table::column("Last Schedule", "Information when was the last time the job was successfully scheduled."),
    table::AGE,
    table::wide("Containers", "Names of each container in the template."),
    table::wide("Images", "Images referenced by each container in the template."),
    table::wide(
        "Selector",
        "A label query over pods that should match the pod count. Normally, the system sets this field for you. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors",
    ),
];

/// Longest name: eleven characters are added to it for each Job.
const NAME_MAX: usize = 52;

const POLICIES: &[&str] = &["Allow", "Forbid", "Replace"];

/// The kind.
pub(super) struct CronJobs;

impl Kind for CronJobs {
    wiring!(CronJob, NAMES, COLUMNS);

    fn parts(&self) -> &[Part] {
        &[Part::Status]
    }

    fn default(&self, object: &mut Value) {
        self.shape().fill(object);
        let spec = object_mut(object, "spec");
        set_default(spec, "concurrencyPolicy", "Allow");
        set_default(spec, "suspend", false);
        set_default(spec, "successfulJobsHistoryLimit", 3);
        set_default(spec, "failedJobsHistoryLimit", 1);
        let template = object_mut(spec, "jobTemplate");
        object_mut(template, "metadata");
        jobs::default_job_spec(object_mut(template, "spec"));
        object_mut(object, "status");
    }

    fn prepare_create(&self, object: &mut Value) {
        set(object, "status", json!({}));
        meta::first_generation(object);
        drop_disabled(object);
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        META.create(object, &mut errors);
        rules(object, &Value::Null, &mut errors);
        let name = text_at(object, &["metadata", "name"]);
        if name.len() > NAME_MAX {
            errors.invalid(&Path::of("metadata").child("name"), name, "must be no more than 52 characters");
        }
        errors.into_vec()
    }

    fn prepare_update(&self, part: Part, object: &mut Value, old: &Value) {
        copy_field(object, old, if part == Part::Main { "status" } else { "spec" });
        drop_disabled(object);
        meta::next_generation(object, old);
    }

    fn validate_update(&self, part: Part, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        if part == Part::Main {
            META.update(object, old, &mut errors);
            rules(object, old, &mut errors);
        }
        errors.into_vec()
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let mut warnings = Vec::new();
        if old.is_none() {
            warnings.extend(pod::name_warning(object, "Pod names and hostnames"));
        }
        if old.is_none_or(|old| meta::generation(old) != meta::generation(object)) {
            let path = Path::of("spec");
            let path = path.child("jobTemplate");
            warnings.extend(jobs::spec_warnings(at(object, &["spec", "jobTemplate", "spec"]), &path.child("spec")));
        }
        if old.is_some() && text_at(object, &["spec", "schedule"]).contains("TZ") {
            warnings.push("cannot use TZ or CRON_TZ in spec.spec.schedule, use timeZone instead, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details".to_owned());
        }
        warnings
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let (spec, status) = (get(object, "spec"), get(object, "status"));
        let job = at(spec, &["jobTemplate", "spec"]);
        let last = text(status, "lastScheduleTime");
        let pod_spec = at(job, &["template", "spec"]);
        vec![
            table::name(object),
            text(spec, "schedule").into(),
            get(spec, "timeZone").as_str().unwrap_or("<none>").into(),
            table::truth(get(spec, "suspend")),
            list(status, "active").len().into(),
            if last.is_empty() { "<none>".into() } else { age::since(last, now).into() },
            age::of(object, now).into(),
            table::containers(pod_spec, "name"),
            table::containers(pod_spec, "image"),
            table::selector(get(job, "selector")),
        ]
    }
}

/// Takes from the template what Kubernetes drops while its feature is off.
fn drop_disabled(object: &mut Value) {
    let job = some_mut(object_mut(object, "spec"), "jobTemplate").and_then(|template| some_mut(template, "spec"));
    if let Some(template) = job.and_then(|job| some_mut(job, "template")) {
        pod::drop_disabled_of_template(template);
    }
}

fn rules(object: &Value, old: &Value, errors: &mut Errors) {
    let (spec, was, path) = (get(object, "spec"), get(old, "spec"), Path::of("spec"));
    when(spec, was, &path, errors);
    errors.not_negative(&path.child("startingDeadlineSeconds"), int(spec, "startingDeadlineSeconds"));
    if old.is_null() || get(spec, "timeZone") != get(was, "timeZone") {
        time_zone(get(spec, "timeZone").as_str(), &path.child("timeZone"), errors);
    }
    errors.one_of(&path.child("concurrencyPolicy"), text(spec, "concurrencyPolicy"), POLICIES);
    jobs::template_rules(get(spec, "jobTemplate"), &path.child("jobTemplate"), errors);
    for field in ["successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        errors.not_negative(&path.child(field), int(spec, field));
    }
}

fn when(spec: &Value, was: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (when, path) = (text(spec, "schedule"), path.child("schedule"));
    if when.is_empty() {
        return errors.required(&path, "");
    }
    if let Err(complaint) = schedule::check(when) {
        errors.invalid(&path, when, complaint);
    }
    let was_allowed = text(was, "schedule").contains("TZ");
    if when.contains("TZ") && was_allowed && has(spec, "timeZone") {
        errors.invalid(&path, when, "cannot use both timeZone field and TZ or CRON_TZ in schedule");
    } else if when.contains("TZ") && !was_allowed {
        errors.invalid(&path, when, "cannot use TZ or CRON_TZ in schedule, use timeZone field instead");
    }
}

fn time_zone(zone: Option<&str>, path: &Path<'_>, errors: &mut Errors) {
    let Some(zone) = zone else { return };
    if zone.is_empty() {
        return errors.invalid(path, zone, "timeZone must be nil or non-empty string");
    }
    let is_part = |part: &str| {
        let fits = |letter: char| letter.is_ascii_alphanumeric() || ".-_+".contains(letter);
        (1..=14).contains(&part.len())
            && part.chars().all(fits)
            && !part.starts_with('-')
            && part != "."
            && part != ".."
    };
    if !zone.split('/').all(is_part) {
        return errors.invalid(path, zone, format!("unknown time zone {zone}"));
    }
    if zone.eq_ignore_ascii_case("Local") {
        let detail = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        errors.invalid(path, zone, detail);
    }
    if let Err(complaint) = schedule::time_zone(zone) {
        errors.invalid(path, zone, complaint);
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::*;
    use serde_json::json;

    fn cron(spec: &str) -> String {
        format!(
            "{{apiVersion: batch/v1, kind: CronJob, metadata: {{name: sum, namespace: n}}, spec: {{schedule: '*/5 * * * *', jobTemplate: {{spec: {{template: {{spec: {{restartPolicy: Never, containers: [{{name: c, image: 'sum:1'}}]}}}}}}}}{spec}}}}}"
        )
    }

    #[test]
    fn a_new_one_runs_and_remembers_little() {
        let made = created(&cron(""));
        let mut spec = made["spec"].clone();
        assert_eq!(spec["jobTemplate"]["spec"]["template"]["spec"]["dnsPolicy"], "ClusterFirst");
        assert_eq!(spec["jobTemplate"]["spec"]["backoffLimit"], json!(null));
        spec["jobTemplate"].take();
        assert_eq!(
            spec,
            json!({"schedule": "*/5 * * * *", "concurrencyPolicy": "Allow", "suspend": false, "successfulJobsHistoryLimit": 3, "failedJobsHistoryLimit": 1, "jobTemplate": null})
        );
    }

    #[test]
    fn schedule_zone_and_template_are_checked() {
        check_valid(&cron(", timeZone: Europe/Berlin"));
        check_invalid(
            &cron(", timeZone: Middle/Earth, concurrencyPolicy: Maybe, startingDeadlineSeconds: -1")
                .replace("*/5 * * * *", "soon"),
            &[
                "spec.schedule: Invalid value: \"soon\": expected exactly 5 fields, found 1: [soon]",
                "spec.startingDeadlineSeconds: Invalid value: -1: must be greater than or equal to 0",
                "spec.timeZone: Invalid value: \"Middle/Earth\": unknown time zone Middle/Earth",
                "spec.concurrencyPolicy: Unsupported value: \"Maybe\": supported values: \"Allow\", \"Forbid\", \"Replace\"",
            ],
        );
        check_invalid(
            &cron("")
                .replace("*/5 * * * *", "TZ=UTC * * * * *")
                .replace("{spec: {template", "{spec: {manualSelector: true, selector: {matchLabels: {a: b}}, template"),
            &[
                "spec.schedule: Invalid value: \"TZ=UTC * * * * *\": cannot use TZ or CRON_TZ in schedule, use timeZone field instead",
                "spec.jobTemplate.spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"b\"}}: `selector` will be auto-generated",
                "spec.jobTemplate.spec.manualSelector: Unsupported value: true: supported values: \"nil\", \"false\"",
            ],
        );
        check_invalid(
            &cron("").replace("name: sum", &format!("name: {}", "a".repeat(53))),
            &[&format!("metadata.name: Invalid value: \"{}\": must be no more than 52 characters", "a".repeat(53))],
        );
    }

    #[test]
    fn a_row_shows_when_it_runs() {
        let shown = row(
            "{apiVersion: batch/v1, kind: CronJob, metadata: {name: sum, creationTimestamp: '2026-01-01T00:50:00Z'}, spec: {schedule: '@daily', suspend: false, jobTemplate: {spec: {template: {spec: {containers: [{name: c, image: 'sum:1'}]}}}}}, status: {active: [{name: a}], lastScheduleTime: '2026-01-01T00:59:00Z'}}",
        );
        assert_eq!(shown, "sum | @daily | <none> | False | 1 | 60s | 10m | c | sum:1 | <none>");
    }
}
