//! One operation of a path: parameters, body, answers.

use serde_json::{Map, Value, json};

use super::schemas::{PATCH, gvk};

const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";

/// Media types of patches that are taken.
const PATCH_TYPES: &[&str] =
    &["application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json"];
const BODY_TYPES: &[&str] = &["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];

/// Query parameters: name, type, what it says.
const LIST: &[(&str, &str, &str)] = &[
    (
        "allowWatchBookmarks",
        "boolean",
        "allowWatchBookmarks requests watch events with type \"BOOKMARK\". Servers that do not implement bookmarks may ignore this flag.",
    ),
    ("continue", "string", "The continue option should be set when retrieving more results from the server."),
    (
        "fieldSelector",
        "string",
        "A selector to restrict the list of returned objects by their fields. Defaults to everything.",
    ),
    (
        "labelSelector",
        "string",
        "A selector to restrict the list of returned objects by their labels. Defaults to everything.",
    ),
    ("limit", "integer", "limit is a maximum number of responses to return for a list call."),
    (
        "resourceVersion",
        "string",
        "resourceVersion sets a constraint on what resource versions a request may be served from.",
    ),
    ("resourceVersionMatch", "string", "resourceVersionMatch determines how resourceVersion is applied to list calls."),
    ("sendInitialEvents", "boolean", "`sendInitialEvents=true` may be set together with `watch=true`."),
    (
        "timeoutSeconds",
        "integer",
        "Timeout for the list/watch call. This limits the duration of the call, regardless of any activity or inactivity.",
    ),
    (
        "watch",
        "boolean",
        "Watch for changes to the described resources and return them as a stream of add, update, and remove notifications. Specify resourceVersion.",
    ),
];
const DRY_RUN: (&str, &str, &str) = (
    "dryRun",
    "string",
    "When present, indicates that modifications should not be persisted. An invalid or unrecognized dryRun directive will result in an error response and no further processing of the request. Valid values are: - All: all dry run stages will be processed",
);
const FORCE: (&str, &str, &str) = (
    "force",
    "boolean",
    "Force is going to \"force\" Apply requests. It means user will re-acquire conflicting fields owned by other people. Force flag must be unset for non-apply patch requests.",
);
const WRITE: &[(&str, &str, &str)] = &[
    DRY_RUN,
    (
        "fieldManager",
        "string",
        "fieldManager is a name associated with the actor or entity that is making these changes.",
    ),
    (
        "fieldValidation",
        "string",
        "fieldValidation instructs the server on how to handle objects in the request (POST/PUT/PATCH) containing unknown or duplicate fields. Valid values are: - Ignore - Warn - Strict",
    ),
];
const DELETE: &[(&str, &str, &str)] = &[
    DRY_RUN,
    (
        "gracePeriodSeconds",
        "integer",
        "The duration in seconds before the object should be deleted. Value must be non-negative integer.",
    ),
    (
        "ignoreStoreReadErrorWithClusterBreakingPotential",
        "boolean",
        "if set to true, it will trigger an unsafe deletion of the resource in case the normal deletion flow fails with a corrupt object error.",
    ),
    (
        "orphanDependents",
        "boolean",
        "Deprecated: please use the PropagationPolicy, this field will be deprecated in 1.7.",
    ),
    ("propagationPolicy", "string", "Whether and how garbage collection will be performed."),
];
const LOG: &[(&str, &str, &str)] = &[
    (
        "container",
        "string",
        "The container for which to stream logs. Defaults to only container if there is one container in the pod.",
    ),
    ("follow", "boolean", "Follow the log stream of the pod. Defaults to false."),
    ("limitBytes", "integer", "If set, the number of bytes to read from the server before terminating the log output."),
    ("previous", "boolean", "Return previous terminated container logs. Defaults to false."),
    ("sinceSeconds", "integer", "A relative time in seconds before the current time from which to show logs."),
    ("tailLines", "integer", "If set, the number of lines from the end of the logs to show."),
    (
        "timestamps",
        "boolean",
        "If true, add an RFC3339 or RFC3339Nano timestamp at the beginning of every line of log output. Defaults to false.",
    ),
];

/// What an operation does; its name is the value of `x-kubernetes-action`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Connect,
    Delete,
    DeleteCollection,
    Get,
    List,
    Log,
    Patch,
    Post,
    Put,
}

impl Action {
    fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
            Self::Get | Self::Log => "get",
            Self::List => "list",
            Self::Patch => "patch",
            Self::Post => "post",
            Self::Put => "put",
        }
    }

    /// The HTTP method, in lower case as paths show it.
    pub(super) fn method(self) -> &'static str {
        match self {
            Self::Get | Self::List | Self::Log | Self::Connect => "get",
            Self::Delete | Self::DeleteCollection => "delete",
            Self::Patch => "patch",
            Self::Post => "post",
            Self::Put => "put",
        }
    }

    fn verb(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Delete => "delete",
            Self::DeleteCollection => "delete",
            Self::Get | Self::Log => "read",
            Self::List => "list",
            Self::Patch => "patch",
            Self::Post => "create",
            Self::Put => "replace",
        }
    }

    /// What stands in ids between the group and the subject.
    fn before_subject(self) -> &'static str {
        match self {
            Self::Connect => "Get",
            Self::DeleteCollection => "Collection",
            _ => "",
        }
    }

    fn parameters(self) -> &'static [(&'static str, &'static str, &'static str)] {
        match self {
            Self::Connect | Self::Get => &[],
            Self::Delete | Self::DeleteCollection => DELETE,
            Self::List => LIST,
            Self::Log => LOG,
            Self::Patch | Self::Post | Self::Put => WRITE,
        }
    }
}

/// What an operation is about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subject<'s> {
    pub(super) group: &'s str,
    pub(super) version: &'s str,
    pub(super) kind: &'s str,
    /// Name of the schema of the body and the answer.
    pub(super) schema: &'s str,
    /// `NamespacedPod`, `NamespacedPodStatus`: the end of operation ids.
    pub(super) what: &'s str,
    /// `core_v1`, `apps_v1`.
    pub(super) tag: &'s str,
    /// The kind that a subresource is of.
    pub(super) of: &'s str,
    /// `status`, `scale`; empty for the object itself.
    pub(super) part: &'s str,
}

/// A group as it stands in tags and ids: `rbac.authorization.k8s.io` is `rbacAuthorization`.
pub(super) fn word(group: &str) -> String {
    let mut parts = group.strip_suffix(".k8s.io").unwrap_or(group).split(|letter: char| !letter.is_alphanumeric());
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |word, part| word + &capitalized(part))
}

/// The operation object.
pub(super) fn operation(action: Action, subject: &Subject<'_>) -> Value {
    let camel: String = subject.tag.split('_').map(capitalized).collect();
    let mut parameters: Vec<_> = action.parameters().iter().map(query).collect();
    match action {
        Action::DeleteCollection => {
            let no_watch = |name: &str| !matches!(name, "allowWatchBookmarks" | "watch");
            parameters.extend(LIST.iter().filter(|(name, ..)| no_watch(name)).map(query));
        }
        Action::Patch => parameters.push(query(&FORCE)),
        _ => {}
    }
    let mut operation = json!({
        "description": describe(action, subject),
        "operationId": format!("{}{camel}{}{}", action.verb(), action.before_subject(), subject.what),
        "tags": [subject.tag],
        "parameters": parameters,
        "responses": responses(action, subject),
        "x-kubernetes-action": action.name(),
        "x-kubernetes-group-version-kind": gvk(subject.group, subject.version, subject.kind),
    });
    if let Some(body) = request_body(action, subject) {
        operation["requestBody"] = body;
    }
    operation
}

fn capitalized(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map(|first| first.to_uppercase().collect::<String>() + chars.as_str()).unwrap_or_default()
}

fn describe(action: Action, subject: &Subject<'_>) -> String {
    let kind = subject.of;
    let part = if subject.part.is_empty() { String::new() } else { format!("{} of ", subject.part) };
    match action {
        Action::Connect => format!("connect GET requests to {part}{kind}"),
        Action::Delete => format!("delete {}{kind}", article(kind)),
        Action::DeleteCollection => format!("delete collection of {kind}"),
        Action::Get | Action::Log => format!("read {part}the specified {kind}"),
        Action::List => format!("list or watch objects of kind {kind}"),
        Action::Patch => format!("partially update {part}the specified {kind}"),
        Action::Post => format!("create {part}{}{kind}", article(kind)),
        Action::Put => format!("replace {part}the specified {kind}"),
    }
}

/// The article before a kind, with a space; kinds that are called by a plural have none.
fn article(kind: &str) -> &'static str {
    if kind.ends_with('s') && !kind.ends_with("ss") {
        ""
    } else if kind.starts_with(['A', 'E', 'I', 'O', 'U']) {
        "an "
    } else {
        "a "
    }
}

fn query((name, kind, description): &(&str, &str, &str)) -> Value {
    json!({"name": name, "in": "query", "description": description, "schema": {"type": kind, "uniqueItems": true}})
}

fn reference(schema: &str) -> Value {
    json!({"schema": {"$ref": format!("#/components/schemas/{schema}")}})
}

fn content(types: &[&str], schema: &str) -> Value {
    let entries = types.iter().map(|media| ((*media).to_owned(), reference(schema)));
    Value::Object(entries.collect::<Map<_, _>>())
}

fn request_body(action: Action, subject: &Subject<'_>) -> Option<Value> {
    match action {
        Action::Post | Action::Put => Some(json!({"content": {"*/*": reference(subject.schema)}, "required": true})),
        Action::Patch => Some(json!({"content": content(PATCH_TYPES, PATCH), "required": true})),
        Action::Delete | Action::DeleteCollection => Some(json!({"content": {"*/*": reference(DELETE_OPTIONS)}})),
        Action::Connect | Action::Get | Action::List | Action::Log => None,
    }
}

fn responses(action: Action, subject: &Subject<'_>) -> Value {
    let list = format!("{}List", subject.schema);
    let schema = match action {
        Action::List => list.as_str(),
        Action::DeleteCollection => STATUS,
        _ => subject.schema,
    };
    let answer = |text: &str| json!({"description": text, "content": content(BODY_TYPES, schema)});
    let mut all = json!({"401": {"description": "Unauthorized"}});
    all["200"] = match action {
        Action::Connect | Action::Log => {
            json!({"description": "OK", "content": {"text/plain": {"schema": {"type": "string"}}}})
        }
        _ => answer("OK"),
    };
    match action {
        Action::Post => {
            all["201"] = answer("Created");
            all["202"] = answer("Accepted");
        }
        Action::Put | Action::Patch => all["201"] = answer("Created"),
        Action::Delete => all["202"] = answer("Accepted"),
        _ => {}
    }
    all
}
