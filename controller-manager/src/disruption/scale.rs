//! How many pods the controllers of some pods want together.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Client;

use super::Unknown;
use crate::discovery::discover;
use crate::manager::Watches;
use crate::ownership::controller_of;
use crate::requests::is_not_found;

/// The sum of what the controllers want, and whether a pod has none.
pub(super) async fn of_controllers(
    client: &Client,
    watches: &Watches,
    pods: &[Arc<Pod>],
) -> Result<(usize, bool), Unknown> {
    let (mut wanted, mut unmanaged) = (BTreeMap::new(), false);
    for pod in pods {
        let Some(owner) = controller_of(&pod.metadata) else {
            unmanaged = true;
            continue;
        };
        if wanted.contains_key(&owner.uid) {
            continue;
        }
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let found = match known(watches, namespace, owner) {
            Some(found) => Some(found),
            None => asked(client, namespace, owner).await?,
        };
        let Some((uid, replicas)) = found else {
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            return Err(Unknown(format!("found no controllers for pod {name:?}")));
        };
        wanted.insert(uid, replicas);
    }
    let total: i64 = wanted.values().map(|replicas| i64::from(*replicas)).sum();
    Ok((usize::try_from(total).unwrap_or(0), unmanaged))
}

/// What is watched anyway: ReplicationControllers, ReplicaSets, and the Deployments that these belong to.
fn known(watches: &Watches, namespace: &str, owner: &OwnerReference) -> Option<(String, i32)> {
    let is_of = |group: &str| owner.api_version.split_once('/').map_or("", |(group, _)| group) == group;
    match owner.kind.as_str() {
        "ReplicationController" if is_of("") => {
            let found = watches.replication_controllers.store().get(namespace, &owner.name)?;
            let replicas = found.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
            (found.metadata.uid.as_ref() == Some(&owner.uid)).then(|| (owner.uid.clone(), replicas))
        }
        "ReplicaSet" if is_of("apps") => {
            let set = watches.replica_sets.store().get(namespace, &owner.name)?;
            if set.metadata.uid.as_ref() != Some(&owner.uid) {
                return None;
            }
            let Some(parent) = controller_of(&set.metadata).filter(|parent| parent.kind == "Deployment") else {
                let replicas = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
                return Some((owner.uid.clone(), replicas));
            };
            let found = watches.deployments.store().get(namespace, &parent.name)?;
            let replicas = found.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
            (found.metadata.uid.as_ref() == Some(&parent.uid)).then(|| (parent.uid.clone(), replicas))
        }
        _ => None,
    }
}

/// What the scale subresource of any other kind says.
async fn asked(client: &Client, namespace: &str, owner: &OwnerReference) -> Result<Option<(String, i32)>, Unknown> {
    let kinds = discover(client).await?;
    let Some(kind) = kinds.all.iter().find(|kind| kind.is_meant_by(owner)) else {
        return Err(Unknown(format!("no matches for kind {:?} in version {:?}", owner.kind, owner.api_version)));
    };
    if !kind.has_scale {
        return Err(Unknown(format!("{} does not implement the scale subresource", kind.group_resource())));
    }
    match kind.api(client, namespace).get_scale(&owner.name).await {
        Ok(scale) if scale.metadata.uid.as_ref() == Some(&owner.uid) => {
            let replicas = scale.spec.and_then(|spec| spec.replicas).unwrap_or(0);
            Ok(Some((owner.uid.clone(), replicas)))
        }
        Ok(_) => Ok(None),
        Err(error) if is_not_found(&error) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
