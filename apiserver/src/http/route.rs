//! What a path means, before anybody looks whether it exists.
//!
//! Source: Kubernetes, "API concepts", section "Resource URIs".

use http::Method;

use super::query::Query;
use crate::auth::Target;

/// A path inside `/api/VERSION/` or `/apis/GROUP/VERSION/` that names a resource. Empty means absent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ResourcePath {
    pub(crate) group: String,
    pub(crate) version: String,
    /// For a Namespace itself: its own name, as Kubernetes' authorization sees it.
    pub(crate) namespace: String,
    pub(crate) resource: String,
    pub(crate) name: String,
    pub(crate) subresource: String,
    /// Whether more stands behind the subresource: no such path is served.
    pub(crate) is_longer: bool,
    /// Whether `watch` stands before the resource: the old way to ask for a watch.
    pub(crate) is_watch: bool,
}

impl ResourcePath {
    /// As authorization sees it.
    pub(crate) fn target(&self) -> Target<'_> {
        Target::Resource {
            group: &self.group,
            resource: &self.resource,
            subresource: &self.subresource,
            namespace: &self.namespace,
            name: &self.name,
            field_selector: "",
        }
    }
}

/// Splits a path into its segments, percent-decoded; `None` when it is not UTF-8.
pub(crate) fn segments(path: &str) -> Option<Vec<String>> {
    let decode = |part: &str| percent_encoding::percent_decode_str(part).decode_utf8().ok().map(String::from);
    path.trim_matches('/').split('/').map(decode).collect()
}

/// Whether every `%` stands before two hexadecimal digits.
pub(crate) fn is_escaped_well(path: &str) -> bool {
    let mut behind = path.split('%').skip(1);
    behind.all(|rest| rest.as_bytes().get(..2).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)))
}

/// The resource that the segments name; `None` for paths that name none (`/version`, `/apis/apps/v1`).
pub(crate) fn resource(segments: &[String]) -> Option<ResourcePath> {
    let (group, rest) = match segments {
        [root, rest @ ..] if root == "api" => ("", rest),
        [root, group, rest @ ..] if root == "apis" && !group.is_empty() => (group.as_str(), rest),
        _ => return None,
    };
    let [version, rest @ ..] = rest else { return None };
    let mut path = ResourcePath { group: group.to_owned(), version: version.clone(), ..ResourcePath::default() };
    let (is_watch, rest) = match rest {
        [watch, rest @ ..] if watch == "watch" && !rest.is_empty() => (true, rest),
        rest => (false, rest),
    };
    path.is_watch = is_watch;
    let own = rest;
    let rest = match rest {
        // `namespaces/NAME/status` and `…/finalize` are parts of the Namespace, everything else lies inside it.
        [root, namespace, rest @ ..] if root == "namespaces" => {
            path.namespace.clone_from(namespace);
            match rest {
                [first, ..] if first != "status" && first != "finalize" => rest,
                _ => own,
            }
        }
        rest => rest,
    };
    let mut parts = rest.iter();
    path.resource.clone_from(parts.next()?);
    path.name = parts.next().cloned().unwrap_or_default();
    path.subresource = parts.next().cloned().unwrap_or_default();
    path.is_longer = parts.next().is_some();
    Some(path)
}

/// A subresource that is connected to, with any method that it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Connect {
    /// `exec`, `attach`, `portforward`: another protocol on the same connection.
    Stream,
    /// `proxy`: the request is passed on.
    Proxy,
}

impl Connect {
    /// What the path connects to, if anything.
    pub(crate) fn of(path: &ResourcePath) -> Option<Self> {
        if !path.group.is_empty() || path.name.is_empty() {
            return None;
        }
        match (path.resource.as_str(), path.subresource.as_str()) {
            ("pods", "exec" | "attach" | "portforward") => Some(Self::Stream),
            ("pods" | "services" | "nodes", "proxy") => Some(Self::Proxy),
            _ => None,
        }
    }

    fn verb(self, method: &Method) -> Option<&'static str> {
        match (self, method) {
            (Self::Stream, &Method::GET) => Some("get"),
            (Self::Stream, &Method::POST) => Some("create"),
            (Self::Stream, _) => None,
            (Self::Proxy, &Method::GET | &Method::HEAD) => Some("get"),
            (Self::Proxy, &Method::POST) => Some("create"),
            (Self::Proxy, &Method::PUT) => Some("update"),
            (Self::Proxy, &Method::PATCH) => Some("patch"),
            (Self::Proxy, &Method::DELETE) => Some("delete"),
            // As in Kubernetes: a method without a verb, which only a rule for all verbs allows.
            (Self::Proxy, &Method::OPTIONS) => Some(""),
            (Self::Proxy, _) => None,
        }
    }
}

/// The verb that authorization and the registry know; `None` for methods that have no meaning.
pub(crate) fn verb(method: &Method, path: &ResourcePath, query: &Query) -> Option<&'static str> {
    let is_collection = path.name.is_empty();
    if let Some(connect) = Connect::of(path).filter(|_| !path.is_watch) {
        return connect.verb(method);
    }
    match *method {
        Method::GET if path.is_watch => Some("watch"),
        _ if path.is_watch => None,
        Method::GET if query.flag("watch") && path.subresource.is_empty() => Some("watch"),
        Method::GET => Some(if is_collection { "list" } else { "get" }),
        Method::POST => Some("create"),
        Method::PUT => Some("update"),
        Method::PATCH => Some("patch"),
        Method::DELETE => Some(if is_collection { "deletecollection" } else { "delete" }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(path: &str, expected: Option<[&str; 6]>) {
        let found = resource(&segments(path).unwrap());
        let found = found.as_ref().map(|path| {
            [&path.group, &path.version, &path.namespace, &path.resource, &path.name, &path.subresource]
                .map(String::as_str)
        });
        assert_eq!(found, expected, "{path}");
    }

    #[test]
    fn paths_mean_what_they_mean_in_kubernetes() {
        check("/api/v1/pods", Some(["", "v1", "", "pods", "", ""]));
        check("/api/v1/namespaces", Some(["", "v1", "", "namespaces", "", ""]));
        check("/api/v1/namespaces/a", Some(["", "v1", "a", "namespaces", "a", ""]));
        check("/api/v1/namespaces/a/finalize", Some(["", "v1", "a", "namespaces", "a", "finalize"]));
        check("/api/v1/namespaces/a/pods/p/log", Some(["", "v1", "a", "pods", "p", "log"]));
        check("/apis/apps/v1/namespaces/a/deployments/d", Some(["apps", "v1", "a", "deployments", "d", ""]));
        check("/apis/apps/v1/deployments/", Some(["apps", "v1", "", "deployments", "", ""]));
        check("/api/v1/nodes/a%2Fb", Some(["", "v1", "", "nodes", "a/b", ""]));
        check("/api/v1/watch/namespaces/a/pods/p", Some(["", "v1", "a", "pods", "p", ""]));
        check("/apis/apps/v1/watch/deployments", Some(["apps", "v1", "", "deployments", "", ""]));
        check("/api/v1/watch/namespaces/a", Some(["", "v1", "a", "namespaces", "a", ""]));
        for path in ["/", "/api", "/api/v1", "/apis/apps", "/apis/apps/v1", "/version", "/apiv1/pods"] {
            check(path, None);
        }
    }
}
