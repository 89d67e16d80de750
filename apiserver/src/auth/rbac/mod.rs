//! The RBAC authorizer: Roles and ClusterRoles, and the bindings that say who has them.
//!
//! An index of all four kinds is kept from the watch cache's changes, and brought up to date before any watcher is told
//! of a change; a write of one is acknowledged when it is in. A question costs as much as the user has bindings,
//! however many others there are: user and groups → bindings → role → rules. Source: `VisitRulesFor` in Kubernetes'
//! `pkg/registry/rbac/validation`. What is not here: which roles a cluster starts with (`reconcile`, and the table in
//! [`reeve_kinds::bootstrap`]), and what may be granted (`escalation`).

mod binding;
pub(crate) mod escalation;
pub(crate) mod reconcile;
mod rule;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use imbl::OrdMap;
use serde::Deserialize;

use super::authorizer::{Attributes, Decision, Grant, KnownRule, KnownRules, Target};
use crate::cache::Follower;
use crate::registry::{Object, UserInfo};

pub(crate) use binding::{Binding, RoleKind};
use rule::RuleText;
pub(crate) use rule::{Rule, covers_url};

/// The group of the four kinds.
pub(crate) const GROUP: &str = "rbac.authorization.k8s.io";

/// What a role allows.
type Rules = Box<[Rule]>;

/// All roles and bindings. One per API server; written by the cache's feed alone.
#[derive(Debug, Default)]
pub(crate) struct Rbac {
    state: RwLock<State>,
}

/// The four kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sort {
    ClusterRoles,
    Roles,
    ClusterBindings,
    Bindings,
}

/// Keeps one of the four kinds in the index.
struct Kept {
    rbac: Arc<Rbac>,
    sort: Sort,
}

#[derive(Debug, Default)]
struct State {
    cluster_roles: HashMap<Box<str>, Rules>,
    /// By namespace, then by name.
    roles: HashMap<Box<str>, HashMap<Box<str>, Rules>>,
    cluster_bindings: Scope,
    /// By namespace.
    bindings: HashMap<Box<str>, Scope>,
}

/// The bindings of a namespace, or of the cluster.
#[derive(Debug, Default)]
struct Scope {
    all: BTreeMap<Box<str>, Arc<Binding>>,
    users: HashMap<Box<str>, Vec<Arc<Binding>>>,
    groups: HashMap<Box<str>, Vec<Arc<Binding>>>,
}

/// The part of a role that counts.
#[derive(Deserialize)]
struct RoleText {
    rules: Option<Vec<RuleText>>,
}

/// A role that a binding refers to and that is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NoRole {
    pub(crate) kind: RoleKind,
    pub(crate) name: Box<str>,
}

impl NoRole {
    /// As the authorizer says it.
    fn shown(&self) -> String {
        format!("{}.{GROUP} {:?} not found", self.kind.name().to_ascii_lowercase(), self.name)
    }
}

/// What a user has by all of his bindings.
#[derive(Debug, Default)]
pub(crate) struct Held {
    pub(crate) rules: Vec<KnownRule>,
    pub(crate) missing: Vec<NoRole>,
}

impl Rbac {
    /// What keeps the index true with the storage of that prefix, if it is one of the four.
    pub(crate) fn follower(self: &Arc<Self>, prefix: &[u8]) -> Option<Arc<dyn Follower>> {
        let sort = match prefix.strip_prefix(b"/registry/rbac.authorization.k8s.io/")? {
            b"clusterroles/" => Sort::ClusterRoles,
            b"roles/" => Sort::Roles,
            b"clusterrolebindings/" => Sort::ClusterBindings,
            b"rolebindings/" => Sort::Bindings,
            _ => return None,
        };
        Some(Arc::new(Kept { rbac: Arc::clone(self), sort }))
    }

    /// Whether a role speaks for the request. Looks at bindings in the whole cluster, then at those of the namespace.
    pub(crate) fn decide(&self, asked: &Attributes<'_>) -> Decision {
        let state = self.read();
        let mut missing = Vec::new();
        for (namespace, scope) in state.scopes(asked.target.namespace()) {
            for binding in scope.of(asked.user) {
                match state.rules(binding.kind, namespace, &binding.role) {
                    Some(rules) if rules.iter().any(|rule| rule.allows(asked)) => {
                        return Decision::Allowed(Grant::by(binding));
                    }
                    Some(_) => {}
                    None => missing.push(NoRole { kind: binding.kind, name: binding.role.clone() }),
                }
            }
        }
        match missing.is_empty() {
            true => Decision::silent(),
            false => Decision::refuse(format!("RBAC: {}", together(missing.iter().map(NoRole::shown)))),
        }
    }

    /// Everything that roles allow a user in a namespace and in the whole cluster, each binding once.
    pub(crate) fn held(&self, user: &UserInfo, namespace: &str) -> Held {
        let state = self.read();
        let mut held = Held::default();
        for (namespace, scope) in state.scopes(namespace) {
            let bindings: BTreeMap<_, _> = scope.of(user).map(|binding| (&binding.name, binding)).collect();
            for binding in bindings.values() {
                match state.rules(binding.kind, namespace, &binding.role) {
                    Some(rules) => held.rules.extend(rules.iter().map(Rule::known)),
                    None => held.missing.push(NoRole { kind: binding.kind, name: binding.role.clone() }),
                }
            }
        }
        held
    }

    /// The same for people to read.
    pub(crate) fn known(&self, user: &UserInfo, namespace: &str) -> KnownRules {
        let held = self.held(user, namespace);
        let error = together(held.missing.iter().map(NoRole::shown));
        KnownRules { rules: held.rules, incomplete: false, error }
    }

    /// What a role allows; `None` when it is not there.
    pub(crate) fn role(&self, kind: RoleKind, namespace: &str, name: &str) -> Option<Vec<KnownRule>> {
        Some(self.read().rules(kind, namespace, name)?.iter().map(Rule::known).collect())
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Follower for Kept {
    fn put(&self, key: &Bytes, now: Option<&Object>) {
        let Ok(key) = std::str::from_utf8(key) else { return };
        // Read before the lock is taken.
        let read = now.map(|object| Read::of(self.sort, key, object));
        self.rbac.write().put(self.sort, key, read);
    }

    fn reset(&self, objects: &OrdMap<Bytes, Object>) {
        let all: Vec<_> = objects
            .iter()
            .filter_map(|(key, object)| {
                let key = std::str::from_utf8(key).ok()?;
                Some((key, Read::of(self.sort, key, object)))
            })
            .collect();
        let mut state = self.rbac.write();
        state.clear(self.sort);
        all.into_iter().for_each(|(key, read)| state.put(self.sort, key, Some(read)));
    }
}

/// An object as it goes into the index.
enum Read {
    Role(Rules),
    /// `None`: it binds nobody to anything.
    Binding(Option<Binding>),
}

impl Read {
    fn of(sort: Sort, key: &str, object: &Object) -> Self {
        match sort {
            Sort::ClusterRoles | Sort::Roles => {
                let text: Option<RoleText> = serde_json::from_slice(object.text()).ok();
                let rules = text.and_then(|text| text.rules).unwrap_or_default();
                Self::Role(rules.iter().filter_map(Rule::of).collect())
            }
            Sort::ClusterBindings | Sort::Bindings => Self::Binding(Binding::read(key, object.text())),
        }
    }
}

impl State {
    fn clear(&mut self, sort: Sort) {
        match sort {
            Sort::ClusterRoles => self.cluster_roles.clear(),
            Sort::Roles => self.roles.clear(),
            Sort::ClusterBindings => self.cluster_bindings = Scope::default(),
            Sort::Bindings => self.bindings.clear(),
        }
    }

    /// Takes in the new state of one object; `None`: it is gone.
    fn put(&mut self, sort: Sort, key: &str, now: Option<Read>) {
        let (namespace, name) = key.split_once('/').unwrap_or(("", key));
        match (sort, now) {
            (Sort::ClusterRoles, Some(Read::Role(rules))) => drop(self.cluster_roles.insert(name.into(), rules)),
            (Sort::ClusterRoles, _) => drop(self.cluster_roles.remove(name)),
            (Sort::Roles, Some(Read::Role(rules))) => {
                self.roles.entry(namespace.into()).or_default().insert(name.into(), rules);
            }
            (Sort::Roles, _) => {
                if let Some(roles) = self.roles.get_mut(namespace) {
                    roles.remove(name);
                    if roles.is_empty() {
                        self.roles.remove(namespace);
                    }
                }
            }
            (Sort::ClusterBindings, now) => self.cluster_bindings.put(name, now),
            (Sort::Bindings, now) => {
                let scope = self.bindings.entry(namespace.into()).or_default();
                scope.put(name, now);
                if scope.all.is_empty() {
                    self.bindings.remove(namespace);
                }
            }
        }
    }

    /// The bindings that count in a namespace (empty: in the whole cluster), with the namespace of their roles.
    fn scopes<'s>(&'s self, namespace: &'s str) -> impl Iterator<Item = (&'s str, &'s Scope)> {
        let own = if namespace.is_empty() { None } else { self.bindings.get(namespace) };
        std::iter::once(("", &self.cluster_bindings)).chain(own.map(|scope| (namespace, scope)))
    }

    fn rules(&self, kind: RoleKind, namespace: &str, name: &str) -> Option<&Rules> {
        match kind {
            RoleKind::ClusterRole => self.cluster_roles.get(name),
            RoleKind::Role => self.roles.get(namespace)?.get(name),
        }
    }
}

impl Scope {
    fn put(&mut self, name: &str, now: Option<Read>) {
        if let Some(gone) = self.all.remove(name) {
            for (list, subject) in entries(&gone) {
                forget(self.list(list), &subject, name);
            }
        }
        let Some(Read::Binding(Some(binding))) = now else { return };
        let binding = Arc::new(binding);
        for (list, subject) in entries(&binding) {
            let bindings = self.list(list).entry(subject).or_default();
            // A subject may stand twice in a binding.
            if let Err(at) = bindings.binary_search_by(|other| other.name.cmp(&binding.name)) {
                bindings.insert(at, Arc::clone(&binding));
            }
        }
        self.all.insert(name.into(), binding);
    }

    fn list(&mut self, list: Who) -> &mut HashMap<Box<str>, Vec<Arc<Binding>>> {
        match list {
            Who::User => &mut self.users,
            Who::Group => &mut self.groups,
        }
    }

    /// The bindings of a user, one that is bound in several ways as often.
    fn of<'s>(&'s self, user: &'s UserInfo) -> impl Iterator<Item = &'s Arc<Binding>> {
        let own = self.users.get(user.name.as_str());
        let of_groups = user.groups.iter().filter_map(|group| self.groups.get(group.as_str()));
        own.into_iter().chain(of_groups).flatten()
    }
}

/// In which list a subject stands.
#[derive(Debug, Clone, Copy)]
enum Who {
    User,
    Group,
}

fn entries(binding: &Binding) -> Vec<(Who, Box<str>)> {
    let entry = |subject: &binding::Subject| match (subject, subject.user_name()) {
        (binding::Subject::Group(name), _) => (Who::Group, name.clone()),
        (_, user) => (Who::User, user.unwrap_or_default().into()),
    };
    binding.subjects.iter().map(entry).collect()
}

fn forget(list: &mut HashMap<Box<str>, Vec<Arc<Binding>>>, subject: &str, binding: &str) {
    let Some(bindings) = list.get_mut(subject) else { return };
    bindings.retain(|own| *own.name != *binding);
    if bindings.is_empty() {
        list.remove(subject);
    }
}

/// Several complaints as Kubernetes writes them in one.
pub(crate) fn together(complaints: impl Iterator<Item = String>) -> String {
    let mut all: Vec<String> = Vec::new();
    for complaint in complaints {
        if !all.contains(&complaint) {
            all.push(complaint);
        }
    }
    if all.len() > 1 { format!("[{}]", all.join(", ")) } else { all.concat() }
}

impl Target<'_> {
    /// Empty for paths.
    fn namespace(&self) -> &str {
        match self {
            Self::Path(_) => "",
            Self::Resource { namespace, .. } => namespace,
        }
    }
}

#[cfg(test)]
mod tests;
