//! The paths of a kind: collections, objects, subresources.

use serde_json::{Map, Value, json};

use super::operations::{self, Action, Subject, operation};
use crate::kind::{Kind, Part};

const SCALE: (&str, &str) = ("Scale", "io.k8s.api.autoscaling.v1.Scale");
const BINDING: (&str, &str) = ("Binding", "io.k8s.api.core.v1.Binding");
const TOKEN: (&str, &str) = ("TokenRequest", "io.k8s.api.authentication.v1.TokenRequest");

/// All paths of a kind whose schema is `own`.
pub(super) fn of(kind: &dyn Kind, own: &str) -> Map<String, Value> {
    let mut paths = Paths::new(kind, own);
    let names = kind.names();
    paths.collection();
    paths.object();
    if kind.parts().contains(&Part::Status) {
        paths.subresource("status", &[Action::Get, Action::Patch, Action::Put], None);
    }
    if kind.scale().is_some() {
        paths.subresource("scale", &[Action::Get, Action::Patch, Action::Put], Some(("autoscaling", SCALE)));
    }
    match (names.group, names.kind) {
        ("", "Pod") => {
            paths.subresource("attach", &[Action::Connect], None);
            paths.subresource("binding", &[Action::Post], Some(("", BINDING)));
            paths.subresource("exec", &[Action::Connect], None);
            paths.subresource("log", &[Action::Log], None);
        }
        ("", "ServiceAccount") => {
            paths.subresource("token", &[Action::Post], Some(("authentication.k8s.io", TOKEN)));
        }
        ("", "Namespace") => paths.subresource("finalize", &[Action::Put], None),
        _ => {}
    }
    paths.all
}

struct Paths<'k> {
    kind: &'k dyn Kind,
    own: &'k str,
    tag: String,
    root: String,
    all: Map<String, Value>,
}

impl<'k> Paths<'k> {
    fn new(kind: &'k dyn Kind, own: &'k str) -> Self {
        let names = kind.names();
        let (root, group) = match names.group {
            "" => (format!("/api/{}", names.version), "core".to_owned()),
            group => (format!("/apis/{group}/{}", names.version), operations::word(group)),
        };
        Self { kind, own, tag: format!("{group}_{}", names.version), root, all: Map::new() }
    }

    fn scope(&self) -> &'static str {
        if self.kind.names().namespaced { "Namespaced" } else { "" }
    }

    /// The path of the collection that objects are created in.
    fn collection_path(&self) -> String {
        let names = self.kind.names();
        let namespace = if names.namespaced { "/namespaces/{namespace}" } else { "" };
        format!("{}{namespace}/{}", self.root, names.plural)
    }

    fn collection(&mut self) {
        let names = self.kind.names();
        let what = format!("{}{}", self.scope(), names.kind);
        let actions: &[Action] = if names.kind == "Namespace" {
            &[Action::List, Action::Post]
        } else {
            &[Action::List, Action::Post, Action::DeleteCollection]
        };
        self.add(self.collection_path(), actions, &what, None, names.namespaced, false);
        if names.namespaced {
            let what = format!("{}ForAllNamespaces", names.kind);
            self.add(format!("{}/{}", self.root, names.plural), &[Action::List], &what, None, false, false);
        }
    }

    fn object(&mut self) {
        let names = self.kind.names();
        let what = format!("{}{}", self.scope(), names.kind);
        let path = format!("{}/{{name}}", self.collection_path());
        let actions = &[Action::Get, Action::Put, Action::Patch, Action::Delete];
        self.add(path, actions, &what, None, names.namespaced, true);
    }

    /// A subresource; `other` is the group, kind and schema of its body when that is not the kind's own.
    fn subresource(&mut self, name: &str, actions: &[Action], other: Option<(&str, (&str, &str))>) {
        let names = self.kind.names();
        let ending: String = name.chars().take(1).flat_map(char::to_uppercase).chain(name.chars().skip(1)).collect();
        let what = format!("{}{}{ending}", self.scope(), names.kind);
        let path = format!("{}/{{name}}/{name}", self.collection_path());
        self.add(path, actions, &what, other, names.namespaced, true);
    }

    fn add(
        &mut self,
        path: String,
        actions: &[Action],
        what: &str,
        other: Option<(&str, (&str, &str))>,
        namespace: bool,
        name: bool,
    ) {
        let names = self.kind.names();
        let (group, (kind, schema)) = other.unwrap_or((names.group, (names.kind, self.own)));
        let version = if other.is_some() { "v1" } else { names.version };
        let part = path.split_once("{name}/").map_or("", |(_, part)| part);
        let subject = Subject { group, version, kind, schema, what, tag: &self.tag, of: names.kind, part };
        let mut item = Map::new();
        for action in actions {
            item.insert(action.method().to_owned(), operation(*action, &subject));
        }
        let mut parameters = Vec::new();
        if name {
            parameters.push(in_path("name", &format!("name of the {}", names.kind)));
        }
        if namespace {
            parameters.push(in_path("namespace", "object name and auth scope, such as for teams and projects"));
        }
        parameters.push(json!({
            "name": "pretty", "in": "query", "schema": {"type": "string", "uniqueItems": true},
            "description": "If 'true', then the output is pretty printed. Defaults to 'false' unless the user-agent indicates a browser or command-line HTTP tool (curl and wget).",
        }));
        item.insert("parameters".to_owned(), parameters.into());
        self.all.insert(path, item.into());
    }
}

fn in_path(name: &str, description: &str) -> Value {
    json!({
        "name": name, "in": "path", "required": true, "description": description,
        "schema": {"type": "string", "uniqueItems": true},
    })
}
