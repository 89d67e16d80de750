//! `delete`: removes objects and, unless told otherwise, waits until they are gone.

use std::time::Duration;

use clap::Args;
use futures::StreamExt as _;
use http::Method;
use serde_json::{Map, Value, json};

use super::api::{Api, Content, Url};
use super::args::{DryRun, DryRunArgs, FileArgs};
use super::connect::parse_duration;
use super::error::CliError;
use super::get::write;
use super::mapper::Mapper;
use super::select::{Among, Target};

/// `delete`
#[derive(Debug, Clone, Args)]
pub(crate) struct DeleteArgs {
    /// TYPE NAME…, TYPE/NAME…
    pub words: Vec<String>,
    #[command(flatten)]
    pub files: FileArgs,
    #[command(flatten)]
    pub dry_run: DryRunArgs,
    #[command(flatten)]
    pub among: Among,
    /// What becomes of what the objects own: background, foreground or orphan
    #[arg(long, default_value = "background", num_args = 0..=1, default_missing_value = "background",
        value_parser = ["background", "foreground", "orphan", "true", "false"])]
    pub cascade: String,
    /// Do not wait for confirmation of the end; with --grace-period=0 at once
    #[arg(long)]
    pub force: bool,
    /// Seconds an object has to end; -1 leaves it to the object
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    pub grace_period: i64,
    /// As --grace-period=1
    #[arg(long)]
    pub now: bool,
    /// Say nothing about objects that do not exist
    #[arg(long)]
    pub ignore_not_found: bool,
    /// Wait until the objects are gone
    #[arg(long, default_value = "true", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub wait: String,
    /// How long to wait; 0 waits for as long as it takes
    #[arg(long, default_value = "0")]
    pub timeout: String,
    /// Form of the output: name
    #[arg(short, long, default_value = "", value_parser = ["", "name"])]
    pub output: String,
}

/// Runs the verb.
pub(crate) async fn run(args: DeleteArgs, api: &Api) -> Result<(), CliError> {
    let mapper = Mapper::discover(api).await?;
    let options = options(&args)?;
    let targets = targets(&args, api, &mapper).await?;
    let (mut errors, mut deleted) = (Vec::new(), Vec::new());
    for target in targets {
        match one(&args, api, &target, &options).await {
            Ok(Some(uid)) => deleted.push((target, uid)),
            Ok(None) => {}
            Err(err) if err.is_not_found() && args.ignore_not_found => {}
            Err(err) => errors.push(err),
        }
    }
    if args.wait == "true" && args.dry_run.dry_run == DryRun::None && !args.force {
        let limit = parse_duration(&args.timeout)?.filter(|limit| !limit.is_zero());
        for (target, uid) in &deleted {
            if let Err(err) = gone_in_time(api, target, uid, limit).await {
                errors.push(err);
            }
        }
    }
    CliError::all(errors)
}

fn options(args: &DeleteArgs) -> Result<Value, CliError> {
    let mut options =
        Map::from_iter([("kind".to_owned(), json!("DeleteOptions")), ("apiVersion".to_owned(), json!("v1"))]);
    let policy = match args.cascade.as_str() {
        "orphan" | "false" => "Orphan",
        "foreground" => "Foreground",
        _ => "Background",
    };
    options.insert("propagationPolicy".to_owned(), json!(policy));
    if args.now && args.grace_period >= 0 {
        return Err(CliError::plain("--now and --grace-period cannot be specified together"));
    }
    let grace = match (args.now, args.force, args.grace_period) {
        (true, _, _) => Some(1),
        (_, true, own) if own < 0 => Some(0),
        (_, false, 0) => Some(1),
        (_, _, own) if own >= 0 => Some(own),
        _ => None,
    };
    if let Some(grace) = grace {
        options.insert("gracePeriodSeconds".to_owned(), json!(grace));
    }
    if grace == Some(0) && args.force {
        eprintln!(
            "Warning: Immediate deletion does not wait for confirmation that the running resource has been terminated. The resource may continue to run on the cluster indefinitely."
        );
    }
    Ok(Value::Object(options))
}

async fn targets(args: &DeleteArgs, api: &Api, mapper: &Mapper) -> Result<Vec<Target>, CliError> {
    let found = args.among.targets(api, mapper, &args.files, &args.words).await?;
    if found.is_empty() {
        write("No resources found\n")?;
    }
    Ok(found)
}

/// Deletes an object, if it is there, and returns when it is gone. Says nothing.
pub(crate) async fn and_wait(api: &Api, target: &Target) -> Result<(), CliError> {
    let url = target.resource.object(&target.namespace, &target.name);
    let options = json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"});
    match api.send(Method::DELETE, &url, Content::Json, &options).await {
        Ok(answer) => {
            let uid = answer.pointer("/metadata/uid").or_else(|| answer.pointer("/details/uid"));
            gone(api, target, uid.and_then(Value::as_str).unwrap_or_default()).await
        }
        Err(err) if err.is_not_found() => Ok(()),
        Err(err) => Err(err),
    }
}

/// Deletes one object and says so; returns its UID.
async fn one(args: &DeleteArgs, api: &Api, target: &Target, options: &Value) -> Result<Option<String>, CliError> {
    let url = target.resource.object(&target.namespace, &target.name);
    let answer = if args.dry_run.dry_run == DryRun::Client {
        api.get(&url).await?
    } else {
        api.send(Method::DELETE, &url.with_some(args.dry_run.query()), Content::Json, options).await?
    };
    let said = if args.output == "name" {
        format!("{}\n", target.display())
    } else {
        let kind = target.resource.qualified(&target.resource.singular);
        let forced = if args.force && args.grace_period <= 0 { "force deleted" } else { "deleted" };
        format!("{kind} {:?} {forced}{}\n", target.name, args.dry_run.suffix())
    };
    write(&said)?;
    let uid = answer.pointer("/metadata/uid").or_else(|| answer.pointer("/details/uid")).and_then(Value::as_str);
    Ok(uid.map(str::to_owned))
}

async fn gone_in_time(api: &Api, target: &Target, uid: &str, limit: Option<Duration>) -> Result<(), CliError> {
    match limit {
        None => gone(api, target, uid).await,
        Some(limit) => match tokio::time::timeout(limit, gone(api, target, uid)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(CliError::plain(format!("timed out waiting for the condition on {}", target.display()))),
        },
    }
}

/// Returns when the object of that UID is gone: follows it until then.
pub(crate) async fn gone(api: &Api, target: &Target, uid: &str) -> Result<(), CliError> {
    loop {
        let url = target.resource.object(&target.namespace, &target.name);
        let object = match api.get(&url).await {
            Ok(object) => object,
            Err(err) if err.is_not_found() => return Ok(()),
            Err(err) => return Err(err),
        };
        if object.pointer("/metadata/uid").and_then(Value::as_str) != Some(uid) {
            return Ok(());
        }
        let version = object.pointer("/metadata/resourceVersion").and_then(Value::as_str).unwrap_or_default();
        let watch: Url = target
            .resource
            .collection(Some(&target.namespace))
            .with("watch", "true")
            .with("fieldSelector", format!("metadata.name={}", target.name))
            .with("resourceVersion", version);
        let mut events = api.watch(&watch, "application/json").await?;
        while let Some(event) = events.next().await {
            match event?.get("type").and_then(Value::as_str) {
                Some("DELETED") => return Ok(()),
                Some("ERROR") => break,
                _ => {}
            }
        }
    }
}
