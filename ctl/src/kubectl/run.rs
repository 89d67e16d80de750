//! `run`: one pod from one image.

use clap::Args;
use serde_json::{Value, json};

use super::api::Api;
use super::args::program;
use super::create::{CommonArgs, Create, Made, exactly_one, required};
use super::error::CliError;
use super::expose::pairs;
use super::manifest;

/// `run`
#[derive(Debug, Clone, Args)]
pub(crate) struct RunArgs {
    /// NAME, then arguments for the container
    pub words: Vec<String>,
    /// Image of the container
    #[arg(long)]
    pub image: Option<String>,
    /// Always, OnFailure or Never
    #[arg(long, default_value = "Always")]
    pub restart: String,
    /// Always, IfNotPresent or Never
    #[arg(long, default_value = "")]
    pub image_pull_policy: String,
    /// Environment variable, NAME=VALUE; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    pub env: Vec<String>,
    /// Labels, KEY=VALUE with commas [default: run=NAME]
    #[arg(short, long, default_value = "")]
    pub labels: String,
    /// Annotation, KEY=VALUE; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub annotations: Vec<String>,
    /// Port on which the container listens
    #[arg(long)]
    pub port: Option<u16>,
    /// Make a Service for the port, too
    #[arg(long)]
    pub expose: bool,
    /// The words behind -- are the command, not its arguments
    #[arg(long)]
    pub command: bool,
    /// Let the container have all rights
    #[arg(long)]
    pub privileged: bool,
    /// Arguments, or with --command the command
    #[arg(last = true)]
    pub arguments: Vec<String>,
    /// Fields in JSON or YAML that go over those made from the flags
    #[arg(long, default_value = "")]
    pub overrides: String,
    /// How the overrides are meant: merge, strategic or json
    #[arg(long, default_value = "merge", value_parser = ["merge", "strategic", "json"])]
    pub override_type: String,
    #[command(flatten)]
    pub common: CommonArgs,
}

/// Runs the verb.
pub(crate) async fn run(mut args: RunArgs, api: &Api) -> Result<(), CliError> {
    if args.common.field_manager == "kubectl-create" {
        "kubectl-run".clone_into(&mut args.common.field_manager);
    }
    let image = required(args.image.as_deref(), "image")?;
    if image.is_empty() {
        return Err(CliError::plain("--image is required"));
    }
    let (names, more) = args.words.split_at(args.words.len().min(1));
    let name = match names {
        [] => return Err(usage("NAME is required for run")),
        names => exactly_one(names, "run")?,
    };
    if image.contains(char::is_whitespace) {
        return Err(CliError::plain(format!("Invalid image name {image:?}: invalid reference format")));
    }
    if !matches!(args.restart.as_str(), "Always" | "OnFailure" | "Never") {
        return Err(usage(&format!("invalid restart policy: {}", args.restart)));
    }
    if args.expose && args.port.is_none() {
        return Err(usage("--port must be set when exposing a service"));
    }
    let arguments: Vec<&String> = more.iter().chain(&args.arguments).collect();
    let create = Create::new(api, &args.common)?;
    let labels = if args.labels.is_empty() { pairs(&format!("run={name}"))? } else { pairs(&args.labels)? };
    let pod = pod(&args, name, &Value::Object(labels.clone()), &arguments)?;
    if let Some(port) = args.port.filter(|_| args.expose) {
        let service = json!({
            "metadata": {"name": name},
            "spec": {"ports": [{"port": port, "protocol": "TCP", "targetPort": port}], "selector": labels},
            "status": {"loadBalancer": {}},
        });
        create.generated(Made::new("v1", "Service", "services", service), "").await?;
    }
    let mut made = Made::new("v1", "Pod", "pods", pod);
    if !args.overrides.is_empty() {
        let patch = manifest::value(args.overrides.as_bytes())
            .map_err(|reason| CliError::plain(format!("Invalid JSON Patch: {reason}")))?;
        made.object = super::patch::applied(&args.override_type, "v1", "Pod", &made.object, &patch)?;
    }
    create.generated(made, "").await
}

fn usage(what: &str) -> CliError {
    CliError::plain(format!("{what}\nSee '{} run -h' for help and examples", program()))
}

fn pod(args: &RunArgs, name: &str, labels: &Value, arguments: &[&String]) -> Result<Value, CliError> {
    let mut container = json!({"name": name, "image": args.image, "resources": {}});
    if !args.image_pull_policy.is_empty() {
        container["imagePullPolicy"] = json!(args.image_pull_policy);
    }
    if !args.env.is_empty() {
        container["env"] = args.env.iter().map(|own| variable(own)).collect::<Result<Vec<Value>, _>>()?.into();
    }
    if let Some(port) = args.port {
        container["ports"] = json!([{"containerPort": port}]);
    }
    if !arguments.is_empty() {
        container[if args.command { "command" } else { "args" }] = json!(arguments);
    }
    if args.privileged {
        container["securityContext"] = json!({"privileged": true});
    }
    let mut metadata = json!({"name": name, "labels": labels});
    if !args.annotations.is_empty() {
        metadata["annotations"] = Value::Object(pairs(&args.annotations.join(","))?);
    }
    Ok(json!({
        "metadata": metadata,
        "spec": {"containers": [container], "dnsPolicy": "ClusterFirst", "restartPolicy": args.restart},
        "status": {},
    }))
}

fn variable(text: &str) -> Result<Value, CliError> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok(json!({"name": name, "value": value})),
        _ => Err(CliError::plain(format!("invalid env: {text}"))),
    }
}
