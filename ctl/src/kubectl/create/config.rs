//! `create configmap`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use serde_json::{Map, Value, json};

use super::sources::{Data, SourceArgs};
use super::{CommonArgs, Create, Made, exactly_one};
use crate::kubectl::api::Api;
use crate::kubectl::error::CliError;

/// `create configmap`
#[derive(Debug, Clone, Args)]
pub(crate) struct ConfigMapArgs {
    /// NAME
    pub names: Vec<String>,
    #[command(flatten)]
    pub sources: SourceArgs,
    #[command(flatten)]
    pub common: CommonArgs,
}

/// Runs the verb.
pub(super) async fn run(args: &ConfigMapArgs, api: &Api) -> Result<(), CliError> {
    let name = exactly_one(&args.names, "create configmap")?;
    let data = args.sources.read("ConfigMap", name)?;
    let made = Made::new("v1", "ConfigMap", "configmaps", content(name, data));
    Create::new(api, &args.common)?.generated(made, "failed to create configmap: ").await
}

/// Values that are no text go into `binaryData`.
fn content(name: &str, data: Data) -> Value {
    let (mut texts, mut binary) = (Map::new(), Map::new());
    for (key, value) in data {
        match String::from_utf8(value) {
            Ok(text) => drop(texts.insert(key, text.into())),
            Err(err) => drop(binary.insert(key, STANDARD.encode(err.as_bytes()).into())),
        }
    }
    let mut content = json!({"metadata": {"name": name}});
    for (field, map) in [("data", texts), ("binaryData", binary)] {
        if !map.is_empty() {
            content[field] = Value::Object(map);
        }
    }
    content
}
