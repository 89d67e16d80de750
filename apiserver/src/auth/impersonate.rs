//! Acting as somebody else: `Impersonate-User` and what belongs to it (`kubectl --as`, `--as-group`, `--as-uid`).
//!
//! Every user, group, uid and further fact that is claimed needs the verb `impersonate` on it; whoever may not is
//! refused, never served as who they are. Source: `pkg/endpoints/filters/impersonation` of k8s.io/apiserver.

use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;
use reeve_api::names;

use super::{ANONYMOUS, AUTHENTICATED, Target, UNAUTHENTICATED};
use crate::registry::UserInfo;
use crate::status::ApiError;

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA: &str = "impersonate-extra-";

/// What user names of service accounts begin with; namespace and name follow.
const ACCOUNT: &str = "system:serviceaccount:";

/// One claim of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Claim {
    Account { namespace: String, name: String },
    User(String),
    Group(String),
    Extra { key: String, value: String },
    Uid(String),
}

/// Whom a request wants to act as.
#[derive(Debug)]
pub(crate) struct Impersonation(Vec<Claim>);

impl Impersonation {
    /// Reads the headers of a request; `None` when it acts as itself.
    ///
    /// # Errors
    /// When something is claimed of nobody.
    pub(crate) fn asked(headers: &HeaderMap) -> Result<Option<Self>, ApiError> {
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let first = |name| headers.get(name).map(text).filter(|value| !value.is_empty());
        let mut claims = Vec::new();
        let user = first(USER);
        claims.extend(user.iter().map(|user| match account(user) {
            Some((namespace, name)) => Claim::Account { namespace: namespace.to_owned(), name: name.to_owned() },
            None => Claim::User(user.clone()),
        }));
        claims.extend(headers.get_all(GROUP).iter().map(|group| Claim::Group(text(group))));
        for (header, value) in headers {
            // Header names are in lower case here.
            if let Some(key) = header.as_str().strip_prefix(EXTRA) {
                let key = percent_decode_str(key).decode_utf8().map_or_else(|_| key.to_owned(), String::from);
                claims.push(Claim::Extra { key, value: text(value) });
            }
        }
        claims.extend(first(UID).map(Claim::Uid));
        if user.is_none() && !claims.is_empty() {
            let claims: Vec<String> = claims.iter().map(Claim::shown).collect();
            let claims = claims.join(" ");
            return Err(ApiError::bad_request(format!("requested [{claims}] without impersonating a user")));
        }
        Ok((!claims.is_empty()).then_some(Self(claims)))
    }

    /// Everything on which the verb `impersonate` is needed, in order.
    pub(crate) fn targets(&self) -> impl Iterator<Item = Target<'_>> {
        self.0.iter().map(Claim::target)
    }

    /// The user as who the request is served once all of it is allowed.
    pub(crate) fn user(self) -> UserInfo {
        let has_groups = self.0.iter().any(|claim| matches!(claim, Claim::Group(_)));
        let mut user = UserInfo::default();
        for claim in self.0 {
            match claim {
                Claim::Account { namespace, name } => {
                    user.name = format!("{ACCOUNT}{namespace}:{name}");
                    if !has_groups {
                        let of_namespace = format!("system:serviceaccounts:{namespace}");
                        user.groups.extend(["system:serviceaccounts".to_owned(), of_namespace]);
                    }
                }
                Claim::User(name) => user.name = name,
                Claim::Group(group) => user.groups.push(group),
                Claim::Extra { key, value } => user.extra.entry(key).or_default().push(value),
                Claim::Uid(uid) => user.uid = uid,
            }
        }
        let added = match user.name.as_str() {
            ANONYMOUS if !user.in_group(UNAUTHENTICATED) => Some(UNAUTHENTICATED),
            ANONYMOUS => None,
            _ if user.in_group(AUTHENTICATED) || user.in_group(UNAUTHENTICATED) => None,
            _ => Some(AUTHENTICATED),
        };
        user.groups.extend(added.map(str::to_owned));
        user
    }
}

/// Takes the claims away: nobody behind this server is to act on them.
pub(crate) fn strip(headers: &mut HeaderMap) {
    let is_claim = |name: &&HeaderName| [USER, GROUP, UID].contains(&name.as_str()) || name.as_str().starts_with(EXTRA);
    let claims: Vec<HeaderName> = headers.keys().filter(is_claim).cloned().collect();
    claims.iter().for_each(|name| drop(headers.remove(name)));
}

/// Namespace and name in the user name of a service account.
fn account(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix(ACCOUNT)?.split_once(':')?;
    let is_valid = names::dns1123_label(namespace).is_empty() && names::dns1123_subdomain(name).is_empty();
    is_valid.then_some((namespace, name))
}

impl Claim {
    fn target(&self) -> Target<'_> {
        let (group, resource, subresource, namespace, name) = match self {
            Self::Account { namespace, name } => ("", "serviceaccounts", "", namespace.as_str(), name),
            Self::User(name) => ("", "users", "", "", name),
            Self::Group(name) => ("", "groups", "", "", name),
            Self::Extra { key, value } => ("authentication.k8s.io", "userextras", key.as_str(), "", value),
            Self::Uid(uid) => ("authentication.k8s.io", "uids", "", "", uid),
        };
        Target::Resource { group, resource, subresource, namespace, name, field_selector: "" }
    }

    /// As Go prints the reference by which Kubernetes carries a claim about.
    fn shown(&self) -> String {
        const VERSION: &str = "authentication.k8s.io/v1";
        let (kind, namespace, name, version, path) = match self {
            Self::Account { namespace, name } => ("ServiceAccount", namespace.as_str(), name, "", ""),
            Self::User(name) => ("User", "", name, "", ""),
            Self::Group(name) => ("Group", "", name, "", ""),
            Self::Extra { key, value } => ("UserExtra", "", value, VERSION, key.as_str()),
            Self::Uid(uid) => ("UID", "", uid, VERSION, ""),
        };
        format!("{{{kind} {namespace} {name}  {version}  {path}}}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        pairs.collect()
    }

    fn asked(pairs: &[(&'static str, &'static str)]) -> Impersonation {
        let map = headers(&[]);
        let map = pairs.iter().fold(map, |mut map, (name, value)| {
            map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
            map
        });
        Impersonation::asked(&map).unwrap().unwrap()
    }

    #[test]
    fn a_user_has_the_groups_that_are_named_and_that_of_everybody_proven() {
        let user =
            asked(&[(USER, "ann"), (GROUP, "dev"), (GROUP, "ops"), (UID, "7"), ("impersonate-extra-a%2fb", "c")]);
        let user = user.user();
        assert_eq!((user.name.as_str(), user.uid.as_str()), ("ann", "7"));
        assert_eq!(user.groups, ["dev", "ops", AUTHENTICATED]);
        assert_eq!(user.extra["a/b"], ["c"]);
        assert_eq!(asked(&[(USER, "ann"), (GROUP, UNAUTHENTICATED)]).user().groups, [UNAUTHENTICATED]);
        assert_eq!(asked(&[(USER, ANONYMOUS)]).user().groups, [UNAUTHENTICATED]);
    }

    #[test]
    fn a_service_account_has_its_groups_unless_others_are_named() {
        let account = || (USER, "system:serviceaccount:ns:sa");
        let user = asked(&[account()]).user();
        assert_eq!(user.name, "system:serviceaccount:ns:sa");
        assert_eq!(user.groups, ["system:serviceaccounts", "system:serviceaccounts:ns", AUTHENTICATED]);
        assert_eq!(asked(&[account(), (GROUP, "x")]).user().groups, ["x", AUTHENTICATED]);
        let target = asked(&[account()]).targets().next().map(|target| format!("{target:?}")).unwrap();
        assert!(target.contains("\"serviceaccounts\"") && target.contains("\"ns\""), "{target}");
    }

    #[test]
    fn each_claim_needs_a_permission_of_its_own() {
        let all = asked(&[(USER, "ann"), (GROUP, "dev"), ("impersonate-extra-k", "v"), (UID, "7")]);
        let resources = all.targets().map(|target| match target {
            Target::Resource { resource, name, .. } => format!("{resource} {name}"),
            Target::Path(path) => path.to_owned(),
        });
        assert_eq!(resources.collect::<Vec<_>>(), ["users ann", "groups dev", "userextras v", "uids 7"]);
    }

    #[test]
    fn claims_about_nobody_are_refused_and_no_claims_are_none() {
        assert!(Impersonation::asked(&headers(&[])).unwrap().is_none());
        assert!(Impersonation::asked(&headers(&[(USER, "")])).unwrap().is_none());
        let error = Impersonation::asked(&headers(&[(GROUP, "dev")])).unwrap_err();
        assert_eq!(
            (error.code, error.message.as_str()),
            (400, "requested [{Group  dev    }] without impersonating a user")
        );
    }
}
