//! `create namespace` and `create serviceaccount`: objects that are no more than a name.

use clap::Args;
use serde_json::json;

use super::{CommonArgs, Create, Made, exactly_one};
use crate::kubectl::api::Api;
use crate::kubectl::error::CliError;

/// `create namespace`, `create serviceaccount`
#[derive(Debug, Clone, Args)]
pub(crate) struct NamedArgs {
    /// NAME
    pub names: Vec<String>,
    #[command(flatten)]
    pub common: CommonArgs,
}

/// Runs `create namespace`.
pub(super) async fn namespace(args: &NamedArgs, api: &Api) -> Result<(), CliError> {
    let name = exactly_one(&args.names, "create namespace")?;
    let content = json!({"metadata": {"name": name}, "spec": {}, "status": {}});
    Create::new(api, &args.common)?.generated(Made::new("v1", "Namespace", "namespaces", content), "").await
}

/// Runs `create serviceaccount`.
pub(super) async fn service_account(args: &NamedArgs, api: &Api) -> Result<(), CliError> {
    let name = exactly_one(&args.names, "create serviceaccount")?;
    let made = Made::new("v1", "ServiceAccount", "serviceaccounts", json!({"metadata": {"name": name}}));
    Create::new(api, &args.common)?.generated(made, "failed to create serviceaccount: ").await
}
