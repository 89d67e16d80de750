//! Rules for a Job's status: it only goes forward, and an end has what belongs to an end.
//!
//! Most rules are asked only when what they are about changes, so that a status that broke one before can still be
//! brought forward in other respects.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{indexes, is_true};
use crate::errors::Errors;
use crate::json::{flag, get, has, int, list, text};
use crate::path::Path;
use crate::shown;

/// A Job before and after, and what its conditions say.
struct Change<'v> {
    object: &'v Value,
    old: &'v Value,
    status: &'v Value,
    was: &'v Value,
    spec: &'v Value,
}

impl Change<'_> {
    fn differs(&self, field: &str) -> bool {
        get(self.status, field) != get(self.was, field)
    }

    fn count(&self, field: &str) -> i64 {
        int(self.status, field).unwrap_or_default()
    }

    fn now(&self, condition: &str) -> bool {
        is_true(self.object, condition)
    }

    fn before(&self, condition: &str) -> bool {
        is_true(self.old, condition)
    }

    fn turned(&self, condition: &str) -> bool {
        self.now(condition) != self.before(condition)
    }

    fn finished(&self) -> bool {
        self.now("Complete") || self.now("Failed")
    }

    fn turned_finished(&self) -> bool {
        self.finished() != (self.before("Complete") || self.before("Failed"))
    }

    fn indexed(&self) -> bool {
        text(self.spec, "completionMode") == "Indexed"
    }
}

/// Rules for a change of the status.
pub(super) fn rules(object: &Value, old: &Value, errors: &mut Errors) {
    let change =
        Change { object, old, status: get(object, "status"), was: get(old, "status"), spec: get(object, "spec") };
    let path = Path::of("status");
    for field in ["active", "succeeded", "failed", "ready", "terminating"] {
        errors.not_negative(&path.child(field), int(change.status, field));
    }
    uncounted(get(change.status, "uncountedTerminatedPods"), &path.child("uncountedTerminatedPods"), errors);
    let conditions = path.child("conditions");
    both_ends(&change, &conditions, errors);
    times(&change, &path, errors);
    ends_are_announced(&change, &conditions, errors);
    finished(&change, &path, errors);
    index_lists(&change, &path, errors);
    finished_terminating(&change, &path, errors);
    success_criteria(&change, &conditions, errors);
    forward(&change, &path, errors);
}

fn uncounted(pods: &Value, path: &Path<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for field in ["succeeded", "failed"] {
        let path = path.child(field);
        for (index, uid) in list(pods, field).iter().filter_map(Value::as_str).enumerate() {
            let path = path.index(index);
            if uid.is_empty() {
                errors.invalid(&path, uid, "must not be empty");
            } else if !seen.insert(uid) {
                errors.duplicate(&path, uid);
            }
        }
    }
}

fn both_ends(change: &Change<'_>, path: &Path<'_>, errors: &mut Errors) {
    let complete = change.now("Complete");
    if (change.turned("Complete") || change.turned("Failed")) && complete && change.now("Failed") {
        errors.invalid_without_value(path, "cannot set Complete=True and Failed=true conditions");
    }
    if (change.turned("Complete") || change.turned("FailureTarget")) && complete && change.now("FailureTarget") {
        errors.invalid_without_value(path, "cannot set Complete=True and FailureTarget=true conditions");
    }
}

fn times(change: &Change<'_>, path: &Path<'_>, errors: &mut Errors) {
    let (start, end) = (get(change.status, "startTime"), get(change.status, "completionTime"));
    let path = path.child("completionTime");
    let complete = change.now("Complete");
    let asked = change.turned("Complete") || change.differs("completionTime");
    if asked && !end.is_null() && !complete {
        let detail = "cannot set completionTime when there is no Complete=True condition";
        errors.invalid(&path, end.clone(), detail);
    }
    if asked && end.is_null() && complete {
        errors.required(&path, "completionTime is required for Complete jobs");
    }
    // Times have one form, in which the earlier one sorts first.
    let (Some(from), Some(to)) = (start.as_str(), end.as_str()) else { return };
    if (change.differs("startTime") || change.differs("completionTime")) && to < from {
        errors.invalid(&path, to, "must be equal to or after `startTime`");
    }
}

fn ends_are_announced(change: &Change<'_>, path: &Path<'_>, errors: &mut Errors) {
    let asked = change.turned("Failed") || change.differs("failedIndexes");
    if asked && change.now("Failed") && !change.now("FailureTarget") {
        errors.invalid_without_value(path, "cannot set Failed=True condition without the FailureTarget=true condition");
    }
    let asked = change.turned("Complete") || change.turned("SuccessCriteriaMet");
    if asked && change.now("Complete") && !change.now("SuccessCriteriaMet") {
        let detail = "cannot set Complete=True condition without the SuccessCriteriaMet=true condition";
        errors.invalid_without_value(path, detail);
    }
}

fn finished(change: &Change<'_>, path: &Path<'_>, errors: &mut Errors) {
    let (finished, turned) = (change.finished(), change.turned_finished());
    let active = change.count("active");
    if (turned || change.differs("active")) && active > 0 && finished {
        errors.invalid(&path.child("active"), active, "active>0 is invalid for finished job");
    }
    let never_runs = flag(change.spec, "suspend") && int(change.spec, "completions") == Some(0);
    let asked = (turned || change.differs("startTime")) && !never_runs;
    if asked && !has(change.status, "startTime") && finished {
        errors.required(&path.child("startTime"), "startTime is required for finished job");
    }
    let pods = get(change.status, "uncountedTerminatedPods");
    let any = ["failed", "succeeded"].iter().any(|field| !list(pods, field).is_empty());
    if (turned || change.differs("uncountedTerminatedPods")) && finished && any {
        let shown = shown::internal("UncountedTerminatedPods", pods);
        errors.invalid_object(&path.child("uncountedTerminatedPods"), shown, "must be empty for finished job");
    }
}

fn index_lists(change: &Change<'_>, path: &Path<'_>, errors: &mut Errors) {
    let completions = int(change.spec, "completions");
    let per_index = has(change.spec, "backoffLimitPerIndex");
    let (done, failed) = (text(change.status, "completedIndexes"), get(change.status, "failedIndexes").as_str());
    let (done_path, failed_path) = (path.child("completedIndexes"), path.child("failedIndexes"));
    let (done_differs, failed_differs) = (change.differs("completedIndexes"), change.differs("failedIndexes"));
    if let (true, Some(completions)) = (done_differs, completions)
        && let Err(complaint) = indexes::count(done, completions)
    {
        errors.invalid(&done_path, done, format!("error parsing completedIndexes: {complaint}"));
    }
    if let (true, true, Some(completions), Some(failed)) = (failed_differs, per_index, completions, failed)
        && let Err(complaint) = indexes::count(failed, completions)
    {
        errors.invalid(&failed_path, failed, format!("error parsing failedIndexes: {complaint}"));
    }
    if done_differs && !done.is_empty() && !change.indexed() {
        errors.invalid(&done_path, done, "cannot set non-empty completedIndexes when non-indexed completion mode");
    }
    let Some(failed) = failed else { return };
    if failed_differs && !per_index {
        let detail = "cannot set non-null failedIndexes when backoffLimitPerIndex is null";
        errors.invalid(&failed_path, failed, detail);
    }
    if let (true, Some(completions)) = (failed_differs || done_differs, completions)
        && let Some(index) = indexes::overlap(done, failed, completions)
    {
        let detail = format!("failedIndexes and completedIndexes overlap at index: {index}");
        errors.invalid(&failed_path, failed, detail);
    }
}

fn finished_terminating(change: &Change<'_>, path: &Path<'_>, errors: &mut Errors) {
    let (terminating, ready) = (change.count("terminating"), change.count("ready"));
    let asked = change.turned_finished() || change.differs("terminating");
    if asked && terminating > 0 && change.finished() {
        errors.invalid(&path.child("terminating"), terminating, "terminating>0 is invalid for finished job");
    }
    let told = has(change.status, "ready");
    if told && (change.differs("ready") || change.differs("active")) && ready > change.count("active") {
        errors.invalid(&path.child("ready"), ready, "cannot set more ready pods than active");
    }
}

fn success_criteria(change: &Change<'_>, path: &Path<'_>, errors: &mut Errors) {
    let met = change.now("SuccessCriteriaMet");
    if met && change.now("Failed") {
        errors.invalid_without_value(path, "cannot set SuccessCriteriaMet=True and Failed=true conditions");
    }
    if met && change.now("FailureTarget") {
        errors.invalid_without_value(path, "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions");
    }
    if has(change.spec, "successPolicy") && !met && change.now("Complete") {
        let detail = "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True";
        errors.invalid_without_value(path, detail);
    }
}

/// What has happened stays so.
fn forward(change: &Change<'_>, path: &Path<'_>, errors: &mut Errors) {
    let conditions = path.child("conditions");
    for end in ["Failed", "Complete", "FailureTarget"] {
        if change.before(end) && !change.now(end) {
            let detail = format!("cannot disable the terminal {end}=True condition");
            errors.invalid_without_value(&conditions, detail);
        }
    }
    let resizable = change.indexed() && get(change.spec, "completions") == get(change.spec, "parallelism");
    for (field, may_shrink) in [("failed", false), ("succeeded", resizable)] {
        if change.count(field) < int(change.was, field).unwrap_or_default() && !may_shrink {
            errors.invalid(&path.child(field), change.count(field), format!("cannot decrease the {field} counter"));
        }
    }
    let end = get(change.status, "completionTime");
    if !end.is_null() && has(change.was, "completionTime") && change.differs("completionTime") {
        errors.invalid(&path.child("completionTime"), end.clone(), "field is immutable");
    }
    let suspended = |object| {
        let conditions = list(get(object, "status"), "conditions");
        conditions.iter().find(|one| text(one, "type") == "Suspended").map(|one| text(one, "status"))
    };
    let resumes = suspended(change.old) == Some("True") && suspended(change.object) == Some("False");
    let moved = has(change.was, "startTime") && change.differs("startTime");
    if moved && !resumes && !flag(change.spec, "suspend") {
        let start = get(change.status, "startTime").clone();
        errors.invalid(&path.child("startTime"), start, "field is immutable for unsuspended job once set");
    }
    if change.before("SuccessCriteriaMet") && !change.now("SuccessCriteriaMet") {
        errors.invalid_without_value(&conditions, "cannot disable the SuccessCriteriaMet=True condition");
    }
    if change.before("Complete") && !change.before("SuccessCriteriaMet") && change.now("SuccessCriteriaMet") {
        let detail = "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions";
        errors.invalid_without_value(&conditions, detail);
    }
}
