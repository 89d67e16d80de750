//! From what a user types (`po`, `deploy.apps`, `Pod`) to a resource of the server, by its discovery.

use std::collections::BTreeMap;

use futures::StreamExt as _;
use serde_json::Value;

use super::api::{Api, Url, encode};
use super::error::CliError;

/// A resource as discovery describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Resource {
    /// API group; empty for the core group.
    pub group: String,
    /// `v1`
    pub version: String,
    /// `Deployment`
    pub kind: String,
    /// `deployments`
    pub plural: String,
    /// `deployment`
    pub singular: String,
    /// `deploy`
    pub short: Vec<String>,
    /// `all`
    pub categories: Vec<String>,
    /// Whether objects live in a namespace.
    pub namespaced: bool,
    /// `get`, `list`, …
    pub verbs: Vec<String>,
}

impl Resource {
    /// A namespaced (or the `Namespace`) resource that every cluster has, known without asking.
    pub(crate) fn well_known(api_version: &str, kind: &str, plural: &str) -> Self {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        Self {
            group: group.to_owned(),
            version: version.to_owned(),
            kind: kind.to_owned(),
            plural: plural.to_owned(),
            singular: kind.to_ascii_lowercase(),
            short: Vec::new(),
            categories: Vec::new(),
            namespaced: kind != "Namespace",
            verbs: Vec::new(),
        }
    }

    /// `v1`, `apps/v1`
    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `deployments.apps`, as errors and `-o name` call it.
    pub(crate) fn qualified(&self, name: &str) -> String {
        if self.group.is_empty() { name.to_owned() } else { format!("{name}.{}", self.group) }
    }

    /// `deployment.apps/web`
    pub(crate) fn name_of(&self, object: &str) -> String {
        format!("{}/{object}", self.qualified(&self.singular))
    }

    /// Path of the collection, in one namespace or (`None`) in all.
    pub(crate) fn collection(&self, namespace: Option<&str>) -> Url {
        let root = if self.group.is_empty() {
            format!("/api/{}", self.version)
        } else {
            format!("/apis/{}/{}", self.group, self.version)
        };
        match namespace.filter(|_| self.namespaced) {
            Some(namespace) => Url::new(format!("{root}/namespaces/{}/{}", encode(namespace), self.plural)),
            None => Url::new(format!("{root}/{}", self.plural)),
        }
    }

    /// Path of one object.
    pub(crate) fn object(&self, namespace: &str, name: &str) -> Url {
        Url::new(format!("{}/{}", self.collection(Some(namespace)), encode(name)))
    }

    /// Path of a subresource of one object.
    pub(crate) fn subresource(&self, namespace: &str, name: &str, subresource: &str) -> Url {
        Url::new(format!("{}/{subresource}", self.object(namespace, name)))
    }

    /// Whether the server offers the verb.
    pub(crate) fn can(&self, verb: &str) -> bool {
        self.verbs.iter().any(|own| own == verb)
    }
}

/// So many lists of resources are asked for at the same time.
const LISTS_AT_ONCE: usize = 4;

/// Everything the server offers, in the server's order of preference.
#[derive(Debug, Clone)]
pub(crate) struct Mapper {
    resources: Vec<Resource>,
}

impl Mapper {
    /// Asks the server what it offers.
    pub(crate) async fn discover(api: &Api) -> Result<Self, CliError> {
        let mut versions = vec!["v1".to_owned()];
        let groups = api.get(&Url::new("/apis")).await?;
        for group in items(&groups, "groups") {
            let listed = items(group, "versions");
            let preferred = group.pointer("/preferredVersion/groupVersion").and_then(Value::as_str);
            let mut own: Vec<String> = listed.iter().filter_map(|own| text(own, "groupVersion")).collect();
            own.sort_by_key(|version| Some(version.as_str()) != preferred);
            versions.extend(own);
        }
        let lists = versions.iter().map(|version| async move {
            let path = if version.contains('/') { format!("/apis/{version}") } else { format!("/api/{version}") };
            api.get(&Url::new(path)).await
        });
        // A few at once: each may be a connection of its own until the first has shown that they can share one.
        let mut lists = futures::stream::iter(lists).buffered(LISTS_AT_ONCE);
        let mut resources = Vec::new();
        for version in &versions {
            let Some(list) = lists.next().await else { break };
            resources.extend(parse_list(version, &list?));
        }
        drop(lists);
        Ok(Self { resources })
    }

    /// Every resource in the version that its group prefers, or else in the next that has it.
    pub(crate) fn preferred(&self) -> impl Iterator<Item = &Resource> {
        let is_first = |own: &&Resource| {
            let same = |other: &&Resource| other.group == own.group && other.plural == own.plural;
            self.resources.iter().find(same).is_some_and(|first| first.version == own.version)
        };
        self.resources.iter().filter(is_first)
    }

    /// Every resource, subresources left out.
    pub(crate) fn all(&self) -> &[Resource] {
        &self.resources
    }

    /// The resource a user means by a plural, singular or short name, alone or with `.group` or `.version.group`.
    pub(crate) fn find(&self, typed: &str) -> Result<&Resource, CliError> {
        let lower = typed.to_ascii_lowercase();
        let (name, rest) = lower.split_once('.').map_or((lower.as_str(), ""), |(name, rest)| (name, rest));
        let fits = |own: &Resource| {
            rest.is_empty()
                || own.group == rest
                || own.group.starts_with(&format!("{rest}."))
                || (!own.group.is_empty() && format!("{}.{}", own.version, own.group) == rest)
        };
        let named =
            |own: &&Resource| own.plural == name || own.singular == name || own.kind.to_ascii_lowercase() == name;
        let short = |own: &&Resource| own.short.iter().any(|own| own == name);
        let found = self.resources.iter().filter(|own| fits(own));
        found
            .clone()
            .find(named)
            .or_else(|| found.clone().find(short))
            .ok_or_else(|| CliError::plain(format!("the server doesn't have a resource type {typed:?}")))
    }

    /// The resources a user means: one, or all of a category that can be listed.
    pub(crate) fn find_all(&self, typed: &str) -> Result<Vec<&Resource>, CliError> {
        let mut seen = BTreeMap::new();
        for own in self.resources.iter().filter(|own| own.categories.iter().any(|own| own == typed) && own.can("list"))
        {
            seen.entry((own.group.clone(), own.plural.clone())).or_insert(own);
        }
        if seen.is_empty() {
            return self.find(typed).map(|own| vec![own]);
        }
        let mut found: Vec<&Resource> = seen.into_values().collect();
        found.sort_by_key(|own| self.resources.iter().position(|other| other == *own));
        Ok(found)
    }

    /// The resource of a kind, as manifests name it.
    pub(crate) fn of_kind(&self, api_version: &str, kind: &str) -> Option<&Resource> {
        self.resources.iter().find(|own| own.kind == kind && own.api_version() == api_version)
    }
}

fn items<'v>(value: &'v Value, field: &str) -> &'v [Value] {
    value.get(field).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn text(value: &Value, field: &str) -> Option<String> {
    value.get(field).and_then(Value::as_str).map(str::to_owned)
}

fn texts(value: &Value, field: &str) -> Vec<String> {
    items(value, field).iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn parse_list(group_version: &str, list: &Value) -> Vec<Resource> {
    let (group, version) = group_version.split_once('/').unwrap_or(("", group_version));
    items(list, "resources")
        .iter()
        .filter_map(|own| {
            let plural = text(own, "name").filter(|name| !name.contains('/'))?;
            let kind = text(own, "kind")?;
            let singular = text(own, "singularName").filter(|name| !name.is_empty());
            Some(Resource {
                group: group.to_owned(),
                version: version.to_owned(),
                singular: singular.unwrap_or_else(|| kind.to_ascii_lowercase()),
                plural,
                kind,
                short: texts(own, "shortNames"),
                categories: texts(own, "categories"),
                namespaced: own.get("namespaced").and_then(Value::as_bool).unwrap_or(false),
                verbs: texts(own, "verbs"),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn mapper() -> Mapper {
        let core = json!({"resources": [
            {"name": "pods", "singularName": "pod", "kind": "Pod", "namespaced": true, "shortNames": ["po"], "categories": ["all"], "verbs": ["list"]},
            {"name": "pods/log", "kind": "Pod", "namespaced": true, "verbs": ["get"]},
            {"name": "events", "singularName": "event", "kind": "Event", "namespaced": true, "verbs": ["list"]}]});
        let apps = json!({"resources": [
            {"name": "deployments", "singularName": "deployment", "kind": "Deployment", "namespaced": true, "shortNames": ["deploy"], "categories": ["all"], "verbs": ["list"]}]});
        let events = json!({"resources": [{"name": "events", "singularName": "event", "kind": "Event", "namespaced": true, "verbs": ["list"]}]});
        let lists = [("v1", core), ("apps/v1", apps), ("events.k8s.io/v1", events)];
        Mapper { resources: lists.iter().flat_map(|(version, list)| parse_list(version, list)).collect() }
    }

    #[test]
    fn resources_are_found_by_every_name_they_have() {
        let mapper = mapper();
        for typed in ["po", "pod", "pods", "Pod", "PODS"] {
            assert_eq!(mapper.find(typed).expect(typed).plural, "pods");
        }
        for typed in ["deploy.apps", "deployment.v1.apps", "deployments.apps"] {
            assert_eq!(mapper.find(typed).expect(typed).plural, "deployments");
        }
        assert_eq!(mapper.find("events").expect("events").group, "");
        assert_eq!(mapper.find("events.events.k8s.io").expect("events").group, "events.k8s.io");
        let unknown = mapper.find("foo").expect_err("there is none").to_string();
        assert_eq!(unknown, "error: the server doesn't have a resource type \"foo\"");
    }

    #[test]
    fn a_category_is_all_its_resources() {
        let mapper = mapper();
        let all: Vec<&str> = mapper.find_all("all").expect("all").iter().map(|own| own.plural.as_str()).collect();
        assert_eq!(all, ["pods", "deployments"]);
    }

    #[test]
    fn paths_are_the_apis() {
        let mapper = mapper();
        let deployments = mapper.find("deploy").expect("deploy");
        assert_eq!(deployments.object("d", "web").to_string(), "/apis/apps/v1/namespaces/d/deployments/web");
        assert_eq!(deployments.collection(None).to_string(), "/apis/apps/v1/deployments");
    }
}
