//! `cluster-info`: where the cluster is, once it has answered.

use super::api::{Api, Url};
use super::error::CliError;
use super::get::write;

/// Runs the verb.
pub(crate) async fn run(api: &Api) -> Result<(), CliError> {
    api.get(&Url::new("/version")).await?;
    write(&format!("Kubernetes control plane is running at {}\n", api.address()))
}
