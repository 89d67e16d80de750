//! `create token`: a token for a ServiceAccount, bound to what the flags say.

use clap::Args;
use http::Method;
use serde_json::{Map, Value, json};

use super::exactly_one;
use crate::kubectl::api::{Api, Content};
use crate::kubectl::connect::parse_duration;
use crate::kubectl::error::CliError;
use crate::kubectl::get::write;
use crate::kubectl::mapper::Resource;
use crate::kubectl::output::Output;

/// `create token`
#[derive(Debug, Clone, Args)]
pub(crate) struct TokenArgs {
    /// NAME of the ServiceAccount
    pub names: Vec<String>,
    /// Who is to accept the token; may be repeated [default: the API server]
    #[arg(long, value_name = "NAME")]
    pub audience: Vec<String>,
    /// How long it is to be good for; the server may choose another time
    #[arg(long, default_value = "0")]
    pub duration: String,
    /// Kind of the object without which the token is void: Pod, Secret, Node
    #[arg(long, value_name = "KIND", default_value = "")]
    pub bound_object_kind: String,
    /// Name of that object
    #[arg(long, value_name = "NAME", default_value = "")]
    pub bound_object_name: String,
    /// UID of that object
    #[arg(long, value_name = "UID", default_value = "")]
    pub bound_object_uid: String,
    /// Form of the output [default: the token alone]
    #[arg(short, long, default_value = "")]
    pub output: String,
}

/// Runs the verb.
pub(super) async fn run(args: &TokenArgs, api: &Api) -> Result<(), CliError> {
    let name = exactly_one(&args.names, "create token")?;
    let output = Output::parse(&args.output)?;
    let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec(args)?});
    let accounts = Resource::well_known("v1", "ServiceAccount", "serviceaccounts");
    let url = accounts.subresource(&api.namespace, name, "token");
    let answer = api.send(Method::POST, &url, Content::Json, &body).await;
    let answer = answer.map_err(|err| err.behind("failed to create token: "))?;
    if !output.is_table() {
        return write(&output.print(&answer, None)?);
    }
    let token = answer.pointer("/status/token").and_then(Value::as_str).unwrap_or_default();
    if token.is_empty() {
        return Err(CliError::plain("failed to create token: no token in server response"));
    }
    write(&format!("{token}\n"))
}

fn spec(args: &TokenArgs) -> Result<Value, CliError> {
    let mut spec = Map::new();
    if !args.audience.is_empty() {
        spec.insert("audiences".to_owned(), json!(args.audience));
    }
    if let Some(duration) = parse_duration(&args.duration)?.filter(|duration| !duration.is_zero()) {
        spec.insert("expirationSeconds".to_owned(), json!(duration.as_secs()));
    }
    let api_version = match args.bound_object_kind.as_str() {
        "" if args.bound_object_name.is_empty() && args.bound_object_uid.is_empty() => {
            return Ok(Value::Object(spec));
        }
        "" => return Err(CliError::plain("--bound-object-kind is required if --bound-object-name is provided")),
        "Pod" | "Secret" | "Node" => "v1",
        _ => return Err(CliError::plain("supported --bound-object-kind values are Node, Pod, Secret")),
    };
    if args.bound_object_name.is_empty() {
        return Err(CliError::plain("--bound-object-name is required if --bound-object-kind is provided"));
    }
    let mut reference =
        json!({"kind": args.bound_object_kind, "apiVersion": api_version, "name": args.bound_object_name});
    if !args.bound_object_uid.is_empty() {
        reference["uid"] = json!(args.bound_object_uid);
    }
    spec.insert("boundObjectRef".to_owned(), reference);
    Ok(Value::Object(spec))
}
