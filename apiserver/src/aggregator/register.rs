//! Which APIServices there must be for what this server serves, and what that makes of those there are. Pure.
//!
//! Source: the auto-register and CRD registration controllers of Kubernetes.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::priorities::{BUILTIN, CUSTOM, Priority};
use super::table::{Listed, listed_of};
use crate::registry::meta;

/// Says how an APIService is kept.
const LABEL: &str = "kube-aggregator.kubernetes.io/automanaged";

/// How an APIService is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keep {
    /// Brought into form once, at the start.
    OnStart,
    /// Always.
    Always,
}

impl Keep {
    fn word(self) -> &'static str {
        match self {
            Self::OnStart => "onstart",
            Self::Always => "true",
        }
    }

    fn of(object: &Value) -> Option<Self> {
        let word = object["metadata"]["labels"][LABEL].as_str()?;
        [Self::OnStart, Self::Always].into_iter().find(|one| one.word() == word)
    }
}

/// An APIService that there must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    listed: Listed,
    keep: Keep,
}

impl Wanted {
    fn spec(&self) -> Value {
        let Listed { group, version, priority } = &self.listed;
        let mut spec = json!({
            "version": version, "groupPriorityMinimum": priority.group, "versionPriority": priority.version,
        });
        if !group.is_empty() {
            spec["group"] = group.as_str().into();
        }
        spec
    }

    fn object(&self) -> Value {
        let metadata = json!({"name": self.listed.name(), "labels": {LABEL: self.keep.word()}});
        json!({"metadata": metadata, "spec": self.spec()})
    }

    fn is_said_by(&self, spec: &Value) -> bool {
        let bundle = spec["caBundle"].as_str().unwrap_or_default();
        let is_plain = spec["service"].is_null() && bundle.is_empty() && spec["insecureSkipTLSVerify"] != true;
        is_plain && listed_of(spec) == self.listed
    }
}

/// All that there must be, by name: for built-in versions that `serves` knows, and for those of definitions.
pub(super) fn wanted<'d>(
    serves: impl Fn(&str, &str) -> bool,
    definitions: impl Iterator<Item = &'d Value>,
) -> BTreeMap<String, Wanted> {
    let builtin = BUILTIN.iter().filter(|(group, version, ..)| serves(group, version));
    let builtin = builtin.map(|(group, version, of_group, of_version)| {
        let priority = Priority { group: *of_group, version: *of_version };
        let listed = Listed { group: (*group).to_owned(), version: (*version).to_owned(), priority };
        (listed.name(), Wanted { listed, keep: Keep::OnStart })
    });
    let mut all: BTreeMap<String, Wanted> = BTreeMap::new();
    for definition in definitions {
        let spec = &definition["spec"];
        let group = spec["group"].as_str().unwrap_or_default();
        for version in spec["versions"].as_array().into_iter().flatten().filter(|one| one["served"] == true) {
            let version = version["name"].as_str().unwrap_or_default().to_owned();
            let listed = Listed { group: group.to_owned(), version, priority: CUSTOM };
            all.insert(listed.name(), Wanted { listed, keep: Keep::Always });
        }
    }
    all.extend(builtin);
    all
}

/// What was done before.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// The APIServices there were at the start.
    pub(super) at_start: BTreeSet<String>,
    /// Those that were right once.
    pub(super) settled: BTreeSet<String>,
}

/// What is to be done about an APIService.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    /// Make it.
    Create(Value),
    /// Write it so.
    Update(Value),
    /// Remove it, if it is still that one.
    Delete {
        /// Its `metadata.uid`.
        uid: String,
    },
}

/// What is to be done about the APIService `name`, which is `found`; `None` when it is right, or none of ours.
pub(super) fn step(name: &str, wanted: Option<&Wanted>, found: Option<&Value>, memory: &Memory) -> Option<Step> {
    let is_settled = memory.settled.contains(name);
    if wanted.is_some_and(|wanted| wanted.keep == Keep::OnStart) && is_settled {
        return None;
    }
    let Some(found) = found else { return wanted.map(|wanted| Step::Create(wanted.object())) };
    match Keep::of(found) {
        None => return None,
        Some(Keep::OnStart) if is_settled || !memory.at_start.contains(name) => return None,
        Some(_) => {}
    }
    let Some(wanted) = wanted else { return Some(Step::Delete { uid: meta::text(found, "uid").to_owned() }) };
    if wanted.is_said_by(&found["spec"]) {
        return None;
    }
    let mut changed = found.clone();
    changed["spec"] = wanted.spec();
    Some(Step::Update(changed))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CRD: &str = "v1.example.com";

    fn all() -> BTreeMap<String, Wanted> {
        let versions = json!([{"name": "v1", "served": true}, {"name": "v0", "served": false}]);
        let definition = json!({"spec": {"group": "example.com", "versions": versions}});
        wanted(|group, _| matches!(group, "" | "apps"), [definition].iter())
    }

    fn found(name: &str, keep: Option<&str>) -> Value {
        let mut object = all().get(name).map_or_else(|| json!({"metadata": {"name": name}}), Wanted::object);
        object["metadata"]["uid"] = "u".into();
        object["metadata"]["labels"] = keep.map_or(Value::Null, |keep| json!({LABEL: keep}));
        object
    }

    #[test]
    fn what_is_served_is_wanted_in_kubernetes_words() {
        let all = all();
        assert_eq!(all.keys().collect::<Vec<_>>(), ["v1.", "v1.apps", CRD]);
        assert_eq!(
            all["v1."].object(),
            json!({"metadata": {"name": "v1.", "labels": {LABEL: "onstart"}},
                "spec": {"version": "v1", "groupPriorityMinimum": 18000, "versionPriority": 1}})
        );
        assert_eq!(
            all[CRD].object(),
            json!({"metadata": {"name": CRD, "labels": {LABEL: "true"}},
                "spec": {"group": "example.com", "version": "v1", "groupPriorityMinimum": 1000, "versionPriority": 100}})
        );
    }

    #[test]
    fn what_is_missing_is_made_once_for_built_in_groups_and_always_for_definitions() {
        let all = all();
        let mut memory = Memory::default();
        for name in ["v1.apps", CRD] {
            assert!(matches!(step(name, all.get(name), None, &memory), Some(Step::Create(_))), "{name}");
        }
        memory.settled.extend(["v1.apps".to_owned(), CRD.to_owned()]);
        assert_eq!(step("v1.apps", all.get("v1.apps"), None, &memory), None);
        assert!(matches!(step(CRD, all.get(CRD), None, &memory), Some(Step::Create(_))));
    }

    #[test]
    fn what_somebody_has_changed_is_set_right_unless_it_is_his_own() {
        let all = all();
        let mut memory = Memory::default();
        let mut changed = found(CRD, Some("true"));
        changed["spec"]["versionPriority"] = 7.into();
        let Some(Step::Update(right)) = step(CRD, all.get(CRD), Some(&changed), &memory) else { panic!() };
        assert_eq!(right["spec"]["versionPriority"], 100);
        changed["metadata"]["labels"] = Value::Null;
        assert_eq!(step(CRD, all.get(CRD), Some(&changed), &memory), None);
        let mut apps = found("v1.apps", Some("onstart"));
        apps["spec"]["versionPriority"] = 7.into();
        assert_eq!(step("v1.apps", all.get("v1.apps"), Some(&apps), &memory), None, "not there at the start");
        memory.at_start.insert("v1.apps".to_owned());
        assert!(matches!(step("v1.apps", all.get("v1.apps"), Some(&apps), &memory), Some(Step::Update(_))));
        memory.settled.insert("v1.apps".to_owned());
        assert_eq!(step("v1.apps", all.get("v1.apps"), Some(&apps), &memory), None, "once only");
    }

    #[test]
    fn what_nobody_serves_any_more_goes_and_what_others_have_made_stays() {
        let memory = Memory::default();
        let gone = found("v1.gone.example.com", Some("true"));
        assert_eq!(step("v1.gone.example.com", None, Some(&gone), &memory), Some(Step::Delete { uid: "u".into() }));
        let other = found("v1.gone.example.com", None);
        assert_eq!(step("v1.gone.example.com", None, Some(&other), &memory), None);
    }
}
