//! Writes EndpointSlices.

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::{DeleteParams, PostParams};

use super::plan::Plan;
use crate::requests::{is_namespace_terminating, is_not_found};

/// A slice could not be written; the round is tried again.
#[derive(Debug, thiserror::Error)]
#[error("endpoint slice {name} cannot be written")]
pub(crate) struct ApplyError {
    name: String,
    #[source]
    source: kube::Error,
}

/// Updates come first: they are what clients wait for.
pub(crate) async fn apply(api: &Api<EndpointSlice>, plan: Plan) -> Result<(), ApplyError> {
    let parameters = PostParams::default();
    for slice in plan.update {
        let name = slice.metadata.name.clone().unwrap_or_default();
        api.replace(&name, &parameters, &slice).await.map_err(|source| ApplyError { name, source })?;
    }
    for slice in plan.create {
        let name = slice.metadata.name.clone().unwrap_or_default();
        match api.create(&parameters, &slice).await {
            Err(error) if !is_namespace_terminating(&error) => return Err(ApplyError { name, source: error }),
            _ => {}
        }
    }
    for slice in plan.delete {
        let name = slice.metadata.name.clone().unwrap_or_default();
        match api.delete(&name, &DeleteParams::default()).await {
            Err(error) if !is_not_found(&error) => return Err(ApplyError { name, source: error }),
            _ => {}
        }
    }
    Ok(())
}
