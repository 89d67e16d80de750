//! What is served, told to clients: the old documents one by one, and the aggregated one.
//!
//! Made anew when other resources are served, here or by other servers. Source: Kubernetes, "The Kubernetes API", section "Discovery API";
//! the types `APIGroupList`, `APIResourceList` and `apidiscovery.k8s.io/v2` `APIGroupDiscoveryList`.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use bytes::Bytes;
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderMap, IF_NONE_MATCH, VARY};
use reeve_kinds::Names;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256, Sha512};

use super::negotiate::{self, Encoding, Offer};
use super::query::Query;
use super::response::{self, Answer, full};
use super::reviews;
use super::{encode, protobuf};
use crate::aggregator::priorities::{self, Priority, REGISTRATION};
use crate::aggregator::table::{Listed, Table, by_version, in_order};
use crate::aggregator::{Aggregator, Told};
use crate::auth::verbs;
use crate::registry::{Resource, Subresource};
use crate::status::ApiError;

/// What stands behind the media type of aggregated documents.
const AGGREGATED: &str = ";g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// Built-in kinds that Kubernetes stores in another form than the one in which they are served: group and kind, and the
/// group and version they are stored as.
const STORED_AS: &[(&str, &str, &str, &str)] = &[
    ("admissionregistration.k8s.io", "MutatingAdmissionPolicy", "admissionregistration.k8s.io", "v1beta1"),
    ("admissionregistration.k8s.io", "MutatingAdmissionPolicyBinding", "admissionregistration.k8s.io", "v1beta1"),
    ("apiextensions.k8s.io", "CustomResourceDefinition", "apiextensions.k8s.io", "v1beta1"),
    ("autoscaling", "HorizontalPodAutoscaler", "autoscaling", "v2"),
    ("events.k8s.io", "Event", "", "v1"),
];

/// One entry of a resource list: the resource itself or one of its subresources.
struct Entry {
    name: String,
    singular: &'static str,
    namespaced: bool,
    group: String,
    version: String,
    kind: String,
    verbs: Vec<&'static str>,
    short: &'static [&'static str],
    categories: &'static [&'static str],
    /// Says which version is stored; empty where nothing is.
    storage: String,
    /// A custom resource: Kubernetes tells its aggregated document more of these.
    is_custom: bool,
}

/// One group with one version and its resources.
struct GroupVersion {
    group: &'static str,
    version: &'static str,
    priority: Priority,
    resources: Vec<Vec<Entry>>,
}

/// An aggregated document, with its hash. Other forms than JSON are made when somebody asks for them.
struct Document {
    json: Bytes,
    etag: String,
}

impl Document {
    fn new(value: &Value) -> Self {
        let text = format!("{value}\n");
        let hash: String = Sha512::digest(&text).iter().map(|byte| format!("{byte:02X}")).collect();
        Self { json: text.into(), etag: format!("\"{hash}\"") }
    }

    fn answer(&self, headers: &HeaderMap, encoding: Encoding) -> Result<Answer, ApiError> {
        let known = headers.get(IF_NONE_MATCH).and_then(|value| value.to_str().ok());
        let mut answer = if known == Some(self.etag.as_str()) {
            let mut answer = response::answer(StatusCode::NOT_MODIFIED, response::JSON, full(Bytes::new()));
            answer.headers_mut().remove(CONTENT_TYPE);
            answer
        } else {
            let body = match encoding {
                Encoding::Json => self.json.clone(),
                _ => encode::text(self.json.trim_ascii_end(), encoding)?,
            };
            let mut answer = response::answer(StatusCode::OK, response::JSON, full(body));
            response::set(&mut answer, CONTENT_TYPE, &format!("{}{AGGREGATED}", encoding.media_type()));
            answer
        };
        response::set(&mut answer, ETAG, &self.etag);
        response::set(&mut answer, VARY, "Accept");
        response::set(&mut answer, CACHE_CONTROL, "public");
        Ok(answer)
    }
}

/// What APIServices say.
#[derive(Default)]
pub(crate) struct Others {
    /// The order of the list of groups; `None`: there are no APIServices.
    listed: Option<Vec<Listed>>,
    /// What other servers serve, and what they tell of it.
    served: Vec<(Listed, Option<Arc<Told>>)>,
}

impl Others {
    /// As they stand in `table`.
    pub(crate) fn of(aggregator: &Aggregator, table: Option<&Table>) -> Self {
        let served = table.into_iter().flat_map(Table::backends).map(|backend| {
            let (group, version) = (backend.group.clone(), backend.version.clone());
            (Listed { group, version, priority: backend.priority }, aggregator.told(&backend.name))
        });
        Self { listed: table.map(|table| table.listed.clone()), served: served.collect() }
    }
}

/// All documents of discovery.
pub(crate) struct Discovery {
    server_address: String,
    groups: Vec<GroupVersion>,
    /// The list of groups with their versions.
    listed: Vec<(String, Vec<Listed>)>,
    core: Document,
    named: Document,
}

impl Discovery {
    /// For these resources and what others serve. `server_address` (`HOST:PORT`) stands in the `/api` document.
    pub(crate) fn new<'r>(
        resources: impl Iterator<Item = &'r Arc<Resource>>,
        server_address: String,
        others: &Others,
    ) -> Self {
        let mut groups: Vec<GroupVersion> = Vec::new();
        for resource in resources {
            let names = resource.names();
            add(&mut groups, (names.group, names.version), entries(resource));
        }
        let statuses = reeve_kinds::component_status();
        let statuses = computed_entry(statuses.names());
        add(&mut groups, ("", "v1"), vec![bindings_entry(&statuses)]);
        add(&mut groups, ("", "v1"), vec![statuses]);
        for review in reviews::all() {
            add(&mut groups, (review.group, review.version), vec![review_entry(review)]);
        }
        groups.sort_by(|a, b| {
            a.group.cmp(b.group).then_with(|| by_version((a.priority, a.version), (b.priority, b.version)))
        });
        for group in &mut groups {
            group.resources.sort_by(|a, b| a.first().map(|one| &one.name).cmp(&b.first().map(|one| &one.name)));
        }
        let core = Document::new(&aggregated(groups.iter().filter(|one| one.group.is_empty()), &[]));
        let named = Document::new(&aggregated(groups.iter().filter(|one| !one.group.is_empty()), &others.served));
        let listed = listed(&groups, others.listed.as_deref());
        Self { server_address, groups, listed, core, named }
    }

    /// The group versions that are served, in order.
    pub(crate) fn versions(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        self.groups.iter().map(|group| (group.group, group.version))
    }

    /// Those that are served and those of the list of groups.
    pub(crate) fn all_versions(&self) -> impl Iterator<Item = (&str, &str)> {
        let listed = self.listed.iter().flat_map(|(_, versions)| versions);
        let own = self.groups.iter().map(|own| (own.group, own.version));
        own.chain(listed.map(|one| (one.group.as_str(), one.version.as_str())))
    }

    /// Answers `/api`, `/apis` and what lies directly below them; `None` for a group or version that is not served.
    pub(crate) fn answer(
        &self,
        segments: &[String],
        headers: &HeaderMap,
        query: &Query,
    ) -> Result<Option<Answer>, ApiError> {
        let words: Vec<&str> = segments.iter().map(String::as_str).collect();
        if let (["api" | "apis"], Some(encoding)) = (&words[..], negotiate::aggregated(headers)) {
            let document = if words.first() == Some(&"api") { &self.core } else { &self.named };
            return document.answer(headers, encoding).map(Some);
        }
        let value = match words[..] {
            ["api"] => Some(self.core_versions()),
            ["apis"] => Some(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": self.group_list()})),
            ["api", version] => self.resource_list("", version),
            ["apis", group] => self.group(group),
            ["apis", group, version] => self.resource_list(group, version),
            _ => None,
        };
        let Some(value) = value else { return Ok(None) };
        let format = negotiate::format(headers, query, Offer::PLAIN)?;
        Ok(Some(encode::value_as(StatusCode::OK, &value, format.encoding)))
    }

    fn core_versions(&self) -> Value {
        let versions: Vec<_> = self.groups.iter().filter(|own| own.group.is_empty()).map(|own| own.version).collect();
        let addresses = json!([{"clientCIDR": "0.0.0.0/0", "serverAddress": self.server_address}]);
        json!({"kind": "APIVersions", "versions": versions, "serverAddressByClientCIDRs": addresses})
    }

    fn group_list(&self) -> Vec<Value> {
        self.listed.iter().filter_map(|(group, versions)| group_body(group, versions)).collect()
    }

    /// Who is not in the list can still be asked for.
    fn group_body(&self, group: &str) -> Option<Value> {
        if let Some((group, versions)) = self.listed.iter().find(|(own, _)| own == group) {
            return group_body(group, versions);
        }
        let own: Vec<Listed> = self.groups.iter().filter(|own| own.group == group).map(GroupVersion::listed).collect();
        group_body(group, &own)
    }

    fn group(&self, group: &str) -> Option<Value> {
        let mut body = self.group_body(group).filter(|_| !group.is_empty())?;
        body["kind"] = "APIGroup".into();
        body["apiVersion"] = "v1".into();
        Some(body)
    }

    fn resource_list(&self, group: &str, version: &str) -> Option<Value> {
        let own = self.groups.iter().find(|own| own.group == group && own.version == version)?;
        let name = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
        let resources: Vec<Value> = own.resources.iter().flatten().map(Entry::legacy).collect();
        let mut list = json!({"kind": "APIResourceList", "groupVersion": name, "resources": resources});
        // The core group is older than the rule.
        if !group.is_empty() {
            list["apiVersion"] = "v1".into();
        }
        Some(list)
    }
}

impl GroupVersion {
    fn listed(&self) -> Listed {
        Listed { group: self.group.to_owned(), version: self.version.to_owned(), priority: self.priority }
    }
}

fn group_body(group: &str, versions: &[Listed]) -> Option<Value> {
    let version = |own: &Listed| json!({"groupVersion": format!("{group}/{}", own.version), "version": own.version});
    let versions: Vec<Value> = versions.iter().map(version).collect();
    let preferred = versions.first().cloned()?;
    Some(json!({"name": group, "versions": versions, "preferredVersion": preferred}))
}

/// The list of groups: what APIServices say, and what they do not say yet of custom resources. The group of APIServices
/// has none and stands first.
fn listed(groups: &[GroupVersion], said: Option<&[Listed]>) -> Vec<(String, Vec<Listed>)> {
    let own = groups.iter().filter(|own| !own.group.is_empty()).map(GroupVersion::listed);
    let is_first = |one: &Listed| one.group == REGISTRATION.0;
    let (first, own): (Vec<Listed>, Vec<Listed>) = own.partition(is_first);
    let mut all: Vec<Listed> = said.unwrap_or_default().to_vec();
    all.retain(|one| !one.group.is_empty() && !is_first(one));
    for one in own {
        let is_said = all.iter().any(|said| said.group == one.group && said.version == one.version);
        let waits = said.is_none() || priorities::builtin(&one.group, &one.version).is_none();
        if !is_said && waits {
            all.push(one);
        }
    }
    let first = (!first.is_empty()).then(|| (REGISTRATION.0.to_owned(), first));
    first.into_iter().chain(in_order(all)).collect()
}

impl Entry {
    fn legacy(&self) -> Value {
        let mut value = json!({
            "name": self.name, "singularName": self.singular, "namespaced": self.namespaced,
            "kind": self.kind, "verbs": self.verbs,
        });
        if !self.group.is_empty() {
            value["group"] = self.group.as_str().into();
        }
        if !self.version.is_empty() {
            value["version"] = self.version.as_str().into();
        }
        self.add_names(&mut value);
        if !self.storage.is_empty() {
            value["storageVersionHash"] = self.storage.as_str().into();
        }
        value
    }

    fn add_names(&self, value: &mut Value) {
        if !self.short.is_empty() {
            value["shortNames"] = json!(self.short);
        }
        if !self.categories.is_empty() {
            value["categories"] = json!(self.categories);
        }
    }

    /// For built-in kinds Kubernetes leaves open what the entry around it says.
    fn response_kind(&self, of: &GroupVersion) -> Value {
        let (group, version) = if self.is_custom && self.version.is_empty() {
            (of.group, of.version)
        } else {
            (&*self.group, &*self.version)
        };
        json!({"group": group, "version": version, "kind": self.kind})
    }
}

/// What is stored, as Kubernetes tells versions apart: the beginning of a hash.
fn storage_hash(names: &Names) -> String {
    let stored = STORED_AS.iter().find(|(group, kind, ..)| *group == names.group && *kind == names.kind);
    let (group, version) = stored.map_or((names.group, names.version), |(_, _, group, version)| (group, version));
    let hash = Sha256::digest(format!("{group}/{version}/{}", names.kind));
    BASE64.encode(hash.get(..8).unwrap_or_default())
}

fn add(groups: &mut Vec<GroupVersion>, (group, version): (&'static str, &'static str), new: Vec<Entry>) {
    let found = groups.iter_mut().find(|own| own.group == group && own.version == version);
    match found {
        Some(own) => own.resources.push(new),
        None => {
            let priority = priorities::builtin(group, version).unwrap_or(priorities::CUSTOM);
            groups.push(GroupVersion { group, version, priority, resources: vec![new] });
        }
    }
}

fn review_entry(review: &Names) -> Entry {
    Entry {
        name: review.plural.to_owned(),
        singular: review.singular,
        namespaced: review.namespaced,
        group: String::new(),
        version: String::new(),
        kind: review.kind.to_owned(),
        verbs: vec!["create"],
        short: &[],
        categories: &[],
        storage: String::new(),
        is_custom: false,
    }
}

/// OPTIONS and HEAD have no verbs of their own.
const PROXY_VERBS: &[&str] = &["create", "delete", "get", "patch", "update"];

/// A resource whose objects are made when they are asked for.
fn computed_entry(names: &Names) -> Entry {
    Entry {
        name: names.plural.to_owned(),
        singular: names.singular,
        short: names.short,
        verbs: vec!["get", "list"],
        ..part(names, "", names.kind, &[])
    }
}

/// The verbs of a custom resource, in the order in which Kubernetes tells them.
fn custom_verbs(resource: &Resource) -> &'static [&'static str] {
    match resource.kind.refuses_creation() {
        None => &["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"],
        // Its definition is about to go.
        Some(_) => &["delete", "deletecollection", "get", "list", "watch"],
    }
}

/// A resource and, behind it, its subresources.
fn entries(resource: &Resource) -> Vec<Entry> {
    let names = resource.names();
    let is_custom = !protobuf::has(&names.api_version(), names.kind);
    let main = Entry {
        name: names.plural.to_owned(),
        singular: names.singular,
        namespaced: names.namespaced,
        group: String::new(),
        version: String::new(),
        kind: names.kind.to_owned(),
        verbs: if resource.is_custom() { custom_verbs(resource).to_vec() } else { verbs(names).to_vec() },
        short: names.short,
        categories: names.categories,
        storage: storage_hash(names),
        is_custom,
    };
    let mut all = vec![main];
    let mut subresources: Vec<Entry> = resource.subresources().into_iter().map(|sub| stored_part(names, sub)).collect();
    match (names.group, names.plural) {
        ("", "pods") => subresources.extend([
            part(names, "attach", "PodAttachOptions", &["create", "get"]),
            part(names, "exec", "PodExecOptions", &["create", "get"]),
            part(names, "log", "Pod", &["get"]),
            part(names, "portforward", "PodPortForwardOptions", &["create", "get"]),
            part(names, "proxy", "PodProxyOptions", PROXY_VERBS),
        ]),
        ("", "services") => subresources.push(part(names, "proxy", "ServiceProxyOptions", PROXY_VERBS)),
        ("", "nodes") => subresources.push(part(names, "proxy", "NodeProxyOptions", PROXY_VERBS)),
        ("", "serviceaccounts") => subresources.push(Entry {
            group: "authentication.k8s.io".to_owned(),
            version: "v1".to_owned(),
            ..part(names, "token", "TokenRequest", &["create"])
        }),
        _ => {}
    }
    if !is_custom {
        subresources.sort_by(|a, b| a.name.cmp(&b.name));
    }
    subresources.iter_mut().for_each(|part| part.is_custom = is_custom);
    all.extend(subresources);
    all
}

/// `bindings`, which are created and never seen again; `like` is another one that is not stored.
fn bindings_entry(like: &Entry) -> Entry {
    Entry {
        name: "bindings".to_owned(),
        singular: "binding",
        namespaced: true,
        kind: "Binding".to_owned(),
        verbs: vec!["create"],
        short: &[],
        group: like.group.clone(),
        version: like.version.clone(),
        categories: like.categories,
        storage: String::new(),
        is_custom: false,
    }
}

fn stored_part(names: &Names, part_of: Subresource) -> Entry {
    let verbs: &[&str] = match part_of {
        Subresource::None | Subresource::Part(_) | Subresource::Scale => &["get", "patch", "update"],
        Subresource::Binding | Subresource::Eviction => &["create"],
        Subresource::Finalize => &["update"],
    };
    match part_of {
        Subresource::Scale => {
            let (group, version) = ("autoscaling".to_owned(), "v1".to_owned());
            Entry { group, version, ..part(names, "scale", "Scale", verbs) }
        }
        Subresource::Binding => part(names, "binding", "Binding", verbs),
        Subresource::Eviction => {
            let (group, version) = ("policy".to_owned(), "v1".to_owned());
            Entry { group, version, ..part(names, "eviction", "Eviction", verbs) }
        }
        other => part(names, other.name(), names.kind, verbs),
    }
}

fn part(names: &Names, name: &str, kind: &str, verbs: &[&'static str]) -> Entry {
    Entry {
        name: format!("{}/{name}", names.plural),
        singular: "",
        namespaced: names.namespaced,
        group: String::new(),
        version: String::new(),
        kind: kind.to_owned(),
        verbs: verbs.to_vec(),
        short: &[],
        categories: &[],
        storage: String::new(),
        is_custom: false,
    }
}

/// The document of all groups. What another server serves is told as that server tells it.
fn aggregated<'g>(own: impl Iterator<Item = &'g GroupVersion>, others: &[(Listed, Option<Arc<Told>>)]) -> Value {
    let is_others =
        |own: &GroupVersion| others.iter().any(|(one, _)| one.group == own.group && one.version == own.version);
    let mut all: Vec<(Listed, Value)> = Vec::new();
    for own in own.filter(|own| !is_others(own)) {
        let resources: Vec<Value> =
            own.resources.iter().filter_map(|entries| aggregated_resource(own, entries)).collect();
        let version = json!({"version": own.version, "freshness": "Current", "resources": resources});
        all.push((own.listed(), version));
    }
    // Who could not be asked yet is told of once he was.
    for (one, told) in others.iter().filter_map(|(one, told)| Some((one, told.as_ref()?))) {
        let freshness = if told.is_current { "Current" } else { "Stale" };
        let mut version = json!({"version": one.version, "freshness": freshness});
        if !told.resources.is_empty() {
            version["resources"] = json!(told.resources);
        }
        all.push((one.clone(), version));
    }
    let mut groups: BTreeMap<String, Vec<(Listed, Value)>> = BTreeMap::new();
    for (one, version) in all {
        groups.entry(one.group.clone()).or_default().push((one, version));
    }
    let highest = |versions: &[(Listed, Value)]| versions.iter().map(|(one, _)| one.priority.group).max();
    let mut groups: Vec<(String, Vec<(Listed, Value)>)> = groups.into_iter().collect();
    // Stable: among equals by name.
    groups.sort_by_key(|(_, versions)| Reverse(highest(versions)));
    let items = groups.into_iter().map(|(group, mut versions)| {
        versions.sort_by(|(a, _), (b, _)| by_version((a.priority, &a.version), (b.priority, &b.version)));
        let versions: Vec<Value> = versions.into_iter().map(|(_, version)| version).collect();
        let metadata = if group.is_empty() { json!({}) } else { json!({"name": group}) };
        json!({"metadata": metadata, "versions": versions})
    });
    let items: Vec<Value> = items.collect();
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items})
}

fn aggregated_resource(own: &GroupVersion, entries: &[Entry]) -> Option<Value> {
    let (main, parts) = entries.split_first()?;
    let mut value = json!({
        "resource": main.name, "responseKind": main.response_kind(own),
        "scope": if main.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": main.singular, "verbs": main.verbs,
    });
    main.add_names(&mut value);
    if !parts.is_empty() {
        let short = |part: &Entry| part.name.split_once('/').map_or(String::new(), |(_, name)| name.to_owned());
        let part = |part: &Entry| json!({"subresource": short(part), "responseKind": part.response_kind(own), "verbs": part.verbs});
        value["subresources"] = parts.iter().map(part).collect();
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_told_apart_as_kubernetes_does() {
        let hash_of = |kind: &str| {
            let kinds = reeve_kinds::builtin();
            storage_hash(kinds.iter().find(|own| own.names().kind == kind).unwrap().names())
        };
        for (kind, hash) in [
            ("CustomResourceDefinition", "jfWCUB31mvA="),
            ("MutatingAdmissionPolicy", "LYmCf+UMVdg="),
            ("MutatingAdmissionPolicyBinding", "90V5FRZZ3Zg="),
        ] {
            assert_eq!(hash_of(kind), hash, "{kind}");
        }
    }
}
