//! Asking what somebody may do: `authorizer.group('').resource('pods').check('list').allowed()`.

use std::fmt;
use std::sync::Arc;

use reeve_api::names;

use crate::error::EvalError;
use crate::opaque::{Inner, Opaque};
use crate::value::Value;

type Called<'v> = Result<Value<'v>, EvalError>;

/// Answers what somebody may do. Called while an expression runs, so it must not wait for anything.
pub trait Authorizer: fmt::Debug + Sync {
    /// Decides on `check`.
    fn authorize(&self, check: &Check) -> Decision;
}

/// What is asked of an [`Authorizer`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Check {
    /// Namespace and name of the service account asked about; none for whoever made the request.
    pub service_account: Option<(String, String)>,
    /// The verb.
    pub verb: String,
    /// A path that is no resource's; none when a resource is asked about.
    pub path: Option<String>,
    /// Group of the resource.
    pub group: String,
    /// The resource.
    pub resource: String,
    /// Its subresource, or nothing.
    pub subresource: String,
    /// The namespace, or nothing.
    pub namespace: String,
    /// The object's name, or nothing.
    pub name: String,
    /// A field selector, or nothing.
    pub field_selector: String,
    /// A label selector, or nothing.
    pub label_selector: String,
}

/// What an [`Authorizer`] decided.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decision {
    /// Whether it is allowed.
    pub allowed: bool,
    /// Why.
    pub reason: String,
    /// What went wrong while deciding.
    pub error: Option<String>,
}

/// Somebody who can be asked about.
#[derive(Debug, Clone)]
pub(crate) struct Subject<'v> {
    authorizer: &'v dyn Authorizer,
    service_account: Option<(Arc<str>, Arc<str>)>,
}

#[derive(Debug)]
pub(crate) struct PathCheck<'v> {
    subject: Subject<'v>,
    path: Arc<str>,
}

#[derive(Debug)]
pub(crate) struct GroupCheck<'v> {
    subject: Subject<'v>,
    group: Arc<str>,
}

#[derive(Debug, Clone)]
pub(crate) struct ResourceCheck<'v> {
    subject: Subject<'v>,
    check: Check,
}

impl<'v> Value<'v> {
    /// The variable `authorizer`.
    #[must_use]
    pub fn authorizer(authorizer: &'v dyn Authorizer) -> Self {
        Self::Opaque(Opaque(Inner::Authorizer(Subject { authorizer, service_account: None })))
    }

    /// The variable `authorizer.requestResource`: a check on what the request is about.
    #[must_use]
    pub fn resource_check(authorizer: &'v dyn Authorizer, check: Check) -> Self {
        let subject = Subject { authorizer, service_account: None };
        Self::Opaque(Opaque(Inner::Resource(Arc::new(ResourceCheck { subject, check }))))
    }
}

fn made(inner: Inner<'_>) -> Called<'_> {
    Ok(Value::Opaque(Opaque(inner)))
}

pub(crate) fn call<'v>(function: &str, args: &[Value<'v>]) -> Called<'v> {
    let (Some(Value::Opaque(Opaque(target))), texts) = (args.first(), args.get(1..).unwrap_or_default()) else {
        return Err(EvalError::no_such_overload());
    };
    let texts: Option<Vec<&str>> = texts.iter().map(Value::as_str).collect();
    let Some(texts) = texts else { return Err(EvalError::no_such_overload()) };
    match (target, texts.as_slice()) {
        (Inner::Authorizer(subject), texts) => of_subject(function, subject, texts),
        (Inner::Group(group), [resource]) if function == "resource" => {
            if resource.trim().is_empty() {
                return Err(EvalError::message("resource must not be empty"));
            }
            let check = Check { group: group.group.to_string(), resource: (*resource).to_owned(), ..Check::default() };
            made(Inner::Resource(Arc::new(ResourceCheck { subject: group.subject.clone(), check })))
        }
        (Inner::Resource(resource), [text]) => of_resource(function, resource, text),
        (Inner::Path(path), [verb]) if function == "check" => {
            let check = Check { path: Some(path.path.to_string()), ..Check::default() };
            decide(&path.subject, check, verb)
        }
        (Inner::Decision(decision), []) => Ok(match function {
            "allowed" => Value::Bool(decision.allowed),
            "reason" => Value::text(&decision.reason),
            "error" => Value::text(decision.error.as_deref().unwrap_or_default()),
            "errored" => Value::Bool(decision.error.is_some()),
            _ => return Err(EvalError::no_such_overload()),
        }),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn of_subject<'v>(function: &str, subject: &Subject<'v>, texts: &[&str]) -> Called<'v> {
    match (function, texts) {
        ("path", [path]) if path.trim().is_empty() => Err(EvalError::message("path must not be empty")),
        ("path", [path]) => made(Inner::Path(Arc::new(PathCheck { subject: subject.clone(), path: (*path).into() }))),
        ("group", [group]) => {
            made(Inner::Group(Arc::new(GroupCheck { subject: subject.clone(), group: (*group).into() })))
        }
        ("serviceAccount", [namespace, name]) => {
            if !names::dns1123_subdomain(name).is_empty() {
                return Err(EvalError::message("Invalid service account name"));
            }
            if !names::dns1123_label(namespace).is_empty() {
                return Err(EvalError::message("Invalid service account namespace"));
            }
            let service_account = Some(((*namespace).into(), (*name).into()));
            made(Inner::Authorizer(Subject { service_account, ..subject.clone() }))
        }
        _ => Err(EvalError::no_such_overload()),
    }
}

fn of_resource<'v>(function: &str, resource: &ResourceCheck<'v>, text: &str) -> Called<'v> {
    if function == "check" {
        return decide(&resource.subject, resource.check.clone(), text);
    }
    let mut changed = resource.clone();
    let field = match function {
        "subresource" => &mut changed.check.subresource,
        "namespace" => &mut changed.check.namespace,
        "name" => &mut changed.check.name,
        "fieldSelector" => &mut changed.check.field_selector,
        "labelSelector" => &mut changed.check.label_selector,
        _ => return Err(EvalError::no_such_overload()),
    };
    text.clone_into(field);
    made(Inner::Resource(Arc::new(changed)))
}

fn decide<'v>(subject: &Subject<'v>, check: Check, verb: &str) -> Called<'v> {
    let service_account =
        subject.service_account.as_ref().map(|(namespace, name)| (namespace.to_string(), name.to_string()));
    let check = Check { verb: verb.to_owned(), service_account, ..check };
    made(Inner::Decision(Arc::new(subject.authorizer.authorize(&check))))
}
