//! `describe`: everything worth knowing about objects, for people.
//!
//! kubectl's layout: one describer per kind, a general one for the rest, events last. Each describer writes lines
//! with tabs; [`super::output::tabwriter`] aligns them.

mod node;
mod pod;
mod resources;
mod service;
mod text;
mod volume;
mod workload;

use clap::Args;
use serde_json::Value;

use super::api::{Api, Url};
use super::args::FileArgs;
use super::error::CliError;
use super::get::write;
use super::mapper::{Mapper, Resource};
use super::output::tabwriter;
use super::select;
use text::Text;
pub(crate) use text::{age_of_event, time_of_event};

/// `describe`
#[derive(Debug, Clone, Args)]
pub(crate) struct DescribeArgs {
    /// TYPE [NAME…], TYPE/NAME…
    pub words: Vec<String>,
    #[command(flatten)]
    pub files: FileArgs,
    /// Of all namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// Objects whose labels fit
    #[arg(short = 'l', long, default_value = "")]
    pub selector: String,
    /// Show the objects' events
    #[arg(long, default_value = "true", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub show_events: String,
}

/// Runs the verb.
pub(crate) async fn run(args: DescribeArgs, api: &Api) -> Result<(), CliError> {
    let mapper = Mapper::discover(api).await?;
    let (mut errors, mut texts) = (Vec::new(), Vec::new());
    let selections = if args.files.filename.is_empty() {
        select::select(&mapper, &args.words)?
    } else {
        let targets = select::targets(api, &mapper, &args.files, &[])?;
        targets.into_iter().map(|own| select::Selection { resource: own.resource, names: vec![own.name] }).collect()
    };
    for selection in &selections {
        match objects(&args, api, selection).await {
            Ok(objects) => {
                for object in objects {
                    texts.push(describe(&args, api, &mapper, &selection.resource, &object).await);
                }
            }
            Err(err) => errors.push(err),
        }
    }
    if texts.is_empty() && errors.is_empty() {
        eprintln!("No resources found in {} namespace.", api.namespace);
    }
    write(&texts.join("\n\n"))?;
    CliError::all(errors)
}

async fn objects(args: &DescribeArgs, api: &Api, selection: &select::Selection) -> Result<Vec<Value>, CliError> {
    let resource = &selection.resource;
    if selection.names.is_empty() {
        let namespace = (!args.all_namespaces).then_some(api.namespace.as_str());
        let url = resource.collection(namespace);
        let url = if args.selector.is_empty() { url } else { url.with("labelSelector", args.selector.clone()) };
        let list = api.get(&url).await?;
        return Ok(list.get("items").and_then(Value::as_array).cloned().unwrap_or_default());
    }
    let mut found = Vec::new();
    for name in &selection.names {
        match api.get(&resource.object(&api.namespace, name)).await {
            Ok(object) => found.push(object),
            Err(err) if err.is_not_found() => found.extend(by_prefix(api, resource, name, err).await?),
            Err(err) => return Err(err),
        }
    }
    Ok(found)
}

/// kubectl takes the beginning of a name too.
async fn by_prefix(api: &Api, resource: &Resource, prefix: &str, missing: CliError) -> Result<Vec<Value>, CliError> {
    let list = api.get(&resource.collection(Some(&api.namespace))).await?;
    let named = |item: &&Value| text::at(item, "/metadata/name").starts_with(prefix);
    let found: Vec<Value> =
        list.get("items").and_then(Value::as_array).into_iter().flatten().filter(named).cloned().collect();
    if found.is_empty() { Err(missing) } else { Ok(found) }
}

async fn describe(args: &DescribeArgs, api: &Api, mapper: &Mapper, resource: &Resource, object: &Value) -> String {
    let mut out = Text::default();
    match (resource.group.as_str(), resource.kind.as_str()) {
        ("", "Pod") => pod::pod(&mut out, object),
        ("apps", "Deployment") => workload::deployment(&mut out, object, &replica_sets(api, mapper, object).await),
        ("apps", "ReplicaSet") => workload::replica_set(&mut out, object, &pods_of_set(api, object).await),
        ("", "Service") => service::service(&mut out, object, &slices(api, object).await),
        ("", "Endpoints") => service::endpoints(&mut out, object),
        ("discovery.k8s.io", "EndpointSlice") => service::endpoint_slice(&mut out, object),
        ("", "Node") => {
            let lease = lease(api, object).await.map_err(|err| match err {
                CliError::Server(status) => status.message.unwrap_or_default(),
                other => other.to_string(),
            });
            node::node(&mut out, object, lease.as_ref().map_err(Clone::clone), &pods_of_node(api, object).await);
        }
        ("", "ConfigMap") => resources::config_map(&mut out, object),
        ("", "Secret") => resources::secret(&mut out, object),
        ("", "Namespace") => resources::namespace(&mut out, object, mapper.find("resourcequotas").is_ok()),
        ("", "ServiceAccount") => resources::service_account(&mut out, object),
        _ => resources::any(&mut out, object),
    }
    if args.show_events == "true" && !matches!(resource.kind.as_str(), "Event" | "Secret" | "Namespace") {
        events(&mut out, api, object).await;
    }
    tabwriter::align(&out.finish())
}

/// A pod template, as `rollout history --revision` shows it.
pub(crate) fn pod_template(template: &Value) -> String {
    let mut out = Text::default();
    pod::template(&mut out, template);
    tabwriter::align(&out.finish())
}

async fn list(api: &Api, url: Url) -> Vec<Value> {
    let list = api.get(&url).await.unwrap_or_default();
    list.get("items").and_then(Value::as_array).cloned().unwrap_or_default()
}

async fn replica_sets(api: &Api, mapper: &Mapper, deployment: &Value) -> Vec<Value> {
    let Ok(resource) = mapper.find("replicasets.apps") else { return Vec::new() };
    let uid = deployment.pointer("/metadata/uid");
    let all = list(api, resource.collection(Some(text::at(deployment, "/metadata/namespace")))).await;
    let owners = |set: &Value| set.pointer("/metadata/ownerReferences").and_then(Value::as_array).cloned();
    all.into_iter().filter(|set| owners(set).unwrap_or_default().iter().any(|own| own.get("uid") == uid)).collect()
}

async fn slices(api: &Api, service: &Value) -> Vec<Value> {
    let (namespace, name) = (text::at(service, "/metadata/namespace"), text::at(service, "/metadata/name"));
    let path = format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices");
    list(api, Url::new(path).with("labelSelector", format!("kubernetes.io/service-name={name}"))).await
}

async fn pods_of_node(api: &Api, node: &Value) -> Vec<Value> {
    let name = text::at(node, "/metadata/name");
    let selector = format!("spec.nodeName={name},status.phase!=Failed,status.phase!=Succeeded");
    list(api, Url::new("/api/v1/pods").with("fieldSelector", selector)).await
}

async fn pods_of_set(api: &Api, set: &Value) -> Vec<Value> {
    let url = Url::new(format!("/api/v1/namespaces/{}/pods", text::at(set, "/metadata/namespace")));
    list(api, url.with("labelSelector", pod::selector(set))).await
}

async fn lease(api: &Api, node: &Value) -> Result<Value, CliError> {
    let path = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    api.get(&Url::new(format!("{path}/{}", text::at(node, "/metadata/name")))).await
}

async fn events(out: &mut Text, api: &Api, object: &Value) {
    let namespace = Some(text::at(object, "/metadata/namespace")).filter(|own| !own.is_empty()).unwrap_or("default");
    let uid = text::at(object, "/metadata/uid");
    let name = text::at(object, "/metadata/name");
    let selector = format!("involvedObject.name={name},involvedObject.uid={uid}");
    let url = Url::new(format!("/api/v1/namespaces/{namespace}/events")).with("fieldSelector", selector);
    let mut found = list(api, url).await;
    if found.is_empty() {
        out.line(0, "Events", "<none>");
        return;
    }
    found.sort_by_cached_key(text::time_of_event);
    out.raw("Events:\n  Type\tReason\tAge\tFrom\tMessage\n  ----\t------\t----\t----\t-------\n");
    for event in &found {
        let message = text::at(event, "/message").trim().replace('\n', " ");
        let from = Some(text::at(event, "/source/component")).filter(|own| !own.is_empty());
        let from = from.unwrap_or_else(|| text::at(event, "/reportingComponent"));
        let (kind, reason) = (text::at(event, "/type"), text::at(event, "/reason"));
        out.raw(&format!("  {kind}\t{reason}\t{}\t{from}\t{message}\n", text::age_of_event(event)));
    }
}
