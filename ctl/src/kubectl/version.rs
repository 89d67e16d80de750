//! `version`: this program's and the server's.

use clap::Args;
use serde_json::{Value, json};

use super::api::{Api, Url};
use super::error::CliError;
use super::get::write;
use super::output::{json_text, yaml};

/// `version`
#[derive(Debug, Clone, Args)]
pub(crate) struct VersionArgs {
    /// This program's only; no server is asked
    #[arg(long)]
    pub client: bool,
    /// json or yaml
    #[arg(short, long, default_value = "", value_parser = ["", "json", "yaml"])]
    pub output: String,
}

/// Runs the verb. The connection is made only when the server is asked.
pub(crate) async fn run(args: VersionArgs, api: impl Future<Output = Result<Api, CliError>>) -> Result<(), CliError> {
    let client = json!({"major": "1", "minor": "36", "gitVersion": reeve_apiserver::VERSION, "platform": platform()});
    let server = if args.client { None } else { Some(api.await?.get(&Url::new("/version")).await) };
    let (server, failed) = match server {
        Some(Ok(server)) => (Some(server), None),
        Some(Err(err)) => (None, Some(err)),
        None => (None, None),
    };
    let mut both = json!({"clientVersion": client});
    if let (Some(server), Value::Object(both)) = (&server, &mut both) {
        both.insert("serverVersion".to_owned(), server.clone());
    }
    let text = match args.output.as_str() {
        "json" => json_text(&both),
        "yaml" => yaml::to_string(&both),
        _ => {
            let line = |title: &str, version: &Value| {
                format!("{title} Version: {}\n", version.get("gitVersion").and_then(Value::as_str).unwrap_or_default())
            };
            line("Client", &both["clientVersion"]) + &server.map_or_else(String::new, |own| line("Server", &own))
        }
    };
    write(&text)?;
    failed.map_or(Ok(()), Err)
}

fn platform() -> String {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!("{}/{arch}", std::env::consts::OS)
}
