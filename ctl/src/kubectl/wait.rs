//! `wait`: until objects are as somebody wants them.

use std::time::Duration;

use clap::Args;
use futures::StreamExt as _;
use serde_json::Value;

use super::api::Api;
use super::args::FileArgs;
use super::connect::parse_duration;
use super::error::CliError;
use super::get::write;
use super::mapper::Mapper;
use super::output::jsonpath::{Template, text_of};
use super::select::{self, Target};

/// `wait`
#[derive(Debug, Clone, Args)]
pub(crate) struct WaitArgs {
    /// TYPE NAME…, TYPE/NAME…
    pub words: Vec<String>,
    #[command(flatten)]
    pub files: FileArgs,
    /// condition=TYPE[=STATUS], jsonpath={PATH}[=VALUE], delete or create
    #[arg(long = "for", value_name = "CONDITION")]
    pub what: String,
    /// All objects of the types
    #[arg(long)]
    pub all: bool,
    /// In all namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// Objects whose labels fit
    #[arg(short = 'l', long, default_value = "")]
    pub selector: String,
    /// How long to wait; 0 looks once, negative waits for a week
    #[arg(long, default_value = "30s", allow_negative_numbers = true)]
    pub timeout: String,
}

#[derive(Debug, Clone)]
enum Wanted {
    Condition { kind: String, status: String },
    JsonPath { template: Template, value: Option<String> },
    Delete,
    Create,
}

fn parse(text: &str) -> Result<Wanted, CliError> {
    let lower = text.to_ascii_lowercase();
    if lower == "delete" {
        return Ok(Wanted::Delete);
    }
    if lower == "create" {
        return Ok(Wanted::Create);
    }
    if let Some(rest) = text.strip_prefix("condition=") {
        let (kind, status) = rest.split_once('=').unwrap_or((rest, "true"));
        return Ok(Wanted::Condition { kind: kind.to_ascii_lowercase(), status: status.to_ascii_lowercase() });
    }
    if let Some(rest) = text.strip_prefix("jsonpath=") {
        let rest = rest.trim_matches('\'');
        let (path, value) = match rest.rfind('}') {
            Some(end) => (&rest[..=end], rest[end + 1..].strip_prefix('=')),
            None => rest.split_once('=').map_or((rest, None), |(path, value)| (path, Some(value))),
        };
        let value = value.map(|own| own.trim_matches(|c| c == '\'' || c == '"').to_owned());
        if value.as_deref() == Some("") {
            return Err(CliError::plain("jsonpath wait value cannot be empty"));
        }
        let braced = if path.starts_with('{') { path.to_owned() } else { format!("{{{path}}}") };
        return Ok(Wanted::JsonPath { template: Template::parse(&braced).map_err(CliError::Plain)?, value });
    }
    Err(CliError::plain(format!("unrecognized condition: {text:?}")))
}

impl Wanted {
    /// Whether the object (`None`: it does not exist) is as wanted.
    fn holds(&self, object: Option<&Value>) -> bool {
        match (self, object) {
            (Self::Delete, object) => object.is_none(),
            (Self::Create, object) => object.is_some(),
            (_, None) => false,
            (Self::Condition { kind, status }, Some(object)) => {
                let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
                let text =
                    |own: &Value, field: &str| own.get(field).and_then(Value::as_str).map(str::to_ascii_lowercase);
                let current = |own: &Value| {
                    let observed =
                        own.get("observedGeneration").or_else(|| object.pointer("/status/observedGeneration"));
                    let generation = object.pointer("/metadata/generation").and_then(Value::as_i64);
                    observed.and_then(Value::as_i64).is_none_or(|own| own >= generation.unwrap_or(0))
                };
                conditions.into_iter().flatten().any(|own| {
                    text(own, "type").as_ref() == Some(kind)
                        && text(own, "status").as_ref() == Some(status)
                        && current(own)
                })
            }
            (Self::JsonPath { template, value }, Some(object)) => {
                let found = template.values(object).unwrap_or_default();
                match value {
                    Some(value) => found.iter().any(|own| text_of(own) == *value),
                    None => !found.is_empty(),
                }
            }
        }
    }
}

/// Runs the verb.
pub(crate) async fn run(args: WaitArgs, api: &Api) -> Result<(), CliError> {
    let wanted = parse(&args.what)?;
    let limit = match args.timeout.strip_prefix('-') {
        Some(_) => Duration::from_secs(7 * 24 * 3600),
        None => parse_duration(&args.timeout)?.unwrap_or_default(),
    };
    let mapper = Mapper::discover(api).await?;
    let targets = targets(&args, api, &mapper).await?;
    if targets.is_empty() {
        return Err(CliError::plain("no matching resources found"));
    }
    let start = tokio::time::Instant::now();
    let mut errors = Vec::new();
    for target in targets {
        let rest = limit.saturating_sub(start.elapsed());
        match wait(api, &target, &wanted, rest).await {
            Ok(()) => write(&format!("{} condition met\n", target.display()))?,
            Err(err) => errors.push(err),
        }
    }
    CliError::all(errors)
}

async fn targets(args: &WaitArgs, api: &Api, mapper: &Mapper) -> Result<Vec<Target>, CliError> {
    if !args.all && args.selector.is_empty() {
        return select::targets(api, mapper, &args.files, &args.words);
    }
    let mut found = Vec::new();
    for selection in select::select(mapper, &args.words)? {
        let namespace = (!args.all_namespaces).then_some(api.namespace.as_str());
        let url = selection.resource.collection(namespace);
        let url = if args.selector.is_empty() { url } else { url.with("labelSelector", args.selector.clone()) };
        let list = api.get(&url).await?;
        for item in list.get("items").and_then(Value::as_array).into_iter().flatten() {
            let meta =
                |field: &str| item.pointer(&format!("/metadata/{field}")).and_then(Value::as_str).unwrap_or_default();
            let (namespace, name) = (meta("namespace").to_owned(), meta("name").to_owned());
            found.push(Target { resource: selection.resource.clone(), namespace, name });
        }
    }
    Ok(found)
}

async fn wait(api: &Api, target: &Target, wanted: &Wanted, limit: Duration) -> Result<(), CliError> {
    let late = || {
        let name = target.resource.qualified(&target.resource.plural);
        CliError::plain(format!("timed out waiting for the condition on {name}/{}", target.name))
    };
    if limit.is_zero() {
        let object = look(api, target, wanted).await?;
        return if wanted.holds(object.as_ref()) { Ok(()) } else { Err(late()) };
    }
    match tokio::time::timeout(limit, follow(api, target, wanted)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(late()),
    }
}

/// The object; that it does not exist is an answer only for those who wait for its beginning or end.
async fn look(api: &Api, target: &Target, wanted: &Wanted) -> Result<Option<Value>, CliError> {
    match api.get(&target.resource.object(&target.namespace, &target.name)).await {
        Ok(object) => Ok(Some(object)),
        Err(err) if err.is_not_found() && matches!(wanted, Wanted::Delete | Wanted::Create) => Ok(None),
        Err(err) => Err(err),
    }
}

async fn follow(api: &Api, target: &Target, wanted: &Wanted) -> Result<(), CliError> {
    let selected = target
        .resource
        .collection(Some(&target.namespace))
        .with("fieldSelector", format!("metadata.name={}", target.name));
    loop {
        if wanted.holds(look(api, target, wanted).await?.as_ref()) {
            return Ok(());
        }
        let list = api.get(&selected).await?;
        let item = list.pointer("/items/0");
        if wanted.holds(item) {
            return Ok(());
        }
        let version = list.pointer("/metadata/resourceVersion").and_then(Value::as_str).unwrap_or_default();
        let url = selected.clone().with("watch", "true").with("resourceVersion", version);
        let mut events = api.watch(&url, "application/json").await?;
        while let Some(event) = events.next().await {
            let event = event?;
            let object = match event.get("type").and_then(Value::as_str) {
                Some("DELETED") => None,
                Some("ADDED" | "MODIFIED") => event.get("object"),
                _ => break,
            };
            if wanted.holds(object) {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check(what: &str, object: &Value, holds: bool) {
        assert_eq!(parse(what).expect("parsed").holds(Some(object)), holds, "{what}");
    }

    #[test]
    fn conditions_and_paths_are_compared_as_kubectl_does() {
        let pod = json!({"metadata": {"generation": 1}, "status": {"phase": "Running", "n": 2,
            "conditions": [{"type": "Ready", "status": "True"}, {"type": "Old", "status": "True", "observedGeneration": 0}]}});
        check("condition=Ready", &pod, true);
        check("condition=ready=TRUE", &pod, true);
        check("condition=Ready=False", &pod, false);
        check("condition=Old", &pod, false);
        check("jsonpath={.status.phase}=Running", &pod, true);
        check("jsonpath='{.status.n}'=2", &pod, true);
        check("jsonpath={.status.phase}=Failed", &pod, false);
        check("jsonpath={.status.ip}", &pod, false);
        check("create", &pod, true);
        check("delete", &pod, false);
        assert!(parse("delete").expect("parsed").holds(None));
        assert!(parse("sometime").is_err());
    }
}
