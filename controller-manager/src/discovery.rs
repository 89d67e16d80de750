//! Which kinds of objects the API server has, for the controllers that look at all of them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{APIResource, OwnerReference};
use kube::api::{DynamicObject, PartialObjectMeta};
use kube::core::ApiResource;
use kube::{Api, Client};

/// One kind, as the API server describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) resource: ApiResource,
    pub(crate) namespaced: bool,
    verbs: Vec<String>,
}

/// What was found out about the API server's kinds.
#[derive(Debug, Default)]
pub(crate) struct Kinds {
    pub(crate) all: Vec<Kind>,
    /// Groups that did not answer, with their complaints.
    pub(crate) failures: Vec<String>,
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

    /// Whether an owner reference means this kind, in whatever version.
    pub(crate) fn is_meant_by(&self, owner: &OwnerReference) -> bool {
        let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
        self.resource.kind == owner.kind && self.resource.group == group
    }
}

/// Asks for all kinds, each in the version its group prefers.
///
/// # Errors
/// When the list of groups cannot be read. A single group that does not answer is no error, but a failure in
/// the answer.
pub(crate) async fn discover(client: &Client) -> kube::Result<Kinds> {
    let mut kinds = Kinds::default();
    let core = client.list_core_api_resources("v1").await?;
    kinds.take("v1", core.resources);
    for group in client.list_api_groups().await?.groups {
        let Some(preferred) = group.preferred_version.or_else(|| group.versions.into_iter().next()) else { continue };
        match client.list_api_group_resources(&preferred.group_version).await {
            Ok(list) => kinds.take(&preferred.group_version, list.resources),
            Err(error) => kinds.failures.push(format!("{}: {error}", preferred.group_version)),
        }
    }
    Ok(kinds)
}

impl Kinds {
    fn take(&mut self, api_version: &str, resources: Vec<APIResource>) {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let resources = resources.into_iter().filter(|resource| !resource.name.contains('/'));
        self.all.extend(resources.map(|resource| Kind {
            resource: ApiResource {
                group: group.to_owned(),
                version: version.to_owned(),
                api_version: api_version.to_owned(),
                kind: resource.kind,
                plural: resource.name,
            },
            namespaced: resource.namespaced,
            verbs: resource.verbs,
        }));
    }
}
