//! `scale`, `rollout` and `set image`: what is done to workloads.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::{Args, Subcommand};
use futures::StreamExt as _;
use http::Method;
use reeve_api::clock::Clock as _;
use serde_json::{Value, json};

use super::api::{Api, Content};
use super::args::{DryRunArgs, FileArgs};
use super::connect::parse_duration;
use super::error::CliError;
use super::get::write;
use super::mapper::Mapper;
use super::output::Output;
use super::select::{self, Target};

const REVISION: &str = "deployment.kubernetes.io/revision";
const CHANGE_CAUSE: &str = "kubernetes.io/change-cause";
const TEMPLATE_HASH: &str = "pod-template-hash";

/// `scale`
#[derive(Debug, Clone, Args)]
pub(crate) struct ScaleArgs {
    /// TYPE NAME…, TYPE/NAME…
    pub words: Vec<String>,
    #[command(flatten)]
    pub files: FileArgs,
    /// How many replicas there are to be
    #[arg(long, allow_negative_numbers = true)]
    pub replicas: i64,
    /// Do nothing unless there are so many now
    #[arg(long)]
    pub current_replicas: Option<i64>,
    /// Form of the output: name
    #[arg(short, long, default_value = "", value_parser = ["", "name"])]
    pub output: String,
    #[command(flatten)]
    pub dry_run: DryRunArgs,
}

/// Runs `scale`.
pub(crate) async fn scale(args: ScaleArgs, api: &Api) -> Result<(), CliError> {
    if args.replicas < 0 {
        return Err(CliError::plain(
            "The --replicas=COUNT flag is required, and COUNT must be greater than or equal to 0",
        ));
    }
    let mapper = Mapper::discover(api).await?;
    let mut errors = Vec::new();
    for target in select::targets(api, &mapper, &args.files, &args.words)? {
        match scale_one(&args, api, &target).await {
            Ok(()) if args.output == "name" => write(&format!("{}\n", target.display()))?,
            Ok(()) => write(&format!("{} scaled{}\n", target.display(), args.dry_run.suffix()))?,
            // kubectl's words for an object that is not there.
            Err(err) if err.is_not_found() => errors.push(err.behind("no objects passed to scale ")),
            Err(err) => errors.push(err),
        }
    }
    CliError::all(errors)
}

async fn scale_one(args: &ScaleArgs, api: &Api, target: &Target) -> Result<(), CliError> {
    let url = target.resource.subresource(&target.namespace, &target.name, "scale");
    let mut body = json!({"spec": {"replicas": args.replicas}});
    if let Some(expected) = args.current_replicas.filter(|own| *own >= 0) {
        let scale = api.get(&url).await?;
        let current = scale.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(0);
        if current != expected {
            return Err(CliError::plain(format!("Expected replicas to be {expected}, was {current}")));
        }
        // Nobody may have changed it since it was looked at.
        body["metadata"] = json!({"resourceVersion": scale.pointer("/metadata/resourceVersion")});
    }
    api.send(Method::PATCH, &url.with_some(args.dry_run.query()), Content::MergePatch, &body).await.map(drop)
}

/// `set`
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum SetCommand {
    /// Give containers of a workload other images
    Image(SetImageArgs),
}

/// `set image`
#[derive(Debug, Clone, Args)]
pub(crate) struct SetImageArgs {
    /// TYPE/NAME or TYPE NAME, then CONTAINER=IMAGE…; `*` means every container
    pub words: Vec<String>,
    #[command(flatten)]
    pub files: FileArgs,
    /// Form of the output
    #[arg(short, long, default_value = "")]
    pub output: String,
    #[command(flatten)]
    pub dry_run: DryRunArgs,
}

/// Runs `set`.
pub(crate) async fn set(command: SetCommand, api: &Api) -> Result<(), CliError> {
    let SetCommand::Image(args) = command;
    let output = Output::parse(&args.output)?;
    let (pairs, words): (Vec<&String>, Vec<&String>) = args.words.iter().partition(|word| word.contains('='));
    let words: Vec<String> = words.into_iter().cloned().collect();
    let images: BTreeMap<&str, &str> = pairs.iter().filter_map(|pair| pair.split_once('=')).collect();
    if images.is_empty() {
        return Err(CliError::plain("at least one image update is required"));
    }
    let mapper = Mapper::discover(api).await?;
    let mut errors = Vec::new();
    for target in select::targets(api, &mapper, &args.files, &words)? {
        match set_images(&args, api, &target, &images).await {
            Ok(Some(object)) if !output.is_table() => write(&output.print(&object, Some(&target.resource))?)?,
            Ok(Some(_)) => write(&format!("{} image updated{}\n", target.display(), args.dry_run.suffix()))?,
            Ok(None) => {}
            Err(err) => errors.push(err),
        }
    }
    CliError::all(errors)
}

/// Where a workload keeps its pod spec; pods are their own.
fn pod_spec(kind: &str) -> &'static [&'static str] {
    match kind {
        "Pod" => &["spec"],
        "CronJob" => &["spec", "jobTemplate", "spec", "template", "spec"],
        _ => &["spec", "template", "spec"],
    }
}

/// `value` below the keys of `path`.
fn nested(path: &[&str], value: Value) -> Value {
    path.iter().rev().fold(value, |inner, key| json!({*key: inner}))
}

async fn set_images(
    args: &SetImageArgs,
    api: &Api,
    target: &Target,
    images: &BTreeMap<&str, &str>,
) -> Result<Option<Value>, CliError> {
    let url = target.resource.object(&target.namespace, &target.name);
    let object = api.get(&url).await?;
    let path = pod_spec(&target.resource.kind);
    let spec = object.pointer(&format!("/{}", path.join("/"))).cloned().unwrap_or_default();
    let mut patch = serde_json::Map::new();
    let mut found: Vec<&str> = Vec::new();
    for list in ["initContainers", "containers"] {
        let mut changed = Vec::new();
        for container in spec.get(list).and_then(Value::as_array).into_iter().flatten() {
            let name = container.get("name").and_then(Value::as_str).unwrap_or_default();
            let wanted = images.get_key_value(name).or_else(|| images.get_key_value("*"));
            let Some((key, image)) = wanted else { continue };
            found.push(key);
            if container.get("image").and_then(Value::as_str) != Some(image) {
                changed.push(json!({"name": name, "image": image}));
            }
        }
        if !changed.is_empty() {
            patch.insert(list.to_owned(), changed.into());
        }
    }
    if let Some(missing) = images.keys().find(|key| !found.contains(key)) {
        return Err(CliError::plain(format!("unable to find container named {missing:?}")));
    }
    if patch.is_empty() {
        return Ok(None);
    }
    let url = url.with_some(args.dry_run.query()).with("fieldManager", "kubectl-set");
    api.send(Method::PATCH, &url, Content::StrategicPatch, &nested(path, patch.into())).await.map(Some)
}

/// `rollout`
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum RolloutCommand {
    /// Follow a rollout until it is done
    Status(StatusArgs),
    /// Show the revisions
    History(HistoryArgs),
    /// Go back to an earlier revision
    Undo(UndoArgs),
    /// Replace all pods
    Restart(RolloutArgs),
    /// Hold a rollout
    Pause(RolloutArgs),
    /// Go on with a held rollout
    Resume(RolloutArgs),
}

/// What every `rollout` verb takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct RolloutArgs {
    /// TYPE NAME…, TYPE/NAME…
    pub words: Vec<String>,
    #[command(flatten)]
    pub files: FileArgs,
    /// Form of the output: name
    #[arg(short, long, default_value = "", value_parser = ["", "name"])]
    pub output: String,
}

/// `rollout status`
#[derive(Debug, Clone, Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    pub rollout: RolloutArgs,
    /// Follow until it is done
    #[arg(short, long, default_value = "true", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub watch: String,
    /// How long to follow; 0 follows for as long as it takes
    #[arg(long, default_value = "0s")]
    pub timeout: String,
    /// Follow this revision only
    #[arg(long, default_value_t = 0)]
    pub revision: i64,
}

/// `rollout history`
#[derive(Debug, Clone, Args)]
pub(crate) struct HistoryArgs {
    #[command(flatten)]
    pub rollout: RolloutArgs,
    /// Show this revision's pod template
    #[arg(long, default_value_t = 0)]
    pub revision: i64,
}

/// `rollout undo`
#[derive(Debug, Clone, Args)]
pub(crate) struct UndoArgs {
    #[command(flatten)]
    pub rollout: RolloutArgs,
    /// The revision to go back to; 0 is the one before the current
    #[arg(long, default_value_t = 0)]
    pub to_revision: i64,
    #[command(flatten)]
    pub dry_run: DryRunArgs,
}

/// Runs `rollout`.
pub(crate) async fn rollout(command: RolloutCommand, api: &Api) -> Result<(), CliError> {
    let own = match &command {
        RolloutCommand::Status(args) => &args.rollout,
        RolloutCommand::History(args) => &args.rollout,
        RolloutCommand::Undo(args) => &args.rollout,
        RolloutCommand::Restart(args) | RolloutCommand::Pause(args) | RolloutCommand::Resume(args) => args,
    };
    if own.words.is_empty() && own.files.filename.is_empty() {
        return Err(CliError::plain("required resource not specified"));
    }
    let mapper = Mapper::discover(api).await?;
    let mut errors = Vec::new();
    for target in select::targets(api, &mapper, &own.files, &own.words)? {
        let done = match &command {
            RolloutCommand::Status(args) => status(args, api, &target).await,
            RolloutCommand::History(args) => history(args, api, &mapper, &target).await,
            RolloutCommand::Undo(args) => undo(args, api, &mapper, &target).await,
            RolloutCommand::Restart(args) => {
                restart(api, &target).await.and_then(|()| said(args, &target, "restarted"))
            }
            RolloutCommand::Pause(args) => pause(api, &target, true).await.and_then(|()| said(args, &target, "paused")),
            RolloutCommand::Resume(args) => {
                pause(api, &target, false).await.and_then(|()| said(args, &target, "resumed"))
            }
        };
        errors.extend(done.err());
    }
    CliError::all(errors)
}

fn number(object: &Value, pointer: &str) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0)
}

/// Where a Deployment's rollout is: what to say, and whether it is done.
fn progress(object: &Value, revision: i64) -> Result<(String, bool), CliError> {
    let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    let own = object.pointer("/metadata/annotations").and_then(|own| own.get(REVISION)).and_then(Value::as_str);
    if revision > 0 && own.and_then(|own| own.parse().ok()) != Some(revision) {
        return Err(CliError::plain(format!(
            "desired revision ({revision}) is different from the running revision ({})",
            own.unwrap_or("0")
        )));
    }
    if number(object, "/metadata/generation") > number(object, "/status/observedGeneration") {
        return Ok(("Waiting for deployment spec update to be observed...".to_owned(), false));
    }
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
    let expired = conditions.into_iter().flatten().any(|own| {
        own.get("type").and_then(Value::as_str) == Some("Progressing")
            && own.get("reason").and_then(Value::as_str) == Some("ProgressDeadlineExceeded")
    });
    if expired {
        return Err(CliError::plain(format!("deployment {name:?} exceeded its progress deadline")));
    }
    let wanted = object.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(1);
    let updated = number(object, "/status/updatedReplicas");
    let all = number(object, "/status/replicas");
    let available = number(object, "/status/availableReplicas");
    let waiting = format!("Waiting for deployment {name:?} rollout to finish:");
    Ok(if updated < wanted {
        (format!("{waiting} {updated} out of {wanted} new replicas have been updated..."), false)
    } else if all > updated {
        (format!("{waiting} {} old replicas are pending termination...", all - updated), false)
    } else if available < updated {
        (format!("{waiting} {available} of {updated} updated replicas are available..."), false)
    } else {
        (format!("deployment {name:?} successfully rolled out"), true)
    })
}

fn require_deployment(target: &Target) -> Result<(), CliError> {
    if target.resource.kind == "Deployment" {
        return Ok(());
    }
    Err(CliError::plain(format!("no status viewer has been implemented for {}", target.resource.kind)))
}

async fn status(args: &StatusArgs, api: &Api, target: &Target) -> Result<(), CliError> {
    if target.resource.kind != "Deployment" {
        // What is not there is said first.
        api.get(&target.resource.object(&target.namespace, &target.name)).await?;
    }
    require_deployment(target)?;
    let limit = parse_duration(&args.timeout)?.filter(|limit| !limit.is_zero()).unwrap_or(Duration::MAX);
    match tokio::time::timeout(limit, follow(args, api, target)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(CliError::plain("timed out waiting for the condition")),
    }
}

async fn follow(args: &StatusArgs, api: &Api, target: &Target) -> Result<(), CliError> {
    let mut said = String::new();
    loop {
        let object = api.get(&target.resource.object(&target.namespace, &target.name)).await?;
        if report(&object, args, &mut said)? || args.watch != "true" {
            return Ok(());
        }
        let version = object.pointer("/metadata/resourceVersion").and_then(Value::as_str).unwrap_or_default();
        let url = target.resource.collection(Some(&target.namespace));
        let url = url.with("watch", "true").with("fieldSelector", format!("metadata.name={}", target.name));
        let mut events = api.watch(&url.with("resourceVersion", version), "application/json").await?;
        while let Some(event) = events.next().await {
            let event = event?;
            match event.get("type").and_then(Value::as_str) {
                Some("DELETED") => return Err(CliError::plain("object has been deleted")),
                Some("ADDED" | "MODIFIED") => {
                    if report(event.get("object").unwrap_or(&Value::Null), args, &mut said)? {
                        return Ok(());
                    }
                }
                _ => break,
            }
        }
    }
}

/// Says what is new; `true` when the rollout is done.
fn report(object: &Value, args: &StatusArgs, said: &mut String) -> Result<bool, CliError> {
    let (line, done) = progress(object, args.revision)?;
    if line != *said {
        write(&format!("{line}\n"))?;
        *said = line;
    }
    Ok(done)
}

/// A Deployment's revisions: its ReplicaSets by number.
async fn revisions(api: &Api, mapper: &Mapper, target: &Target) -> Result<BTreeMap<i64, Value>, CliError> {
    require_deployment(target)?;
    let deployment = api.get(&target.resource.object(&target.namespace, &target.name)).await?;
    let uid = deployment.pointer("/metadata/uid").cloned().unwrap_or_default();
    let sets = api.get(&mapper.find("replicasets.apps")?.collection(Some(&target.namespace))).await?;
    let mut found = BTreeMap::new();
    for set in sets.get("items").and_then(Value::as_array).into_iter().flatten() {
        let owners = set.pointer("/metadata/ownerReferences").and_then(Value::as_array);
        let owned = owners.into_iter().flatten().any(|owner| owner.get("uid") == Some(&uid));
        let revision = set.pointer("/metadata/annotations").and_then(|own| own.get(REVISION)).and_then(Value::as_str);
        if let Some(revision) = revision.and_then(|own| own.parse().ok()).filter(|_| owned) {
            found.insert(revision, set.clone());
        }
    }
    Ok(found)
}

async fn history(args: &HistoryArgs, api: &Api, mapper: &Mapper, target: &Target) -> Result<(), CliError> {
    let found = revisions(api, mapper, target).await?;
    if args.revision > 0 {
        let set = found.get(&args.revision);
        let set = set.ok_or_else(|| CliError::plain("unable to find the specified revision"))?;
        let template = set.pointer("/spec/template").cloned().unwrap_or_default();
        let text = super::describe::pod_template(&template);
        return write(&format!("{} with revision #{}\n{text}", target.display(), args.revision));
    }
    if found.is_empty() {
        return write(&format!("{} \nNo rollout history found.\n", target.display()));
    }
    let mut lines = vec![("REVISION".to_owned(), "CHANGE-CAUSE".to_owned())];
    for (revision, set) in &found {
        let cause = set.pointer("/metadata/annotations").and_then(|own| own.get(CHANGE_CAUSE)).and_then(Value::as_str);
        lines.push((revision.to_string(), cause.filter(|own| !own.is_empty()).unwrap_or("<none>").to_owned()));
    }
    let rows: String = lines.iter().map(|(revision, cause)| format!("{revision:<10}{cause}\n")).collect();
    write(&format!("{} \n{rows}\n", target.display()))
}

async fn undo(args: &UndoArgs, api: &Api, mapper: &Mapper, target: &Target) -> Result<(), CliError> {
    let found = revisions(api, mapper, target).await?;
    let current = found.keys().next_back().copied().unwrap_or(0);
    let wanted = match args.to_revision {
        0 => found.keys().rev().nth(1).copied(),
        own => found.contains_key(&own).then_some(own),
    };
    let Some(set) = wanted.and_then(|wanted| found.get(&wanted)) else {
        return Err(CliError::plain(match args.to_revision {
            0 => format!("no rollout history found for deployment {:?}", target.name),
            own => format!("unable to find specified revision {own} in history"),
        }));
    };
    if wanted == Some(current) {
        let text =
            format!("{} skipped rollback (current template already matches revision {current})\n", target.display());
        return write(&text);
    }
    let mut template = set.pointer("/spec/template").cloned().unwrap_or_default();
    if let Some(labels) = template.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.remove(TEMPLATE_HASH);
    }
    let patch = json!([{"op": "replace", "path": "/spec/template", "value": template}]);
    let url = target.resource.object(&target.namespace, &target.name).with_some(args.dry_run.query());
    api.send(Method::PATCH, &url.with("fieldManager", "kubectl-rollout"), Content::JsonPatch, &patch).await?;
    write(&format!("{} rolled back{}\n", target.display(), args.dry_run.suffix()))
}

async fn restart(api: &Api, target: &Target) -> Result<(), CliError> {
    let url = target.resource.object(&target.namespace, &target.name);
    let object = api.get(&url).await?;
    if object.pointer("/spec/paused").and_then(Value::as_bool) == Some(true) {
        let text = "can't restart paused deployment (run rollout resume first)";
        return Err(CliError::plain(format!("{} {text}", target.resource.qualified(&target.resource.plural))));
    }
    if object.pointer("/spec/template").is_none() {
        return Err(CliError::plain(format!("restarting is not supported for {}", target.resource.kind)));
    }
    let now = reeve_api::clock::RealClock::new().now();
    let stamp = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let annotation = json!({"kubectl.kubernetes.io/restartedAt": stamp});
    let patch = json!({"spec": {"template": {"metadata": {"annotations": annotation}}}});
    api.send(Method::PATCH, &url.with("fieldManager", "kubectl-rollout"), Content::StrategicPatch, &patch)
        .await
        .map(drop)
}

fn said(args: &RolloutArgs, target: &Target, what: &str) -> Result<(), CliError> {
    let what = if args.output == "name" { String::new() } else { format!(" {what}") };
    write(&format!("{}{what}\n", target.display()))
}

async fn pause(api: &Api, target: &Target, paused: bool) -> Result<(), CliError> {
    let word = if paused { "paused" } else { "resumed" };
    if target.resource.kind != "Deployment" {
        return Err(CliError::plain(format!("{} cannot be {word}", target.resource.kind)));
    }
    let url = target.resource.object(&target.namespace, &target.name);
    let object = api.get(&url).await?;
    if object.pointer("/spec/paused").and_then(Value::as_bool).unwrap_or(false) == paused {
        let already = if paused { "is already paused" } else { "is not paused" };
        let plural = target.resource.qualified(&target.resource.plural);
        return Err(CliError::plain(format!("{plural} {:?} {already}", target.name)));
    }
    let patch = json!({"spec": {"paused": paused}});
    api.send(Method::PATCH, &url.with("fieldManager", "kubectl-rollout"), Content::MergePatch, &patch).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment(status: &Value) -> Value {
        json!({"metadata": {"name": "web", "generation": 2}, "spec": {"replicas": 3}, "status": status})
    }

    #[track_caller]
    fn check(status: &Value, expected: &str, done: bool) {
        let found = progress(&deployment(status), 0).expect("no deadline");
        assert_eq!(found, (expected.to_owned(), done));
    }

    #[test]
    fn a_rollout_is_told_in_kubectls_words() {
        check(&json!({"observedGeneration": 1}), "Waiting for deployment spec update to be observed...", false);
        let at = |updated: i64, all: i64, available: i64| json!({"observedGeneration": 2, "updatedReplicas": updated, "replicas": all, "availableReplicas": available});
        let waiting = "Waiting for deployment \"web\" rollout to finish:";
        check(&at(1, 4, 3), &format!("{waiting} 1 out of 3 new replicas have been updated..."), false);
        check(&at(3, 4, 3), &format!("{waiting} 1 old replicas are pending termination..."), false);
        check(&at(3, 3, 2), &format!("{waiting} 2 of 3 updated replicas are available..."), false);
        check(&at(3, 3, 3), "deployment \"web\" successfully rolled out", true);
    }

    #[test]
    fn a_deadline_is_an_error() {
        let condition = json!({"type": "Progressing", "reason": "ProgressDeadlineExceeded"});
        let late = deployment(&json!({"observedGeneration": 2, "conditions": [condition]}));
        let err = progress(&late, 0).expect_err("late").to_string();
        assert_eq!(err, "error: deployment \"web\" exceeded its progress deadline");
    }
}
