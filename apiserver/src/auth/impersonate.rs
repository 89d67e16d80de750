//! Acting as somebody else: `Impersonate-User` and what belongs to it (`kubectl --as`, `--as-group`, `--as-uid`).
//!
//! Two ways lead there. By the old one, every user, group, uid and further fact that is claimed needs the verb
//! `impersonate` on it. By the constrained ones a right is about a sort of users (`impersonate:serviceaccount`) and a
//! second one about the request that is made in their name (`impersonate-on:serviceaccount:list`). Whoever may by none
//! of them is refused, never served as who they are. Source: `pkg/endpoints/filters/impersonation` of
//! k8s.io/apiserver, feature `ConstrainedImpersonation` (KEP-5284).

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;
use reeve_api::names;

use super::{ANONYMOUS, AUTHENTICATED, Attributes, MASTERS, NODES, Target, UNAUTHENTICATED};
use crate::registry::UserInfo;
use crate::status::ApiError;

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA: &str = "impersonate-extra-";

/// What user names of service accounts begin with; namespace and name follow.
const ACCOUNT: &str = "system:serviceaccount:";

/// What user names of nodes begin with; the name follows.
const NODE: &str = "system:node:";

/// The fact that tells on which node a service account's pod runs.
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";

/// API group of the constrained rights, and of uids and further facts in any case.
const AUTHENTICATION: &str = "authentication.k8s.io";

/// From so many claims of a sort on, it is first asked whether all of that sort may be claimed.
const MANY: usize = 4;

/// So many users are remembered at most; then all are forgotten.
const REMEMBERED_MAX: usize = 10_000;

/// A way to act as somebody else, in the order in which they are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// As the node on which the pod of the asking service account runs.
    AssociatedNode,
    /// As any node.
    ArbitraryNode,
    ServiceAccount,
    /// As anybody who is neither node nor service account.
    UserInfo,
    /// The old way.
    Legacy,
}

/// All of them.
pub(crate) const MODES: [Mode; 5] =
    [Mode::AssociatedNode, Mode::ArbitraryNode, Mode::ServiceAccount, Mode::UserInfo, Mode::Legacy];

impl Mode {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::AssociatedNode => "associated-node",
            Self::ArbitraryNode => "arbitrary-node",
            Self::ServiceAccount => "serviceaccount",
            Self::UserInfo => "user-info",
            Self::Legacy => "legacy",
        }
    }

    /// The verb on whom or what is claimed.
    fn verb(self) -> &'static str {
        match self {
            Self::AssociatedNode => "impersonate:associated-node",
            Self::ArbitraryNode => "impersonate:arbitrary-node",
            Self::ServiceAccount => "impersonate:serviceaccount",
            Self::UserInfo => "impersonate:user-info",
            Self::Legacy => "impersonate",
        }
    }

    /// The way that a question with this verb belongs to.
    pub(crate) fn of_verb(verb: &str) -> Self {
        let of_request = verb.strip_prefix("impersonate-on:").and_then(|rest| rest.split_once(':'));
        let is_it = |mode: &Self| mode.verb() == verb || of_request.is_some_and(|(name, _)| mode.name() == name);
        MODES.into_iter().find(is_it).unwrap_or(Self::Legacy)
    }

    fn is_constrained(self) -> bool {
        self != Self::Legacy
    }

    /// The API group of users and groups.
    fn group(self) -> &'static str {
        if self.is_constrained() { AUTHENTICATION } else { "" }
    }
}

/// Whom a request wants to act as, as its headers say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Impersonation {
    name: String,
    uid: String,
    groups: Vec<String>,
    extra: BTreeMap<String, Vec<String>>,
}

/// By which way each user last acted as somebody else: that one is tried first, and what speaks against it is what a
/// refusal tells.
#[derive(Debug, Default)]
pub(crate) struct Remembered(Mutex<HashMap<String, Mode>>);

impl Remembered {
    fn of(&self, user: &str) -> Option<Mode> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(user).copied()
    }

    fn set(&self, user: &str, mode: Mode) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= REMEMBERED_MAX {
            all.clear();
        }
        all.insert(user.to_owned(), mode);
    }
}

/// What is asked of the authorizer: `Err` is the refusal.
type Ask<'a> = &'a dyn Fn(&Attributes<'_>) -> Result<(), ApiError>;

impl Impersonation {
    /// Reads the headers of a request; `None` when it acts as itself.
    ///
    /// # Errors
    /// When something is claimed of nobody.
    pub(crate) fn asked(headers: &HeaderMap) -> Result<Option<Self>, ApiError> {
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let first = |name| headers.get(name).map(text).unwrap_or_default();
        let mut wanted = Self { name: first(USER), uid: first(UID), ..Self::default() };
        wanted.groups = headers.get_all(GROUP).iter().map(text).collect();
        for (header, value) in headers {
            // Header names are in lower case here.
            if let Some(key) = header.as_str().strip_prefix(EXTRA) {
                let key = percent_decode_str(key).decode_utf8().map_or_else(|_| key.to_owned(), String::from);
                wanted.extra.entry(key).or_default().push(text(value));
            }
        }
        if !wanted.name.is_empty() {
            return Ok(Some(wanted));
        }
        if wanted.has_name_alone() {
            return Ok(None);
        }
        Err(ApiError::bad_request(format!("requested {} without impersonating a user name", wanted.shown())))
    }

    /// The user as who the request (`on`) is served.
    ///
    /// # Errors
    /// The first refusal, when none of the ways is open to the user who asks.
    pub(crate) fn user(
        &self,
        on: &Attributes<'_>,
        ask: Ask<'_>,
        last: &Remembered,
    ) -> Result<(UserInfo, Mode), ApiError> {
        let before = last.of(&on.user.name);
        let others = MODES.into_iter().filter(|mode| Some(*mode) != before);
        let mut refusal = None;
        for mode in before.into_iter().chain(others) {
            match self.check(mode, on, ask) {
                None => {}
                Some(Ok(user)) => {
                    if before != Some(mode) {
                        last.set(&on.user.name, mode);
                    }
                    return Ok((user, mode));
                }
                Some(Err(error)) => refusal = refusal.or(Some(error)),
            }
        }
        Err(refusal.unwrap_or_else(|| ApiError::internal("all impersonation modes failed")))
    }

    fn has_name_alone(&self) -> bool {
        self.uid.is_empty() && self.groups.is_empty() && self.extra.is_empty()
    }

    /// Whether a way leads to such a user at all.
    fn is_meant(&self, mode: Mode, requestor: &UserInfo) -> bool {
        let (node, account) = (node(&self.name), account(&self.name));
        match mode {
            Mode::AssociatedNode => {
                let own = requestor.extra.get(NODE_NAME).map(Vec::as_slice);
                let is_own = matches!(own, Some([own]) if Some(own.as_str()) == node);
                self.has_name_alone() && is_own && self::account(&requestor.name).is_some()
            }
            Mode::ArbitraryNode => self.has_name_alone() && node.is_some(),
            Mode::ServiceAccount => self.has_name_alone() && account.is_some(),
            Mode::UserInfo => node.is_none() && account.is_none(),
            Mode::Legacy => true,
        }
    }

    fn check(&self, mode: Mode, on: &Attributes<'_>, ask: Ask<'_>) -> Option<Result<UserInfo, ApiError>> {
        self.is_meant(mode, on.user).then(|| {
            if mode.is_constrained() {
                let verb = format!("impersonate-on:{}:{}", mode.name(), on.verb);
                ask(&Attributes { verb: &verb, ..*on })?;
            }
            let claim = Claim { user: on.user, mode, ask };
            let groups = self.check_name(&claim)?;
            if !self.uid.is_empty() {
                claim.may(AUTHENTICATION, "uids", ("", "", &self.uid))?;
            }
            self.check_groups(&claim)?;
            self.check_extra(&claim)?;
            Ok(self.made(groups))
        })
    }

    /// Gives the groups that the user has if none are claimed.
    fn check_name(&self, claim: &Claim<'_>) -> Result<Vec<String>, ApiError> {
        let group = claim.mode.group();
        if let Some(name) = node(&self.name).filter(|_| claim.mode.is_constrained()) {
            // The right is about all nodes: which one it is follows from who asks.
            let name = if claim.mode == Mode::AssociatedNode { "*" } else { name };
            claim.may(group, "nodes", ("", "", name))?;
            return Ok(vec![NODES.to_owned()]);
        }
        if let Some((namespace, name)) = account(&self.name) {
            claim.may(group, "serviceaccounts", ("", namespace, name))?;
            return Ok(vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")]);
        }
        claim.may(group, "users", ("", "", &self.name)).map(|()| Vec::new())
    }

    fn check_groups(&self, claim: &Claim<'_>) -> Result<(), ApiError> {
        let may = |group: &str| claim.may(claim.mode.group(), "groups", ("", "", group));
        if claim.mode.is_constrained() {
            let refuse = |name, why| Err(claim.refusal(claim.mode.group(), "groups", name, why));
            if self.groups.iter().any(String::is_empty) {
                return refuse("", "impersonating the empty string group is not allowed");
            }
            if self.groups.iter().any(|group| group == MASTERS) {
                return refuse(MASTERS, "impersonating the system:masters group is not allowed");
            }
            if self.groups.len() >= MANY && may("*").is_ok() {
                return Ok(());
            }
        }
        self.groups.iter().try_for_each(|group| may(group))
    }

    fn check_extra(&self, claim: &Claim<'_>) -> Result<(), ApiError> {
        let may = |key: &str, value: &str| claim.may(AUTHENTICATION, "userextras", (key, "", value));
        if claim.mode.is_constrained() {
            if let Some(why) = self.extra.iter().find_map(|(key, values)| wrong_extra(key, values)) {
                return Err(claim.refusal(AUTHENTICATION, "userextras", "", &why));
            }
            let count = self.extra.values().map(Vec::len).sum::<usize>();
            if count >= MANY && may("*", "*").is_ok() {
                return Ok(());
            }
        }
        let mut all = self.extra.iter().flat_map(|(key, values)| values.iter().map(move |value| (key, value)));
        all.try_for_each(|(key, value)| may(key, value))
    }

    /// The user; `groups` when none were claimed.
    fn made(&self, groups: Vec<String>) -> UserInfo {
        let groups = if self.groups.is_empty() { groups } else { self.groups.clone() };
        let (name, uid, extra) = (self.name.clone(), self.uid.clone(), self.extra.clone());
        let mut user = UserInfo { name, uid, groups, extra, ..UserInfo::default() };
        let added = match user.name.as_str() {
            ANONYMOUS if !user.in_group(UNAUTHENTICATED) => Some(UNAUTHENTICATED),
            ANONYMOUS => None,
            _ if user.in_group(AUTHENTICATED) || user.in_group(UNAUTHENTICATED) => None,
            _ => Some(AUTHENTICATED),
        };
        user.groups.extend(added.map(str::to_owned));
        user
    }

    /// As Go prints it.
    fn shown(&self) -> String {
        let list = |texts: &[String]| {
            let texts: Vec<String> = texts.iter().map(|text| format!("{text:?}")).collect();
            format!("[]string{{{}}}", texts.join(", "))
        };
        let groups = if self.groups.is_empty() { "[]string(nil)".to_owned() } else { list(&self.groups) };
        let facts: Vec<String> = self.extra.iter().map(|(key, values)| format!("{key:?}:{}", list(values))).collect();
        let extra = if facts.is_empty() { "(nil)".to_owned() } else { format!("{{{}}}", facts.join(", ")) };
        let (name, uid) = (&self.name, &self.uid);
        format!("&user.DefaultInfo{{Name:{name:?}, UID:{uid:?}, Groups:{groups}, Extra:map[string][]string{extra}}}")
    }
}

/// What is wrong with a further fact, where rights to claim it are constrained.
fn wrong_extra(key: &str, values: &[String]) -> Option<String> {
    if key.is_empty() {
        return Some("impersonating the empty string key in extra is not allowed".to_owned());
    }
    if let Some(why) = wrong_key(key) {
        return Some(format!("impersonating an invalid key in extra is not allowed: {why}"));
    }
    if key.chars().any(char::is_uppercase) {
        return Some(format!("impersonating a non-lowercase key in extra is not allowed: {key:?}"));
    }
    values
        .iter()
        .any(String::is_empty)
        .then(|| "impersonating the empty string value in extra is not allowed".to_owned())
}

/// What is wrong with a path below a domain: `acme.io/foo`. Source: `IsDomainPrefixedPath`.
fn wrong_key(key: &str) -> Option<String> {
    const FIELD: &str = "extra.key";
    const PATH: &str = "Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')";
    let invalid = |value: &str, why: &str| format!("{FIELD}: Invalid value: {value:?}: {why}");
    let Some((host, path)) = key.split_once('/').filter(|(host, path)| !host.is_empty() && !path.is_empty()) else {
        return Some(invalid(key, "must be a domain-prefixed path (such as \"acme.io/foo\")"));
    };
    let mut wrong: Vec<String> = names::dns1123_subdomain(host).iter().map(|why| invalid(host, why)).collect();
    if !path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&byte)) {
        wrong.push(invalid(path, PATH));
    }
    match wrong.as_slice() {
        [] => None,
        [one] => Some(one.clone()),
        several => Some(format!("[{}]", several.join(", "))),
    }
}

/// Who claims something, and by which right.
struct Claim<'c> {
    user: &'c UserInfo,
    mode: Mode,
    ask: Ask<'c>,
}

impl Claim<'_> {
    /// Whether the claim is allowed, by subresource, namespace and name.
    fn may(
        &self,
        group: &str,
        resource: &str,
        (subresource, namespace, name): (&str, &str, &str),
    ) -> Result<(), ApiError> {
        let target = Target::Resource { group, resource, subresource, namespace, name, field_selector: "" };
        (self.ask)(&Attributes { user: self.user, verb: self.mode.verb(), target })
    }

    fn refusal(&self, group: &str, resource: &str, name: &str, why: &str) -> ApiError {
        let (subresource, namespace, field_selector) = ("", "", "");
        let target = Target::Resource { group, resource, subresource, namespace, name, field_selector };
        Attributes { user: self.user, verb: self.mode.verb(), target }.refusal(why)
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

/// The name in the user name of a node.
fn node(user: &str) -> Option<&str> {
    user.strip_prefix(NODE).filter(|name| names::dns1123_subdomain(name).is_empty())
}

#[cfg(test)]
mod tests;
