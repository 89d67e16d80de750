//! A binding: which role which subjects have, and how that reads.
//!
//! Source: `appliesTo` and `describeSubject` in Kubernetes' `pkg/registry/rbac/validation`.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;

use crate::registry::UserInfo;

/// What user names of service accounts begin with; namespace and name follow.
const ACCOUNT: &str = "system:serviceaccount:";

/// What kind of role a binding refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RoleKind {
    /// A Role in the binding's namespace.
    Role,
    /// A ClusterRole.
    ClusterRole,
}

/// Who has what a binding gives.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    User(Box<str>),
    Group(Box<str>),
    Account { namespace: Box<str>, name: Box<str> },
}

/// A RoleBinding or, without a namespace, a ClusterRoleBinding.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Binding {
    pub(crate) namespace: Box<str>,
    pub(crate) name: Box<str>,
    pub(crate) kind: RoleKind,
    pub(crate) role: Box<str>,
    pub(crate) subjects: Box<[Subject]>,
}

/// The part of a binding that counts.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BindingText<'t> {
    #[serde(borrow)]
    role_ref: RoleRefText<'t>,
    #[serde(default, borrow)]
    subjects: Option<Vec<SubjectText<'t>>>,
}

#[derive(Deserialize)]
struct RoleRefText<'t> {
    #[serde(default, borrow)]
    kind: Cow<'t, str>,
    #[serde(default, borrow)]
    name: Cow<'t, str>,
}

#[derive(Deserialize)]
struct SubjectText<'t> {
    #[serde(default, borrow)]
    kind: Cow<'t, str>,
    #[serde(default, borrow)]
    namespace: Cow<'t, str>,
    #[serde(default, borrow)]
    name: Cow<'t, str>,
}

impl Binding {
    /// Reads one; `key` is `NAMESPACE/NAME` or `NAME`. `None` for a text that is no binding.
    pub(crate) fn read(key: &str, json: &[u8]) -> Option<Self> {
        let (namespace, name) = key.split_once('/').unwrap_or(("", key));
        let text: BindingText<'_> = serde_json::from_slice(json).ok()?;
        let kind = match &*text.role_ref.kind {
            "Role" => RoleKind::Role,
            "ClusterRole" => RoleKind::ClusterRole,
            _ => return None,
        };
        let subjects = text.subjects.iter().flatten().filter_map(|subject| Subject::of(subject, namespace)).collect();
        Some(Self {
            namespace: namespace.into(),
            name: name.into(),
            kind,
            role: text.role_ref.name.as_ref().into(),
            subjects,
        })
    }

    /// Why a user is allowed what its role allows.
    pub(crate) fn reason(&self, user: &UserInfo) -> String {
        let subject = self.subjects.iter().find(|subject| subject.is(user));
        let subject = subject.map(ToString::to_string).unwrap_or_default();
        let (kind, name) = match &*self.namespace {
            "" => ("ClusterRoleBinding", self.name.to_string()),
            namespace => ("RoleBinding", format!("{}/{namespace}", self.name)),
        };
        format!("RBAC: allowed by {kind} {name:?} of {} {:?} to {subject}", self.kind.name(), self.role)
    }
}

impl RoleKind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Role => "Role",
            Self::ClusterRole => "ClusterRole",
        }
    }
}

impl Subject {
    /// An account without a namespace is one of the binding's; in a ClusterRoleBinding it is nobody.
    fn of(text: &SubjectText<'_>, own: &str) -> Option<Self> {
        let name = text.name.as_ref().into();
        Some(match (&*text.kind, &*text.namespace) {
            ("User", _) => Self::User(name),
            ("Group", _) => Self::Group(name),
            ("ServiceAccount", "") if own.is_empty() => return None,
            ("ServiceAccount", "") => Self::Account { namespace: own.into(), name },
            ("ServiceAccount", namespace) => Self::Account { namespace: namespace.into(), name },
            _ => return None,
        })
    }

    fn is(&self, user: &UserInfo) -> bool {
        match self {
            Self::User(name) => user.name == **name,
            Self::Group(name) => user.in_group(name),
            Self::Account { .. } => Some(&*user.name) == self.user_name().as_deref(),
        }
    }

    /// The user that it is; `None` for a group.
    pub(crate) fn user_name(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::User(name) => Some(Cow::Borrowed(name)),
            Self::Account { namespace, name } => Some(Cow::Owned(format!("{ACCOUNT}{namespace}:{name}"))),
            Self::Group(_) => None,
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(name) => write!(out, "User {name:?}"),
            Self::Group(name) => write!(out, "Group {name:?}"),
            // In this order.
            Self::Account { namespace, name } => write!(out, "ServiceAccount {:?}", format!("{name}/{namespace}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn why_somebody_is_allowed_reads_as_in_kubernetes() {
        let text = json!({
            "roleRef": {"kind": "ClusterRole", "name": "view"},
            "subjects": [
                {"kind": "User", "name": "ann"}, {"kind": "Group", "name": "dev"},
                {"kind": "ServiceAccount", "name": "robot"}, {"kind": "Other", "name": "ann"},
            ],
        });
        let binding = Binding::read("shop/viewers", text.to_string().as_bytes()).unwrap();
        let reason = |name: &str, group: &str| binding.reason(&UserInfo::new(name, &[group]));
        let of = "RBAC: allowed by RoleBinding \"viewers/shop\" of ClusterRole \"view\" to";
        assert_eq!(reason("ann", "dev"), format!("{of} User \"ann\""));
        assert_eq!(reason("bob", "dev"), format!("{of} Group \"dev\""));
        let robot = reason("system:serviceaccount:shop:robot", "x");
        assert_eq!(robot, format!("{of} ServiceAccount \"robot/shop\""));
        let binding = Binding::read("viewers", text.to_string().as_bytes()).unwrap();
        assert_eq!(binding.subjects.len(), 2, "an account without a namespace is nobody in a ClusterRoleBinding");
        let reason = binding.reason(&UserInfo::new("ann", &[]));
        assert_eq!(reason, "RBAC: allowed by ClusterRoleBinding \"viewers\" of ClusterRole \"view\" to User \"ann\"");
    }
}
