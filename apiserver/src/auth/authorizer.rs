//! The seam between a request and the rules: what is asked, and how a refusal reads.

use reeve_kinds::Names;

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
        /// Empty for collections.
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

/// Says what a user may do. Asked once per request, after authentication and before anything is read.
pub trait Authorizer: Send + Sync {
    /// Whether the request may go on. Must answer at once: it looks nothing up over a network.
    fn allows(&self, asked: &Attributes<'_>) -> bool;
}

impl Attributes<'_> {
    /// The refusal, in Kubernetes' words.
    #[must_use]
    pub fn refusal(&self) -> ApiError {
        let user = &self.user.name;
        let verb = self.verb;
        match self.target {
            Target::Path(path) => {
                let message = format!("forbidden: User \"{user}\" cannot {verb} path \"{path}\"");
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
                    "User \"{user}\" cannot {verb} resource \"{resource}{part}\" in API group \"{group}\" {place}"
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
        let text = |verb, target| Attributes { user: &user, verb, target }.refusal().message;
        assert_eq!(
            text("list", target("", "y", "")),
            r#"pods is forbidden: User "x" cannot list resource "pods" in API group "" in the namespace "y""#
        );
        assert_eq!(
            text("get", target("log", "y", "p")),
            r#"pods "p" is forbidden: User "x" cannot get resource "pods/log" in API group "" in the namespace "y""#
        );
        assert_eq!(text("get", Target::Path("/metrics")), r#"forbidden: User "x" cannot get path "/metrics""#);
    }
}
