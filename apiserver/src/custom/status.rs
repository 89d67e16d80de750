//! What the status of a CustomResourceDefinition says: names that are accepted, conditions. Pure.
//!
//! Source: `pkg/controller/{status,establish,apiapproval,finalizer}` of apiextensions-apiserver.

use std::collections::BTreeSet;

use jiff::Timestamp;
use reeve_kinds::Approval;
use serde_json::{Map, Value, json};

/// The finalizer that holds a definition until its objects are gone.
pub(crate) const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

/// Names that are taken in a group.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Taken {
    resources: BTreeSet<String>,
    kinds: BTreeSet<String>,
}

/// One condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Condition {
    kind: &'static str,
    status: bool,
    reason: &'static str,
    message: String,
}

impl Condition {
    pub(super) fn new(kind: &'static str, status: bool, reason: &'static str, message: impl Into<String>) -> Self {
        Self { kind, status, reason, message: message.into() }
    }

    /// A condition about the end of a definition.
    pub(super) fn terminating(status: bool, reason: &'static str, message: impl Into<String>) -> Self {
        Self::new("Terminating", status, reason, message)
    }
}

fn text<'v>(value: &'v Value, field: &str) -> &'v str {
    value[field].as_str().unwrap_or_default()
}

fn texts<'v>(value: &'v Value, field: &str) -> Vec<&'v str> {
    value[field].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

impl Taken {
    /// Adds the names that another definition was granted.
    pub(super) fn add(&mut self, accepted: &Value) {
        let own = ["plural", "singular"].map(|field| text(accepted, field)).into_iter();
        self.resources
            .extend(own.chain(texts(accepted, "shortNames")).filter(|name| !name.is_empty()).map(str::to_owned));
        let kinds = ["kind", "listKind"].map(|field| text(accepted, field)).into_iter();
        self.kinds.extend(kinds.filter(|name| !name.is_empty()).map(str::to_owned));
    }
}

fn in_use(name: &str) -> String {
    format!("{name:?} is already in use")
}

/// The names a definition gets of those it wants, and what is to be said of that.
pub(super) fn accept_names(crd: &Value, taken: &Taken) -> (Value, Condition) {
    let (wanted, accepted) = (&crd["spec"]["names"], &crd["status"]["acceptedNames"]);
    let mut names = accepted.as_object().cloned().unwrap_or_default();
    let mut broken: Option<(&'static str, String)> = None;
    for (field, set, reason) in
        [("plural", &taken.resources, "PluralConflict"), ("singular", &taken.resources, "SingularConflict")]
    {
        accept(field, wanted, accepted, set, &mut names).unwrap_or_else(|why| broken = Some((reason, why)));
    }
    let (old, new) = (texts(accepted, "shortNames"), texts(wanted, "shortNames"));
    let clashes: Vec<_> = new.iter().filter(|name| !old.contains(name) && taken.resources.contains(**name)).collect();
    match clashes.as_slice() {
        [] => take_over("shortNames", wanted, &mut names),
        [one] => broken = Some(("ShortNamesConflict", in_use(one))),
        many => {
            let all: Vec<_> = many.iter().map(|name| in_use(name)).collect();
            broken = Some(("ShortNamesConflict", format!("[{}]", all.join(", "))));
        }
    }
    for (field, reason) in [("kind", "KindConflict"), ("listKind", "ListKindConflict")] {
        accept(field, wanted, accepted, &taken.kinds, &mut names).unwrap_or_else(|why| broken = Some((reason, why)));
    }
    take_over("categories", wanted, &mut names);
    let condition = match broken {
        Some((reason, why)) => Condition::new("NamesAccepted", false, reason, why),
        None => Condition::new("NamesAccepted", true, "NoConflicts", "no conflicts found"),
    };
    (Value::Object(names), condition)
}

fn accept(
    field: &str,
    wanted: &Value,
    accepted: &Value,
    taken: &BTreeSet<String>,
    names: &mut Map<String, Value>,
) -> Result<(), String> {
    let name = text(wanted, field);
    if name != text(accepted, field) && taken.contains(name) {
        return Err(in_use(name));
    }
    take_over(field, wanted, names);
    Ok(())
}

fn take_over(field: &str, wanted: &Value, names: &mut Map<String, Value>) {
    match wanted.get(field) {
        Some(value) => names.insert(field.to_owned(), value.clone()),
        None => names.remove(field),
    };
}

/// Whether a condition is there and true.
pub(super) fn is_true(crd: &Value, kind: &str) -> bool {
    find(crd, kind).is_some_and(|condition| text(condition, "status") == "True")
}

fn find<'v>(crd: &'v Value, kind: &str) -> Option<&'v Value> {
    crd["status"]["conditions"].as_array()?.iter().find(|condition| text(condition, "type") == kind)
}

/// Sets a condition; the time changes with its status only.
pub(super) fn set_condition(crd: &mut Value, condition: &Condition, now: Timestamp) {
    let time = Value::from(now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    let status = if condition.status { "True" } else { "False" };
    let since = find(crd, condition.kind).filter(|old| text(old, "status") == status);
    let since = since.map(|old| old["lastTransitionTime"].clone()).filter(|time| !time.is_null()).unwrap_or(time);
    let new = json!({"type": condition.kind, "status": status, "lastTransitionTime": since,
        "reason": condition.reason, "message": condition.message});
    let conditions = &mut crd["status"]["conditions"];
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    let Some(conditions) = conditions.as_array_mut() else { return };
    match conditions.iter_mut().find(|old| text(old, "type") == condition.kind) {
        Some(old) => *old = new,
        None => conditions.push(new),
    }
}

/// What there is to say of the approval of a definition in a group of the Kubernetes community.
fn approval(crd: &Value) -> Option<Condition> {
    if !reeve_kinds::is_protected_group(text(&crd["spec"], "group")) {
        return None;
    }
    let (status, reason, why) = match reeve_kinds::approval_of(crd) {
        Approval::Invalid(why) => (false, "InvalidAnnotation", why),
        Approval::Missing(why) => (false, "MissingAnnotation", why),
        Approval::Approved(why) => (true, "ApprovedAnnotation", why),
        Approval::Bypassed(why) => (false, "UnapprovedAnnotation", why),
    };
    Some(Condition::new("KubernetesAPIApprovalPolicyConformant", status, reason, why))
}

/// The definition with its names settled and all conditions but `Established` as they should be; whether it may be
/// served.
pub(super) fn settle(crd: &Value, taken: &Taken, now: Timestamp) -> (Value, bool) {
    let mut new = crd.clone();
    let (names, condition) = accept_names(crd, taken);
    let accepted = condition.status;
    let known = find(crd, condition.kind).is_some_and(|old| says(old, &condition));
    if names != crd["status"]["acceptedNames"] || !known {
        new["status"]["acceptedNames"] = names;
        set_condition(&mut new, &condition, now);
    }
    if find(crd, "Established").is_none() && !accepted {
        set_condition(
            &mut new,
            &Condition::new("Established", false, "NotAccepted", "not all names are accepted"),
            now,
        );
    }
    if let Some(condition) = approval(crd)
        && !find(crd, condition.kind).is_some_and(|old| says(old, &condition))
    {
        set_condition(&mut new, &condition, now);
    }
    (new, accepted || is_true(crd, "Established"))
}

fn says(old: &Value, condition: &Condition) -> bool {
    let status = if condition.status { "True" } else { "False" };
    text(old, "status") == status
        && text(old, "reason") == condition.reason
        && text(old, "message") == condition.message
}

/// Marks a definition that is served.
pub(super) fn establish(crd: &mut Value, now: Timestamp) {
    if is_true(crd, "NamesAccepted") && !is_true(crd, "Established") {
        let message = "the initial names have been accepted";
        set_condition(crd, &Condition::new("Established", true, "InitialNamesAccepted", message), now);
    }
}

/// A definition that is to be deleted: marked, and held until its objects are gone.
pub(crate) fn marked(crd: &Value, now: Timestamp) -> Value {
    let mut marked = crd.clone();
    let metadata = &mut marked["metadata"];
    metadata["deletionTimestamp"] = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into();
    let mut finalizers: Vec<Value> = metadata["finalizers"].as_array().cloned().unwrap_or_default();
    if !finalizers.iter().any(|one| one == FINALIZER) {
        finalizers.push(FINALIZER.into());
    }
    metadata["finalizers"] = finalizers.into();
    let message = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon";
    set_condition(&mut marked, &Condition::terminating(true, "InstanceDeletionPending", message), now);
    marked
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-01-01T00:00:00Z";

    fn crd(names: &Value) -> Value {
        json!({"metadata": {"generation": 1}, "spec": {"group": "example.com", "names": names},
            "status": {"conditions": null, "acceptedNames": {"plural": "", "kind": ""}}})
    }

    fn conditions(crd: &Value) -> Vec<String> {
        let all = crd["status"]["conditions"].as_array().unwrap().iter();
        all.map(|one| {
            format!("{}={} {}: {}", text(one, "type"), text(one, "status"), text(one, "reason"), text(one, "message"))
        })
        .collect()
    }

    #[test]
    fn free_names_are_accepted_and_taken_ones_are_told() {
        let wanted = json!({"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList",
            "shortNames": ["w", "x"]});
        let (new, serve) = settle(&crd(&wanted), &Taken::default(), NOW.parse().unwrap());
        assert!(serve);
        assert_eq!(new["status"]["acceptedNames"], wanted);
        assert_eq!(conditions(&new), ["NamesAccepted=True NoConflicts: no conflicts found"]);
        let (again, _) = settle(&new, &Taken::default(), "2026-02-01T00:00:00Z".parse().unwrap());
        assert_eq!(again, new, "nothing to say twice");
        let mut taken = Taken::default();
        taken.add(
            &json!({"plural": "others", "singular": "x", "kind": "Widget", "listKind": "Others", "shortNames": ["w"]}),
        );
        let (new, serve) = settle(&crd(&wanted), &taken, NOW.parse().unwrap());
        assert!(!serve);
        assert_eq!(
            new["status"]["acceptedNames"],
            json!({"plural": "widgets", "singular": "widget", "kind": "", "listKind": "WidgetList"})
        );
        assert_eq!(
            conditions(&new),
            [
                "NamesAccepted=False KindConflict: \"Widget\" is already in use",
                "Established=False NotAccepted: not all names are accepted",
            ]
        );
    }

    #[test]
    fn a_definition_that_goes_is_held_and_says_so() {
        let marked = marked(&crd(&json!({})), NOW.parse().unwrap());
        assert_eq!(marked["metadata"]["finalizers"], json!([FINALIZER]));
        assert_eq!(
            conditions(&marked),
            [
                "Terminating=True InstanceDeletionPending: CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon"
            ]
        );
    }
}
