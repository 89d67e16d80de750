//! What admission is asked about: who does what to which object.
//!
//! The same facts as Kubernetes' `admission.Attributes`. Built by the verbs of the registry, changed by nobody but the
//! mutating phase, and that in `object` alone.

use std::sync::Arc;

use reeve_kinds::Names;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::registry::{FieldValidation, Options, Propagation, Request, Resource, meta};

/// What is done to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    /// It, or a subresource that is created (`pods/NAME/binding`), comes into being.
    Create,
    /// It or a part of it is replaced or patched.
    Update,
    /// It is deleted.
    Delete,
    /// A connection to it is opened: `exec`, `attach`, `portforward`, `proxy`.
    Connect,
}

impl Operation {
    /// As it stands in rules and reviews.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
        }
    }
}

/// A kind in a version of its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct GroupVersionKind<'a> {
    /// Empty for the core group.
    pub(crate) group: &'a str,
    /// `v1`
    pub(crate) version: &'a str,
    /// `Pod`
    pub(crate) kind: &'a str,
}

/// Another version of the request's resource, in which it is shown to who asks for that version.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) resource: Arc<Resource>,
    /// Of the object.
    pub(crate) kind: GroupVersionKind<'static>,
}

/// One admission: the question, and what is found besides yes or no.
#[derive(Debug)]
pub(crate) struct Attributes<'a> {
    /// User, resource, namespace, name and options.
    pub(crate) request: &'a Request,
    /// What is done.
    pub(crate) operation: Operation,
    /// The kind of `object`; for subresources with a body of their own that body's.
    pub(crate) kind: GroupVersionKind<'a>,
    /// Empty for the object itself.
    pub(crate) subresource: &'a str,
    /// The object as it is to be; null for deletions. For connections the options of the connection.
    pub(crate) object: Value,
    /// The object as it is, with its resourceVersion; `None` for creations and connections.
    pub(crate) old: Option<&'a Value>,
    /// Whether the request is for a collection: then the single objects are nameless to whoever is asked.
    pub(crate) of_collection: bool,
    /// Set when `object` and `old` are in another version than the request's.
    pub(crate) seen: Option<Seen>,
}

impl<'a> Attributes<'a> {
    fn new(request: &'a Request, operation: Operation, object: Value) -> Self {
        let names = request.resource.names();
        Self {
            request,
            operation,
            kind: GroupVersionKind { group: names.group, version: names.version, kind: names.kind },
            subresource: request.subresource.name(),
            object,
            old: None,
            of_collection: false,
            seen: None,
        }
    }

    /// Of an object that is to be created.
    pub(crate) fn create(request: &'a Request, object: Value) -> Self {
        Self::new(request, Operation::Create, object)
    }

    /// Of an object that is to be changed.
    pub(crate) fn update(request: &'a Request, object: Value, old: &'a Value) -> Self {
        Self { old: Some(old), ..Self::new(request, Operation::Update, object) }
    }

    /// Of an object that is to be deleted.
    pub(crate) fn delete(request: &'a Request, old: &'a Value) -> Self {
        Self { old: Some(old), ..Self::new(request, Operation::Delete, Value::Null) }
    }

    /// Of a connection; `options` are those of its kind, `PodExecOptions` for instance.
    pub(crate) fn connect(request: &'a Request, options: Value) -> Self {
        Self::new(request, Operation::Connect, options)
    }

    /// The same, of a subresource whose bodies are of another kind than the object.
    pub(crate) fn of_kind(mut self, subresource: &'a str, (group, version, kind): (&'a str, &'a str, &'a str)) -> Self {
        self.subresource = subresource;
        self.kind = GroupVersionKind { group, version, kind };
        self
    }

    /// Whether the object itself, of that resource, is meant.
    pub(crate) fn is(&self, group: &str, plural: &str) -> bool {
        self.subresource.is_empty() && self.request.resource.is(group, plural)
    }

    /// Whether `object` is of the resource's kind; bodies of subresources may be of another.
    pub(crate) fn is_of_resource(&self) -> bool {
        let names = self.request.resource.names();
        self.kind.kind == names.kind && self.kind.group == names.group
    }

    /// The resource in the version of `object`.
    pub(crate) fn resource(&self) -> &Arc<Resource> {
        self.seen.as_ref().map_or(&self.request.resource, |seen| &seen.resource)
    }

    /// What the resource is called in the version of `object`.
    pub(crate) fn names(&self) -> &Names {
        self.resource().names()
    }

    /// The kind of `object` in its version.
    pub(crate) fn kind_seen(&self) -> GroupVersionKind<'_> {
        self.seen.as_ref().map_or(self.kind, |seen| seen.kind)
    }

    /// The namespace; for a Namespace its own name, for cluster-wide kinds empty.
    pub(crate) fn namespace(&self) -> &str {
        if self.request.resource.is("", "namespaces") { self.name() } else { &self.request.namespace }
    }

    /// The object's name; empty while it is still to be generated.
    pub(crate) fn name(&self) -> &str {
        match self.request.name.as_str() {
            _ if self.of_collection => "",
            "" => meta::text(&self.object, "name"),
            name => name,
        }
    }

    /// The options of the verb as an object: `CreateOptions`, `UpdateOptions` (also of a patch, as in Kubernetes),
    /// `DeleteOptions`; null for connections.
    pub(crate) fn options(&self) -> Value {
        let options = &self.request.options;
        let kind = match self.operation {
            Operation::Create => "CreateOptions",
            Operation::Update => "UpdateOptions",
            Operation::Delete => "DeleteOptions",
            Operation::Connect => return Value::Null,
        };
        options_object(kind, options)
    }

    /// Whether nothing is to be written.
    pub(crate) fn is_dry_run(&self) -> bool {
        self.request.options.dry_run && self.operation != Operation::Connect
    }
}

fn options_object(kind: &str, options: &Options) -> Value {
    let mut out = Map::new();
    out.insert("kind".to_owned(), kind.into());
    out.insert("apiVersion".to_owned(), "meta.k8s.io/v1".into());
    if options.dry_run {
        out.insert("dryRun".to_owned(), json!(["All"]));
    }
    if kind == "DeleteOptions" {
        delete_options(&mut out, options);
    } else {
        if !options.field_manager.is_empty() {
            out.insert("fieldManager".to_owned(), options.field_manager.as_str().into());
        }
        if options.field_validation_stated {
            let name = match options.field_validation {
                FieldValidation::Ignore => "Ignore",
                FieldValidation::Warn => "Warn",
                FieldValidation::Strict => "Strict",
            };
            out.insert("fieldValidation".to_owned(), name.into());
        }
    }
    Value::Object(out)
}

fn delete_options(out: &mut Map<String, Value>, options: &Options) {
    if let Some(seconds) = options.grace_period_seconds {
        out.insert("gracePeriodSeconds".to_owned(), seconds.into());
    }
    if let Some(orphan) = options.orphan_dependents {
        out.insert("orphanDependents".to_owned(), orphan.into());
    }
    if let Some(policy) = options.propagation {
        let name = match policy {
            Propagation::Orphan => "Orphan",
            Propagation::Background => "Background",
            Propagation::Foreground => "Foreground",
        };
        out.insert("propagationPolicy".to_owned(), name.into());
    }
    let wanted = &options.preconditions;
    let conditions: Map<String, Value> = [("uid", &wanted.uid), ("resourceVersion", &wanted.resource_version)]
        .into_iter()
        .filter_map(|(field, value)| Some((field.to_owned(), value.clone()?.into())))
        .collect();
    if !conditions.is_empty() {
        out.insert("preconditions".to_owned(), conditions.into());
    }
}
