//! `logs`: what containers print.

use clap::Args;
use futures::StreamExt as _;
use serde_json::Value;

use super::api::{Api, Url};
use super::connect::parse_duration;
use super::error::CliError;
use super::get::write;
use super::mapper::{Mapper, Resource};
use super::select;

/// Streams followed at once, as kubectl's `--max-log-requests`.
const STREAMS_MAX: usize = 5;
/// Lines of each pod when pods are chosen by label, as kubectl's default.
const SELECTED_TAIL: i64 = 10;

/// `logs`
#[derive(Debug, Clone, Args)]
pub(crate) struct LogsArgs {
    /// POD or TYPE/NAME, then maybe the container
    pub words: Vec<String>,
    /// The container
    #[arg(short, long)]
    pub container: Option<String>,
    /// All containers of the pod
    #[arg(long)]
    pub all_containers: bool,
    /// Pods whose labels fit
    #[arg(short = 'l', long, default_value = "")]
    pub selector: String,
    /// Go on as more is printed
    #[arg(short, long)]
    pub follow: bool,
    /// Of the container's life before this one
    #[arg(short, long)]
    pub previous: bool,
    /// Only so many of the last lines; -1 means all
    #[arg(long, allow_negative_numbers = true)]
    pub tail: Option<i64>,
    /// Put the time before each line
    #[arg(long)]
    pub timestamps: bool,
    /// Only lines newer than this, such as 5m
    #[arg(long, default_value = "")]
    pub since: String,
    /// Only lines newer than this time (RFC 3339)
    #[arg(long, default_value = "")]
    pub since_time: String,
    /// At most so many bytes
    #[arg(long)]
    pub limit_bytes: Option<u64>,
    /// Put pod and container before each line
    #[arg(long)]
    pub prefix: bool,
    /// Streams followed at once
    #[arg(long, default_value_t = STREAMS_MAX)]
    pub max_log_requests: usize,
    /// Go on with the other streams when one fails
    #[arg(long)]
    pub ignore_errors: bool,
}

/// One container's log.
struct Stream {
    pod: String,
    container: String,
}

/// Runs the verb.
pub(crate) async fn run(args: LogsArgs, api: &Api) -> Result<(), CliError> {
    let streams = streams(&args, api).await?;
    if args.follow && streams.len() > args.max_log_requests {
        return Err(CliError::plain(format!(
            "you are attempting to follow {} log streams, but maximum allowed concurrency is {}, use --max-log-requests to increase the limit",
            streams.len(),
            args.max_log_requests
        )));
    }
    let prefixed = args.prefix;
    if args.follow && streams.len() > 1 {
        let all = streams.iter().map(|stream| one(&args, api, stream, prefixed));
        let outcomes = futures::future::join_all(all).await;
        return CliError::all(outcomes.into_iter().filter_map(Result::err).collect());
    }
    for stream in &streams {
        match one(&args, api, stream, prefixed).await {
            Err(err) if args.ignore_errors => eprintln!("{err}"),
            other => other?,
        }
    }
    Ok(())
}

async fn one(args: &LogsArgs, api: &Api, stream: &Stream, prefixed: bool) -> Result<(), CliError> {
    let mut lines = api.stream(&url(args, api, stream)?, "*/*").await?;
    let prefix = if prefixed { format!("[pod/{}/{}] ", stream.pod, stream.container) } else { String::new() };
    while let Some(line) = lines.next().await {
        write(&format!("{prefix}{}\n", line?))?;
    }
    Ok(())
}

fn url(args: &LogsArgs, api: &Api, stream: &Stream) -> Result<Url, CliError> {
    let path = format!("/api/v1/namespaces/{}/pods/{}/log", api.namespace, super::api::encode(&stream.pod));
    let mut url = Url::new(path).with("container", stream.container.clone());
    for (name, set) in [("follow", args.follow), ("previous", args.previous), ("timestamps", args.timestamps)] {
        if set {
            url = url.with(name, "true");
        }
    }
    let tail = args.tail.unwrap_or(if args.selector.is_empty() { -1 } else { SELECTED_TAIL });
    if tail >= 0 {
        url = url.with("tailLines", tail.to_string());
    }
    if let Some(since) = parse_duration(&args.since)? {
        url = url.with("sinceSeconds", since.as_secs().max(1).to_string());
    }
    if !args.since_time.is_empty() {
        url = url.with("sinceTime", args.since_time.clone());
    }
    Ok(url.with_some(args.limit_bytes.map(|own| ("limitBytes", own.to_string()))))
}

async fn streams(args: &LogsArgs, api: &Api) -> Result<Vec<Stream>, CliError> {
    let pods = Url::new(format!("/api/v1/namespaces/{}/pods", api.namespace));
    let (pods, several) = if args.selector.is_empty() {
        let Some(first) = args.words.first() else {
            return Err(CliError::plain(
                "expected 'logs [-f] [-p] (POD | TYPE/NAME) [-c CONTAINER]'.\nPOD or TYPE/NAME is a required argument for the logs command",
            ));
        };
        let (pod, found) = pod_of(api, first).await.map_err(|err| missing(api, first, err))?;
        if found > 1 {
            eprintln!(
                "Found {found} pods, using pod/{}",
                pod.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default()
            );
        }
        (vec![pod], false)
    } else {
        let list = api.get(&pods.with("labelSelector", args.selector.clone())).await?;
        let items = list.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
        if items.is_empty() {
            eprintln!("No resources found in {} namespace.", api.namespace);
        }
        (items, true)
    };
    let container = args.container.clone().or_else(|| args.words.get(1).cloned());
    let mut found = Vec::new();
    for pod in pods {
        let name = pod.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned();
        let containers = match (&container, args.all_containers) {
            (Some(container), _) => vec![container.clone()],
            (None, true) => containers(&pod, &["initContainers", "containers", "ephemeralContainers"]),
            (None, false) => vec![default_container(&pod, several)],
        };
        found.extend(containers.into_iter().map(|container| Stream { pod: name.clone(), container }));
    }
    Ok(found)
}

fn containers(pod: &Value, lists: &[&str]) -> Vec<String> {
    let lists = lists.iter().filter_map(|list| pod.pointer(&format!("/spec/{list}")).and_then(Value::as_array));
    lists.flatten().filter_map(|own| own.get("name").and_then(Value::as_str).map(str::to_owned)).collect()
}

/// The container that is meant when none is named: the annotated or the first one. Says so when there are several.
pub(crate) fn default_container(pod: &Value, quiet: bool) -> String {
    let annotation = pod.pointer("/metadata/annotations/kubectl.kubernetes.io~1default-container");
    let all = containers(pod, &["containers"]);
    let annotated = annotation.and_then(Value::as_str).filter(|own| all.iter().any(|name| name == own));
    if let Some(annotated) = annotated {
        return annotated.to_owned();
    }
    let first = all.first().cloned().unwrap_or_default();
    let mut shown = all.clone();
    shown.extend(containers(pod, &["initContainers"]).into_iter().map(|name| format!("{name} (init)")));
    if shown.len() > 1 && !quiet {
        eprintln!("Defaulted container {first:?} out of: {}", shown.join(", "));
    }
    first
}

/// kubectl's own words for a pod that is not there.
fn missing(api: &Api, word: &str, err: CliError) -> CliError {
    if word.contains('/') || !err.is_not_found() {
        return err;
    }
    let namespace = &api.namespace;
    CliError::plain(format!("error from server (NotFound): pods {word:?} not found in namespace {namespace:?}"))
}

/// The pod that `POD`, `pod/NAME` or `TYPE/NAME` means, and how many it was chosen from: of a workload, the first.
pub(crate) async fn pod_of(api: &Api, word: &str) -> Result<(Value, usize), CliError> {
    let pods = format!("/api/v1/namespaces/{}/pods", api.namespace);
    let Some((typed, name)) = word.split_once('/') else {
        return Ok((api.get(&Url::new(format!("{pods}/{}", super::api::encode(word)))).await?, 1));
    };
    let mapper = Mapper::discover(api).await?;
    let resource: Resource = mapper.find(typed)?.clone();
    if resource.kind == "Pod" {
        return Ok((api.get(&Url::new(format!("{pods}/{}", super::api::encode(name)))).await?, 1));
    }
    let selection = select::select(&mapper, &[word.to_owned()])?;
    let Some(target) = selection.first() else { return Err(CliError::plain(format!("{word:?} means no object"))) };
    let object = api.get(&target.resource.object(&api.namespace, name)).await?;
    let selector = selector_of(&object).ok_or_else(|| {
        CliError::plain(format!("cannot get the logs from {}: it has no pods", resource.name_of(name)))
    })?;
    let list = api.get(&Url::new(pods).with("labelSelector", selector)).await?;
    let items = list.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
    let found = items.len();
    let first = items.into_iter().next().ok_or_else(|| {
        CliError::plain(format!("timed out waiting for the condition: {} has no pods", resource.name_of(name)))
    })?;
    Ok((first, found))
}

/// The label selector of a workload or Service, in text form.
pub(crate) fn selector_of(object: &Value) -> Option<String> {
    let selector = object.pointer("/spec/selector")?.as_object()?;
    let labels = selector.get("matchLabels").and_then(Value::as_object);
    let plain = !selector.contains_key("matchLabels") && !selector.contains_key("matchExpressions");
    let labels = labels.or(plain.then_some(selector));
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut parts: Vec<String> =
        labels.into_iter().flatten().map(|(name, value)| format!("{name}={}", text(value))).collect();
    for own in selector.get("matchExpressions").and_then(Value::as_array).into_iter().flatten() {
        let key = text(own.get("key")?);
        let values: Vec<String> = own.get("values").and_then(Value::as_array).into_iter().flatten().map(text).collect();
        parts.push(match own.get("operator").and_then(Value::as_str)? {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "Exists" => key,
            _ => format!("!{key}"),
        });
    }
    (!parts.is_empty()).then(|| parts.join(","))
}
