//! `create deployment`.

use clap::Args;
use reeve_api::rng::{Rng, RngExt as _, SeededRng};
use serde_json::{Value, json};

use super::{CommonArgs, Create, Made, exactly_one, required};
use crate::kubectl::api::Api;
use crate::kubectl::error::CliError;

/// Length of the suffix of generated names.
const SUFFIX_LEN: usize = 5;

/// `create deployment`
#[derive(Debug, Clone, Args)]
pub(crate) struct DeploymentArgs {
    /// NAME
    pub names: Vec<String>,
    /// Image of a container; may be repeated
    #[arg(long = "image", value_name = "IMAGE", value_delimiter = ',')]
    pub images: Vec<String>,
    /// How many pods
    #[arg(short, long, default_value_t = 1, allow_negative_numbers = true)]
    pub replicas: i32,
    /// Port on which the container listens
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    pub port: i32,
    /// What the container runs instead of the image's own command
    #[arg(last = true)]
    pub command: Vec<String>,
    #[command(flatten)]
    pub common: CommonArgs,
}

/// Runs the verb.
pub(super) async fn run(args: &DeploymentArgs, api: &Api) -> Result<(), CliError> {
    let name = exactly_one(&args.names, "create deployment")?;
    required(args.images.first().map(String::as_str), "image")?;
    if args.images.len() > 1 && !args.command.is_empty() {
        return Err(CliError::plain("cannot specify multiple --image options and command"));
    }
    let made = Made::new("apps/v1", "Deployment", "deployments", content(args, name, &SeededRng::from_os()));
    Create::new(api, &args.common)?.generated(made, "failed to create deployment: ").await
}

fn content(args: &DeploymentArgs, name: &str, rng: &dyn Rng) -> Value {
    let container = |image: &String| json!({"name": container_name(image, rng), "image": image, "resources": {}});
    let mut containers: Vec<Value> = args.images.iter().map(container).collect();
    if let Some(first) = containers.first_mut() {
        if args.port >= 0 {
            first["ports"] = json!([{"containerPort": args.port}]);
        }
        if !args.command.is_empty() {
            first["command"] = json!(args.command);
        }
    }
    let labels = json!({"app": name});
    json!({
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "replicas": args.replicas,
            "selector": {"matchLabels": labels},
            "strategy": {},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": containers}},
        },
        "status": {},
    })
}

/// The image's last part without tag and digest; a suffix where that alone could not be a container's name.
fn container_name(image: &str, rng: &dyn Rng) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    let name = last.split([':', '@']).next().unwrap_or(last);
    if !name.contains(['_', '.']) {
        return name.to_owned();
    }
    format!("{}-{}", name.replace(['_', '.'], "-"), rng.suffix(SUFFIX_LEN))
}
