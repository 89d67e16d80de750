//! One operation of a path: parameters, body, answers.

use serde_json::{Map, Value, json};

use super::schemas::{PATCH, gvk};

const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
const WATCH_EVENT: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.WatchEvent";
const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";

/// Media types of patches that are taken.
const PATCH_TYPES: &[&str] =
    &["application/json-patch+json", "application/merge-patch+json", STRATEGIC, "application/apply-patch+yaml"];
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const BODY_TYPES: &[&str] = &["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
/// Beside these of what can be watched.
const STREAM_TYPES: &[&str] = &["application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch"];

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
const FORCE: (&str, &str, &str) = (
    "force",
    "boolean",
    "Force is going to \"force\" Apply requests. It means user will re-acquire conflicting fields owned by other people. Force flag must be unset for non-apply patch requests.",
);
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
    (
        "insecureSkipTLSVerifyBackend",
        "boolean",
        "insecureSkipTLSVerifyBackend indicates that the apiserver should not confirm the validity of the serving certificate of the backend it is connecting to.",
    ),
    ("limitBytes", "integer", "If set, the number of bytes to read from the server before terminating the log output."),
    ("previous", "boolean", "Return previous terminated container logs. Defaults to false."),
    ("sinceSeconds", "integer", "A relative time in seconds before the current time from which to show logs."),
    (
        "stream",
        "string",
        "Specify which container log stream to return to the client. Acceptable values are \"All\", \"Stdout\" and \"Stderr\". If not specified, \"All\" is used, and both stdout and stderr are returned interleaved. Note that when \"TailLines\" is specified, \"Stream\" can only be set to nil or \"All\".",
    ),
    ("tailLines", "integer", "If set, the number of lines from the end of the logs to show."),
    (
        "timestamps",
        "boolean",
        "If true, add an RFC3339 or RFC3339Nano timestamp at the beginning of every line of log output. Defaults to false.",
    ),
];

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// With this method, in lower case.
    Connect(&'static str),
    Delete,
    DeleteCollection,
    Get,
    /// Of a kind that cannot be watched.
    List,
    ListOrWatch,
    Log,
    Patch,
    Post,
    Put,
    /// One object, by the path of old.
    Watch,
    /// Many.
    WatchList,
}

impl Action {
    /// The value of `x-kubernetes-action`.
    fn name(self) -> &'static str {
        match self {
            Self::Connect(_) => "connect",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
            Self::Get | Self::Log => "get",
            Self::List | Self::ListOrWatch => "list",
            Self::Patch => "patch",
            Self::Post => "post",
            Self::Put => "put",
            Self::Watch => "watch",
            Self::WatchList => "watchlist",
        }
    }

    /// The HTTP method, in lower case as paths show it.
    pub(super) fn method(self) -> &'static str {
        match self {
            Self::Connect(method) => method,
            Self::Get | Self::List | Self::ListOrWatch | Self::Log | Self::Watch | Self::WatchList => "get",
            Self::Delete | Self::DeleteCollection => "delete",
            Self::Patch => "patch",
            Self::Post => "post",
            Self::Put => "put",
        }
    }

    /// What operation ids begin with, and what stands behind the group and version.
    fn verb(self) -> (&'static str, String) {
        match self {
            Self::Connect(method) => ("connect", capitalized(method)),
            Self::Delete => ("delete", String::new()),
            Self::DeleteCollection => ("delete", "Collection".to_owned()),
            Self::Get | Self::Log => ("read", String::new()),
            Self::List | Self::ListOrWatch => ("list", String::new()),
            Self::Patch => ("patch", String::new()),
            Self::Post => ("create", String::new()),
            Self::Put => ("replace", String::new()),
            Self::Watch | Self::WatchList => ("watch", String::new()),
        }
    }

    fn parameters(self) -> Vec<Value> {
        let all = match self {
            Self::Connect(_) | Self::Get => &[],
            Self::Delete | Self::DeleteCollection => DELETE,
            Self::List | Self::ListOrWatch | Self::Watch | Self::WatchList => LIST,
            Self::Log => LOG,
            Self::Patch | Self::Post | Self::Put => WRITE,
        };
        let mut parameters: Vec<Value> = all.iter().map(query).collect();
        match self {
            Self::Patch => parameters.push(query(&FORCE)),
            // Deleting watches nothing.
            Self::DeleteCollection => {
                let others = LIST.iter().filter(|(name, ..)| !matches!(*name, "watch" | "allowWatchBookmarks"));
                parameters.extend(others.map(query));
            }
            _ => {}
        }
        parameters
    }
}

/// What an operation is about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subject<'s> {
    pub(super) group: &'s str,
    pub(super) version: &'s str,
    /// What the body is.
    pub(super) kind: &'s str,
    /// Name of the schema of the body and the answer.
    pub(super) schema: &'s str,
    /// The kind whose path it is.
    pub(super) owner: &'s str,
    /// The subresource; empty: none.
    pub(super) part: &'s str,
    /// `NamespacedPod`, `NamespacedPodStatus`: the end of operation ids.
    pub(super) what: &'s str,
    /// `core_v1`, `apps_v1`.
    pub(super) tag: &'s str,
    /// Whether strategic merge patches are taken.
    pub(super) is_strategic: bool,
    /// Whether a deletion is answered with what was deleted.
    pub(super) shows_deleted: bool,
}

/// The operation object.
pub(super) fn operation(action: Action, subject: &Subject<'_>) -> Value {
    let camel: String = subject.tag.split('_').map(capitalized).collect();
    let (verb, behind) = action.verb();
    let mut operation = json!({
        "description": describe(action, subject),
        "operationId": format!("{verb}{camel}{behind}{}", subject.what),
        "tags": [subject.tag],
        "parameters": action.parameters(),
        "responses": responses(action, subject),
        "x-kubernetes-action": action.name(),
        "x-kubernetes-group-version-kind": gvk(subject.group, subject.version, subject.kind),
    });
    if let Some(body) = request_body(action, subject) {
        operation["requestBody"] = body;
    }
    operation
}

/// A group as it stands in tags and ids: `rbac.authorization.k8s.io` is `rbacAuthorization`.
pub(super) fn word(group: &str) -> String {
    let mut parts = group.strip_suffix(".k8s.io").unwrap_or(group).split(|letter: char| !letter.is_alphanumeric());
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |word, part| word + &capitalized(part))
}

pub(super) fn capitalized(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map(|first| first.to_uppercase().collect::<String>() + chars.as_str()).unwrap_or_default()
}

fn describe(action: Action, subject: &Subject<'_>) -> String {
    let (kind, part) = (subject.owner, subject.part);
    let specified =
        || if part.is_empty() { format!("the specified {kind}") } else { format!("{part} of the specified {kind}") };
    let one = || {
        let one = if is_plural(kind) { kind.to_owned() } else { format!("{} {kind}", article(kind)) };
        if part.is_empty() { one } else { format!("{part} of {one}") }
    };
    let instead = "deprecated: use the 'watch' parameter with a list operation instead";
    match action {
        Action::Connect(method) => format!("connect {} requests to {part} of {kind}", method.to_uppercase()),
        Action::Delete => format!("delete {}", one()),
        Action::DeleteCollection => format!("delete collection of {kind}"),
        Action::Get | Action::Log => format!("read {}", specified()),
        Action::List => format!("list objects of kind {kind}"),
        Action::ListOrWatch => format!("list or watch objects of kind {kind}"),
        Action::Patch => format!("partially update {}", specified()),
        Action::Post => format!("create {}", one()),
        Action::Put => format!("replace {}", specified()),
        Action::Watch => format!(
            "watch changes to an object of kind {kind}. {instead}, filtered to a single item with the 'fieldSelector' parameter."
        ),
        Action::WatchList => format!("watch individual changes to a list of {kind}. {instead}."),
    }
}

/// Source: `GetArticleForNoun` of `k8s.io/apiserver`.
fn is_plural(kind: &str) -> bool {
    kind.ends_with('s') && !kind.ends_with("ss")
}

fn article(kind: &str) -> &'static str {
    if kind.starts_with(['A', 'E', 'I', 'O', 'U']) { "an" } else { "a" }
}

pub(super) fn query((name, kind, description): &(&str, &str, &str)) -> Value {
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
        Action::Patch => {
            let types = PATCH_TYPES.iter().copied().filter(|kind| subject.is_strategic || *kind != STRATEGIC);
            Some(json!({"content": content(&types.collect::<Vec<_>>(), PATCH), "required": true}))
        }
        Action::Delete | Action::DeleteCollection => Some(json!({"content": {"*/*": reference(DELETE_OPTIONS)}})),
        _ => None,
    }
}

/// What is sent back when all goes well: a schema, or for streams a text.
fn answer(action: Action, subject: &Subject<'_>) -> Value {
    let text = json!({"schema": {"type": "string"}});
    let list = format!("{}List", subject.schema);
    let with_streams = || [BODY_TYPES, STREAM_TYPES].concat();
    match action {
        Action::Connect(_) => json!({"*/*": text}),
        Action::Log => {
            let types = BODY_TYPES.iter().chain(&["text/plain"]);
            Value::Object(types.map(|media| ((*media).to_owned(), text.clone())).collect())
        }
        Action::Watch | Action::WatchList => content(&with_streams(), WATCH_EVENT),
        Action::List | Action::ListOrWatch => content(&with_streams(), &list),
        Action::DeleteCollection => content(BODY_TYPES, STATUS),
        Action::Delete if !subject.shows_deleted => content(BODY_TYPES, STATUS),
        _ => content(BODY_TYPES, subject.schema),
    }
}

fn responses(action: Action, subject: &Subject<'_>) -> Value {
    let said = |text: &str| json!({"description": text, "content": answer(action, subject)});
    let mut all = json!({"200": said("OK"), "401": {"description": "Unauthorized"}});
    match action {
        Action::Post => {
            all["201"] = said("Created");
            all["202"] = said("Accepted");
        }
        Action::Put | Action::Patch => all["201"] = said("Created"),
        Action::Delete => all["202"] = said("Accepted"),
        _ => {}
    }
    all
}
