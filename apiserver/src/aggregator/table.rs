//! The APIServices made ready to be used, once per change.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reeve_kinds::compare_versions;
use serde_json::Value;

use super::priorities::{Priority, REGISTRATION};
use crate::cache::Snapshot;
use crate::outbound::{Caller, Place, Services, Trust};
use crate::pki::LiveCertificate;
use crate::registry::meta;

/// Kubernetes' default, for objects that were stored without.
const PORT: u16 = 443;

/// A group and version and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) priority: Priority,
}

impl Listed {
    /// The name of its APIService.
    pub(crate) fn name(&self) -> String {
        format!("{}.{}", self.version, self.group)
    }
}

/// Where another server is, and whom it must prove to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) namespace: String,
    pub(crate) service: String,
    pub(crate) port: u16,
    insecure: bool,
    ca_bundle: Vec<u8>,
}

/// A server that serves a group and version instead of this one.
pub(crate) struct Backend {
    /// The APIService's name.
    pub(crate) name: String,
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) priority: Priority,
    pub(crate) target: Target,
    /// As its APIService says.
    pub(crate) is_available: bool,
    /// Its connections; `Err` says why it cannot be called.
    pub(crate) caller: Result<Caller, String>,
}

/// All APIServices at one moment.
pub(crate) struct Table {
    pub(crate) of: Arc<Snapshot>,
    /// All of them, this server's own ones too.
    pub(crate) listed: Vec<Listed>,
    /// By group.
    backends: HashMap<String, Vec<Arc<Backend>>>,
}

/// What calls are made with.
pub(super) type Means<'m> = (Option<&'m Arc<Services>>, &'m Arc<LiveCertificate>);

impl Table {
    /// Of these objects. The connections that `before` has to the same servers stay.
    pub(super) fn new(of: Arc<Snapshot>, before: Option<&Self>, means: Means<'_>) -> Self {
        let mut backends: HashMap<String, Vec<Arc<Backend>>> = HashMap::new();
        let mut listed = Vec::new();
        for object in of.objects.values().map(|object| object.value()) {
            let one = listed_of(&object["spec"]);
            // Whoever gives that away could never take it back.
            let is_fixed = (one.group.as_str(), one.version.as_str()) == (REGISTRATION.0, REGISTRATION.1);
            if let Some(target) = target(&object["spec"]).filter(|_| !is_fixed) {
                let backend = backend(&object, &one, target, before, means);
                backends.entry(one.group.clone()).or_default().push(Arc::new(backend));
            }
            listed.push(one);
        }
        Self { of, listed, backends }
    }

    /// Who serves a group and version instead of this server.
    pub(crate) fn backend(&self, group: &str, version: &str) -> Option<&Arc<Backend>> {
        if self.backends.is_empty() {
            return None;
        }
        self.backends.get(group)?.iter().find(|own| own.version == version)
    }

    pub(crate) fn has_backends(&self) -> bool {
        !self.backends.is_empty()
    }

    pub(crate) fn backends(&self) -> impl Iterator<Item = &Arc<Backend>> {
        self.backends.values().flatten()
    }
}

fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_default().to_owned()
}

/// What an APIService says of its group and version.
pub(super) fn listed_of(spec: &Value) -> Listed {
    let number = |field: &str| spec[field].as_i64().unwrap_or_default();
    let priority = Priority { group: number("groupPriorityMinimum"), version: number("versionPriority") };
    Listed { group: text(spec, "group"), version: text(spec, "version"), priority }
}

/// Where the server is; `None` when it is this one.
fn target(spec: &Value) -> Option<Target> {
    let service = spec.get("service").filter(|service| service.is_object())?;
    let port = service["port"].as_u64().and_then(|port| u16::try_from(port).ok()).unwrap_or(PORT);
    Some(Target {
        namespace: text(service, "namespace"),
        service: text(service, "name"),
        port,
        insecure: spec["insecureSkipTLSVerify"] == true,
        ca_bundle: STANDARD.decode(text(spec, "caBundle")).unwrap_or_default(),
    })
}

/// Whether an APIService says that it can be used.
pub(super) fn is_available(object: &Value) -> bool {
    let mut conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    conditions.rfind(|one| one["type"] == "Available").is_some_and(|one| one["status"] == "True")
}

fn backend(
    object: &Value,
    listed: &Listed,
    target: Target,
    before: Option<&Table>,
    (outbound, own): Means<'_>,
) -> Backend {
    let mut known = before.into_iter().flat_map(Table::backends);
    let known = known.find(|known| known.target == target).and_then(|known| known.caller.as_ref().ok());
    let caller = match (known, outbound) {
        (Some(caller), _) => Ok(caller.clone()),
        (None, None) => Err("Services are not served".to_owned()),
        (None, Some(services)) => {
            let Target { namespace, service: name, port, .. } = target.clone();
            let trust = Trust {
                ca_bundle: target.ca_bundle.clone(),
                insecure: target.insecure,
                server_name: None,
                own: Some(Arc::clone(own)),
            };
            Caller::new(Place::Service { namespace, name, port }, &trust, services).map_err(|error| error.to_string())
        }
    };
    Backend {
        name: meta::text(object, "name").to_owned(),
        group: listed.group.clone(),
        version: listed.version.clone(),
        priority: listed.priority,
        target,
        is_available: is_available(object),
        caller,
    }
}

/// Groups with their versions, in the order of the list of groups: a group stands where its first APIService stands by
/// priority and then by name, versions by priority and then by age.
pub(crate) fn in_order(mut all: Vec<Listed>) -> Vec<(String, Vec<Listed>)> {
    all.sort_by_cached_key(|one| (Reverse(one.priority.group), one.name()));
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    let mut groups: Vec<(String, Vec<Listed>)> = Vec::new();
    for one in all {
        let place = *places.entry(one.group.clone()).or_insert(groups.len());
        match groups.get_mut(place) {
            Some((_, versions)) => versions.push(one),
            None => groups.push((one.group.clone(), vec![one])),
        }
    }
    for (_, versions) in &mut groups {
        versions.sort_by(|a, b| by_version((a.priority, &a.version), (b.priority, &b.version)));
    }
    groups
}

/// The order of two versions of a group.
pub(crate) fn by_version((a, one): (Priority, &str), (b, other): (Priority, &str)) -> std::cmp::Ordering {
    b.version.cmp(&a.version).then_with(|| compare_versions(one, other))
}

#[cfg(test)]
pub(super) fn tests_target(namespace: &str, service: &str, port: u16) -> Target {
    let (namespace, service) = (namespace.to_owned(), service.to_owned());
    Target { namespace, service, port, insecure: false, ca_bundle: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(group: &str, version: &str, (of_group, of_version): (i64, i64)) -> Listed {
        let priority = Priority { group: of_group, version: of_version };
        Listed { group: group.to_owned(), version: version.to_owned(), priority }
    }

    #[test]
    fn groups_stand_by_their_highest_priority_and_then_by_the_name_of_their_api_service() {
        let all = vec![
            listed("b.example.com", "v1", (1000, 100)),
            listed("a.example.com", "v1beta1", (1000, 100)),
            listed("late.example.com", "v1", (100, 10)),
            listed("late.example.com", "v2", (2000, 10)),
            listed("late.example.com", "v3alpha1", (100, 900)),
        ];
        let told: Vec<String> = in_order(all)
            .into_iter()
            .map(|(group, versions)| {
                let versions: Vec<String> = versions.into_iter().map(|one| one.version).collect();
                format!("{group}: {}", versions.join(" "))
            })
            .collect();
        // `v1.b…` stands before `v1beta1.a…`.
        assert_eq!(told, ["late.example.com: v3alpha1 v2 v1", "b.example.com: v1", "a.example.com: v1beta1"]);
    }
}
