//! The paths of a kind: collections, objects, subresources, and the watches of old.

use serde_json::{Map, Value, json};

use super::connect::{CONNECTIONS, Connection};
use super::operations::{Action, Subject, capitalized, operation, query, word};
use crate::kind::{Kind, Names, Part};

/// What a subresource is where it is no part of its object: group, kind, schema.
type Other = (&'static str, &'static str, &'static str);

const SCALE: Other = ("autoscaling", "Scale", "io.k8s.api.autoscaling.v1.Scale");
const BINDING: Other = ("", "Binding", "io.k8s.api.core.v1.Binding");
const EVICTION: Other = ("policy", "Eviction", "io.k8s.api.policy.v1.Eviction");
const TOKEN: Other = ("authentication.k8s.io", "TokenRequest", "io.k8s.api.authentication.v1.TokenRequest");

const PARTS: &[Action] = &[Action::Get, Action::Patch, Action::Put];

/// Kinds of which a deletion shows what was deleted. Source: the storages in `pkg/registry`, `ReturnDeletedObject`.
const SHOWN_DELETED: [&str; 16] = [
    "PersistentVolumeClaim",
    "Pod",
    "PodTemplate",
    "ResourceQuota",
    "ServiceAccount",
    "Service",
    "PersistentVolume",
    "DeviceClass",
    "ResourceClaim",
    "ResourceClaimTemplate",
    "ResourceSlice",
    "CSIDriver",
    "CSINode",
    "StorageClass",
    "VolumeAttachment",
    "VolumeAttributesClass",
];

/// All paths of a kind whose schema is `own`.
pub(super) fn of(kind: &dyn Kind, own: &str) -> Map<String, Value> {
    let names = kind.names();
    let mut paths = Paths::new(names, own);
    paths.is_strategic = kind.patch_schema().is_some();
    let many = [Action::ListOrWatch, Action::Post, Action::DeleteCollection];
    paths.collection(if names.kind == "Namespace" { &many[..2] } else { &many });
    paths.object(&[Action::Get, Action::Put, Action::Patch, Action::Delete]);
    paths.watches();
    for part in kind.parts().iter().filter(|part| **part != Part::Main) {
        paths.subresource(part.name(), PARTS, None);
    }
    if kind.scale().is_some() {
        paths.subresource("scale", PARTS, Some(SCALE));
    }
    match (names.group, names.kind) {
        ("", "Pod") => {
            paths.subresource("binding", &[Action::Post], Some(BINDING));
            paths.subresource("eviction", &[Action::Post], Some(EVICTION));
            paths.subresource("log", &[Action::Log], None);
            paths.bindings();
        }
        ("", "ServiceAccount") => paths.subresource("token", &[Action::Post], Some(TOKEN)),
        ("", "Namespace") => paths.subresource("finalize", &[Action::Put], None),
        _ => {}
    }
    if names.group.is_empty() {
        CONNECTIONS.iter().filter(|own| own.of == names.kind).for_each(|own| paths.connection(own));
    }
    paths.all
}

/// The paths of one kind.
pub(super) struct Paths<'k> {
    names: &'k Names,
    own: &'k str,
    tag: String,
    root: String,
    is_strategic: bool,
    pub(super) all: Map<String, Value>,
}

/// A path and what is said of all that is done there.
struct Item<'i> {
    path: String,
    /// The end of operation ids.
    what: String,
    part: &'i str,
    other: Option<Other>,
    /// Of the object in the path; `None`: it is about many.
    named: Option<&'i str>,
    namespaced: bool,
}

impl<'k> Paths<'k> {
    pub(super) fn new(names: &'k Names, own: &'k str) -> Self {
        let (root, group) = match names.group {
            "" => (format!("/api/{}", names.version), "core".to_owned()),
            group => (format!("/apis/{group}/{}", names.version), word(group)),
        };
        let tag = format!("{group}_{}", names.version);
        Self { names, own, tag, root, is_strategic: true, all: Map::new() }
    }

    fn what(&self) -> String {
        format!("{}{}", if self.names.namespaced { "Namespaced" } else { "" }, self.names.kind)
    }

    /// Where objects are, below `root`.
    fn place(&self) -> String {
        let namespace = if self.names.namespaced { "/namespaces/{namespace}" } else { "" };
        format!("{namespace}/{}", self.names.plural)
    }

    fn item(&self, path: String) -> Item<'k> {
        Item { path, what: self.what(), part: "", other: None, named: None, namespaced: self.names.namespaced }
    }

    /// The path that objects are created in; of those in namespaces also the one of all that there are.
    pub(super) fn collection(&mut self, actions: &[Action]) {
        let item = self.item(format!("{}{}", self.root, self.place()));
        self.add(&item, actions);
        let list: Vec<Action> = actions.iter().copied().filter(|action| *action == Action::ListOrWatch).collect();
        if self.names.namespaced && !list.is_empty() {
            let what = format!("{}ForAllNamespaces", self.names.kind);
            let path = format!("{}/{}", self.root, self.names.plural);
            self.add(&Item { what, namespaced: false, ..self.item(path) }, &list);
        }
    }

    pub(super) fn object(&mut self, actions: &[Action]) {
        let item = self.item(format!("{}{}/{{name}}", self.root, self.place()));
        self.add(&Item { named: Some(self.names.kind), ..item }, actions);
    }

    /// The old paths of watches.
    fn watches(&mut self) {
        let below = format!("{}/watch{}", self.root, self.place());
        let many = self.item(below.clone());
        self.add(&Item { what: format!("{}List", self.what()), ..many }, &[Action::WatchList]);
        let one = self.item(format!("{below}/{{name}}"));
        self.add(&Item { named: Some(self.names.kind), ..one }, &[Action::Watch]);
        if self.names.namespaced {
            let what = format!("{}ListForAllNamespaces", self.names.kind);
            let path = format!("{}/watch/{}", self.root, self.names.plural);
            self.add(&Item { what, namespaced: false, ..self.item(path) }, &[Action::WatchList]);
        }
    }

    fn subresource(&mut self, name: &str, actions: &[Action], other: Option<Other>) {
        let item = self.item(format!("{}{}/{{name}}/{name}", self.root, self.place()));
        let named = other.map_or(self.names.kind, |(_, kind, _)| kind);
        let what = format!("{}{}", self.what(), capitalized(name));
        self.add(&Item { what, part: name, other, named: Some(named), ..item }, actions);
    }

    /// `…/bindings`: the pod stands in the body.
    fn bindings(&mut self) {
        let names = Names { kind: "Binding", plural: "bindings", ..self.names.clone() };
        let mut bindings = Paths::new(&names, BINDING.2);
        bindings.collection(&[Action::Post]);
        self.all.extend(bindings.all);
    }

    fn connection(&mut self, connection: &Connection) {
        let path = format!("{}{}/{{name}}/{}", self.root, self.place(), connection.name);
        let actions: Vec<Action> = connection.methods.iter().map(|method| Action::Connect(method)).collect();
        let what = format!("{}{}", self.what(), capitalized(connection.name));
        let options = ("", connection.options, "");
        let item = |path, what| Item {
            what,
            part: connection.name,
            other: Some(options),
            named: Some(connection.options),
            ..self.item(path)
        };
        let (whole, longer) =
            (item(path.clone(), what.clone()), item(format!("{path}/{{path}}"), format!("{what}WithPath")));
        let parameters = |item: &Item<'_>| self.parameters(item).into_iter().filter(|own| own["name"] != "pretty");
        let own = connection.parameters.iter().map(query);
        let short: Vec<Value> = parameters(&whole).chain(own).collect();
        let mut long = short.clone();
        long.insert(short.len() - connection.parameters.len(), in_path("path", "path to the resource"));
        self.add_with(&whole, &actions, short);
        if connection.has_path {
            self.add_with(&longer, &actions, long);
        }
    }

    fn parameters(&self, item: &Item<'_>) -> Vec<Value> {
        let mut parameters = Vec::new();
        if let Some(kind) = item.named {
            parameters.push(in_path("name", &format!("name of the {kind}")));
        }
        if item.namespaced {
            parameters.push(in_path("namespace", "object name and auth scope, such as for teams and projects"));
        }
        parameters.push(query(&(
            "pretty",
            "string",
            "If 'true', then the output is pretty printed. Defaults to 'false' unless the user-agent indicates a browser or command-line HTTP tool (curl and wget).",
        )));
        parameters
    }

    fn add(&mut self, item: &Item<'_>, actions: &[Action]) {
        let parameters = self.parameters(item);
        self.add_with(item, actions, parameters);
    }

    fn add_with(&mut self, item: &Item<'_>, actions: &[Action], mut parameters: Vec<Value>) {
        let names = self.names;
        let (group, kind, schema) = item.other.unwrap_or((names.group, names.kind, ""));
        let subject = Subject {
            group,
            version: if item.other.is_some() { "v1" } else { names.version },
            kind,
            schema: if item.other.is_some() { schema } else { self.own },
            owner: names.kind,
            part: item.part,
            what: &item.what,
            tag: &self.tag,
            is_strategic: self.is_strategic,
            shows_deleted: SHOWN_DELETED.contains(&names.kind),
        };
        let mut operations: Vec<(Action, Value)> =
            actions.iter().map(|action| (*action, operation(*action, &subject))).collect();
        parameters.extend(common(&mut operations));
        parameters.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
        let mut made: Map<String, Value> =
            operations.into_iter().map(|(action, operation)| (action.method().to_owned(), operation)).collect();
        made.insert("parameters".to_owned(), parameters.into());
        self.all.insert(item.path.clone(), made.into());
    }
}

/// Takes the parameters that all operations have out of them. Source: `kube-openapi`, which does so.
fn common(operations: &mut [(Action, Value)]) -> Vec<Value> {
    let of = |operation: &Value| operation["parameters"].as_array().cloned().unwrap_or_default();
    let Some(((_, first), others)) = operations.split_first() else { return Vec::new() };
    let shared = |own: &Value| others.iter().all(|(_, other)| of(other).contains(own));
    let common: Vec<Value> = of(first).into_iter().filter(shared).collect();
    for (_, operation) in operations {
        let left: Vec<Value> = of(operation).into_iter().filter(|own| !common.contains(own)).collect();
        match operation.as_object_mut() {
            Some(fields) if left.is_empty() => drop(fields.remove("parameters")),
            _ => operation["parameters"] = left.into(),
        }
    }
    common
}

fn in_path(name: &str, description: &str) -> Value {
    json!({
        "name": name, "in": "path", "required": true, "description": description,
        "schema": {"type": "string", "uniqueItems": true},
    })
}
