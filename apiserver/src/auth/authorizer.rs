//! The seam between a request and the rules: what is asked, and how a refusal reads.

use std::sync::Arc;

use reeve_kinds::Names;

use super::rbac::Binding;
use crate::registry::UserInfo;
use crate::status::{ApiError, Details};

/// What a request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target<'r> {
    /// A path that is no resource: `/version`.
    Path(&'r str),
    /// A resource.
    Resource {
        /// API group; empty for the core group.
        group: &'r str,
        /// Plural name.
        resource: &'r str,
        /// `status`, `log`, …; empty for the object itself.
        subresource: &'r str,
        /// Empty for cluster-wide resources and for all namespaces.
        namespace: &'r str,
        /// Empty for collections, unless a list or watch selects one object by `metadata.name`.
        name: &'r str,
        /// The field selector of lists, watches and collection deletions, unparsed.
        field_selector: &'r str,
    },
}

/// One question to the authorizer.
#[derive(Debug, Clone, Copy)]
pub struct Attributes<'r> {
    /// Who asks.
    pub user: &'r UserInfo,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`; for paths the HTTP
    /// method in lower case.
    pub verb: &'r str,
    /// For what.
    pub target: Target<'r>,
}

/// What the authorizer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// The request may go on.
    Allowed(Grant),
    /// It may not.
    Refused {
        /// Why; empty when no rule speaks for the request, which is the usual reason.
        reason: String,
    },
}

/// What allows a request: a binding, or something that needs no words. Its words are made for whoever asks for them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grant(Option<Arc<Binding>>);

impl Grant {
    /// The binding allows it.
    pub(crate) fn by(binding: &Arc<Binding>) -> Self {
        Self(Some(Arc::clone(binding)))
    }

    /// Why the user that was asked about is allowed it; empty when it goes without saying.
    pub(crate) fn reason(&self, user: &UserInfo) -> String {
        self.0.as_ref().map(|binding| binding.reason(user)).unwrap_or_default()
    }
}

impl Decision {
    /// It goes without saying.
    #[must_use]
    pub fn allow() -> Self {
        Self::Allowed(Grant::default())
    }

    /// No rule speaks for the request.
    pub(crate) fn silent() -> Self {
        Self::refuse(String::new())
    }

    /// A rule speaks against the request.
    pub(crate) fn refuse(reason: impl Into<String>) -> Self {
        Self::Refused { reason: reason.into() }
    }

    /// Allowed when a rule speaks for it.
    pub(crate) fn when(allowed: bool) -> Self {
        if allowed { Self::allow() } else { Self::silent() }
    }

    /// Whether the request may go on.
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::Allowed(_))
    }
}

/// One permission, as it stands in a role: verbs on resources, or on paths.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct KnownRule {
    /// `get`, `create`, …; `*` for all.
    pub verbs: Vec<String>,
    /// Empty for the core group; `*` for all.
    pub groups: Vec<String>,
    /// Plural names, `pods/log`, `*/scale`; `*` for all.
    pub resources: Vec<String>,
    /// Of objects; none: all.
    pub names: Vec<String>,
    /// Paths that are no resources; one that ends in `*` stands for all that begin with the rest.
    pub urls: Vec<String>,
}

/// What rules say about a user as a whole, for people to read. Decisions may rest on more than rules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KnownRules {
    /// All of them.
    pub rules: Vec<KnownRule>,
    /// Whether there is more than rules can say.
    pub incomplete: bool,
    /// What else is to be said about it.
    pub error: String,
}

/// Says what a user may do. Asked once per request, after authentication and before anything is read.
pub trait Authorizer: Send + Sync {
    /// Whether the request may go on. Must answer at once: it looks nothing up over a network.
    fn decide(&self, asked: &Attributes<'_>) -> Decision;

    /// All that rules allow a user in a namespace and in the whole cluster.
    fn rules(&self, user: &UserInfo, namespace: &str) -> KnownRules;

    /// How often each of those that are asked has allowed something, by its type: for `/metrics`.
    fn allowed(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }
}

impl Attributes<'_> {
    /// The refusal, in Kubernetes' words; `reason` is that of [`Decision::Refused`].
    #[must_use]
    pub fn refusal(&self, reason: &str) -> ApiError {
        let user = &self.user.name;
        let verb = self.verb;
        let because = if reason.is_empty() { String::new() } else { format!(": {reason}") };
        match self.target {
            Target::Path(path) => {
                let message = format!("forbidden: User \"{user}\" cannot {verb} path \"{path}\"{because}");
                ApiError { details: Some(Box::new(Details::default())), ..ApiError::new(403, "Forbidden", message) }
            }
            Target::Resource { group, resource, subresource, namespace, name, .. } => {
                let part = if subresource.is_empty() { String::new() } else { format!("/{subresource}") };
                let place = if namespace.is_empty() {
                    "at the cluster scope".to_owned()
                } else {
                    format!("in the namespace \"{namespace}\"")
                };
                let why = format!(
                    "User \"{user}\" cannot {verb} resource \"{resource}{part}\" in API group \"{group}\" {place}{because}"
                );
                forbidden(group, resource, name, &why)
            }
        }
    }
}

/// [`ApiError::forbidden`] for resources that may not exist.
fn forbidden(group: &str, resource: &str, name: &str, why: &str) -> ApiError {
    let qualified = if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") };
    let subject = if name.is_empty() { qualified } else { format!("{qualified} \"{name}\"") };
    let details =
        Details { name: name.to_owned(), group: group.to_owned(), kind: resource.to_owned(), ..Details::default() };
    ApiError {
        details: Some(Box::new(details)),
        ..ApiError::new(403, "Forbidden", format!("{subject} is forbidden: {why}"))
    }
}

/// The verbs a resource offers, in the order of discovery.
#[must_use]
pub(crate) fn verbs(names: &Names) -> &'static [&'static str] {
    // Namespaces cannot be deleted by the dozen.
    if names.group.is_empty() && names.plural == "namespaces" {
        &["create", "delete", "get", "list", "patch", "update", "watch"]
    } else {
        &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_reads_as_in_kubernetes() {
        let user = UserInfo::new("x", &[]);
        let target = |subresource, namespace, name| Target::Resource {
            group: "",
            resource: "pods",
            subresource,
            namespace,
            name,
            field_selector: "",
        };
        let text = |verb, target| Attributes { user: &user, verb, target }.refusal("").message;
        assert_eq!(
            text("list", target("", "y", "")),
            r#"pods is forbidden: User "x" cannot list resource "pods" in API group "" in the namespace "y""#
        );
        assert_eq!(
            text("get", target("log", "y", "p")),
            r#"pods "p" is forbidden: User "x" cannot get resource "pods/log" in API group "" in the namespace "y""#
        );
        assert_eq!(text("get", Target::Path("/metrics")), r#"forbidden: User "x" cannot get path "/metrics""#);
        let asked = Attributes { user: &user, verb: "get", target: Target::Path("/metrics") };
        assert_eq!(asked.refusal("not you").message, r#"forbidden: User "x" cannot get path "/metrics": not you"#);
    }
}
