//! Which kinds of objects the API server has, for the controllers that look at all of them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{APIResource, OwnerReference};
use kube::api::{DynamicObject, PartialObjectMeta};
use kube::core::ApiResource;
use kube::{Api, Client};
use tracing::debug;

use crate::requests::is_not_found;

/// One kind, as the API server describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) resource: ApiResource,
    pub(crate) namespaced: bool,
    /// Whether there is a scale subresource.
    pub(crate) has_scale: bool,
    verbs: Vec<String>,
}

/// What was found out about the API server's kinds.
#[derive(Debug, Default)]
pub(crate) struct Kinds {
    pub(crate) all: Vec<Kind>,
    /// Groups that did not answer.
    pub(crate) failures: Vec<Failure>,
}

/// A group that did not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) group: String,
    /// `metrics.k8s.io/v1: stale GroupVersion discovery: metrics.k8s.io/v1`.
    pub(crate) text: String,
}

impl Kind {
    pub(crate) fn has_verb(&self, verb: &str) -> bool {
        self.verbs.iter().any(|own| own == verb)
    }

    /// `pods`, `deployments.apps`.
    pub(crate) fn group_resource(&self) -> String {
        let resource = &self.resource;
        if resource.group.is_empty() {
            resource.plural.clone()
        } else {
            format!("{}.{}", resource.plural, resource.group)
        }
    }

    /// Objects of the kind; those of one namespace if it has namespaces and one is given.
    pub(crate) fn api(&self, client: &Client, namespace: &str) -> Api<DynamicObject> {
        if self.namespaced && !namespace.is_empty() {
            Api::namespaced_with(client.clone(), namespace, &self.resource)
        } else {
            Api::all_with(client.clone(), &self.resource)
        }
    }

    /// The metadata of all objects of the kind.
    pub(crate) fn metadata_api(&self, client: &Client) -> Api<PartialObjectMeta<DynamicObject>> {
        Api::all_with(client.clone(), &self.resource)
    }

    /// A kind that can do everything.
    #[cfg(test)]
    pub(crate) fn for_tests(group: &str, kind: &str) -> Self {
        let api_version = if group.is_empty() { "v1".to_owned() } else { format!("{group}/v1") };
        let resource = ApiResource {
            group: group.to_owned(),
            version: "v1".to_owned(),
            api_version,
            kind: kind.to_owned(),
            plural: format!("{}s", kind.to_lowercase()),
        };
        let verbs = ["delete", "deletecollection", "get", "list", "watch"].map(str::to_owned).to_vec();
        Self { resource, namespaced: true, has_scale: false, verbs }
    }

    /// Whether an owner reference means this kind, in whatever version.
    pub(crate) fn is_meant_by(&self, owner: &OwnerReference) -> bool {
        let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
        self.resource.kind == owner.kind && self.resource.group == group
    }
}

/// Asks for all kinds, each in the version its group prefers of those that have it.
///
/// # Errors
/// When the list of groups cannot be read. A single group that does not answer is no error, but a failure in
/// the answer.
pub(crate) async fn discover(client: &Client) -> kube::Result<Kinds> {
    let mut kinds = Kinds::default();
    let core = client.list_core_api_resources("v1").await?;
    kinds.take("v1", core.resources);
    for group in client.list_api_groups().await?.groups {
        let preferred = group.preferred_version.map(|version| version.group_version);
        let mut versions: Vec<String> = group.versions.into_iter().map(|version| version.group_version).collect();
        versions.sort_by_key(|version| Some(version) != preferred.as_ref());
        for version in versions {
            match client.list_api_group_resources(&version).await {
                Ok(list) => kinds.take(&version, list.resources),
                // Gone since the groups were listed.
                Err(error) if is_not_found(&error) => {}
                Err(error) => {
                    debug!(version, %error, "The resources of a group and version cannot be listed.");
                    // The words of a client that reads the aggregated document, as Kubernetes' controllers do.
                    let text = format!("{version}: stale GroupVersion discovery: {version}");
                    kinds.failures.push(Failure { group: group.name.clone(), text });
                }
            }
        }
    }
    Ok(kinds)
}

impl Kinds {
    fn take(&mut self, api_version: &str, resources: Vec<APIResource>) {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let scales: Vec<String> =
            resources.iter().filter_map(|part| part.name.strip_suffix("/scale")).map(str::to_owned).collect();
        for resource in resources.into_iter().filter(|resource| !resource.name.contains('/')) {
            let is_known = |known: &Kind| known.resource.group == group && known.resource.plural == resource.name;
            if self.all.iter().any(is_known) {
                continue;
            }
            self.all.push(Kind {
                has_scale: scales.contains(&resource.name),
                resource: ApiResource {
                    group: group.to_owned(),
                    version: version.to_owned(),
                    api_version: api_version.to_owned(),
                    kind: resource.kind,
                    plural: resource.name,
                },
                namespaced: resource.namespaced,
                verbs: resource.verbs,
            });
        }
    }
}
