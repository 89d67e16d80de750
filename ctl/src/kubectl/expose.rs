//! `expose`: a Service for what a workload, a pod or another Service selects.

use clap::Args;
use serde_json::{Map, Value, json};

use super::api::Api;
use super::args::FileArgs;
use super::create::{CommonArgs, Create, Made};
use super::error::CliError;
use super::mapper::Mapper;
use super::select::{self, Target};

/// `expose`
#[derive(Debug, Clone, Args)]
pub(crate) struct ExposeArgs {
    /// TYPE NAME, TYPE/NAME
    pub words: Vec<String>,
    #[command(flatten)]
    pub files: FileArgs,
    /// The Service's port, or several with commas [default: the containers' ports]
    #[arg(long, default_value = "")]
    pub port: String,
    /// Number or name of the pods' port [default: the Service's port]
    #[arg(long, default_value = "")]
    pub target_port: String,
    /// TCP, UDP or SCTP [default: the containers', else TCP]
    #[arg(long)]
    pub protocol: Option<String>,
    /// ClusterIP, NodePort, LoadBalancer or ExternalName
    #[arg(long, default_value = "")]
    pub r#type: String,
    /// Name of the Service [default: the object's]
    #[arg(long, default_value = "")]
    pub name: String,
    /// Labels of the Service, KEY=VALUE with commas [default: the object's]
    #[arg(short, long, default_value = "")]
    pub labels: String,
    /// Labels of the pods, KEY=VALUE with commas [default: the object's selector]
    #[arg(long, default_value = "")]
    pub selector: String,
    /// The Service's address; `None` for none at all
    #[arg(long, default_value = "")]
    pub cluster_ip: String,
    /// An address from outside that leads to the nodes
    #[arg(long, default_value = "")]
    pub external_ip: String,
    /// None or ClientIP
    #[arg(long, default_value = "")]
    pub session_affinity: String,
    #[command(flatten)]
    pub common: CommonArgs,
}

/// Runs the verb.
pub(crate) async fn run(args: ExposeArgs, api: &Api) -> Result<(), CliError> {
    let mapper = Mapper::discover(api).await?;
    let create = Create::new(api, &args.common)?.saying("exposed");
    let mut errors = Vec::new();
    for target in select::targets(api, &mapper, &args.files, &args.words)? {
        let exposed = async {
            let made = made(&args, api, &target).await?;
            create.generated(made, "").await
        };
        errors.extend(exposed.await.err());
    }
    CliError::all(errors)
}

async fn made(args: &ExposeArgs, api: &Api, target: &Target) -> Result<Made, CliError> {
    let kind = target.resource.kind.as_str();
    if !matches!(kind, "ReplicationController" | "Service" | "Pod" | "Deployment" | "ReplicaSet") {
        let kind = target.resource.qualified(kind);
        return Err(CliError::plain(format!("cannot expose a {kind}")));
    }
    let object = api.get(&target.resource.object(&target.namespace, &target.name)).await?;
    let name = if args.name.is_empty() { target.name.as_str() } else { args.name.as_str() };
    let mut metadata = json!({"name": name});
    let labels = labels(args, &object)?;
    if !labels.is_empty() {
        metadata["labels"] = Value::Object(labels);
    }
    let mut spec = json!({"selector": selector(args, &object, kind)?});
    if args.cluster_ip != "None" || !args.port.is_empty() {
        spec["ports"] = Value::Array(ports(args, &object, kind)?);
    }
    for (field, value) in
        [("type", &args.r#type), ("clusterIP", &args.cluster_ip), ("sessionAffinity", &args.session_affinity)]
    {
        if !value.is_empty() {
            spec[field] = json!(value);
        }
    }
    if !args.external_ip.is_empty() {
        spec["externalIPs"] = json!([args.external_ip]);
    }
    let content = json!({"metadata": metadata, "spec": spec, "status": {"loadBalancer": {}}});
    Ok(Made::new("v1", "Service", "services", content))
}

fn labels(args: &ExposeArgs, object: &Value) -> Result<Map<String, Value>, CliError> {
    if !args.labels.is_empty() {
        return pairs(&args.labels);
    }
    Ok(object.pointer("/metadata/labels").and_then(Value::as_object).cloned().unwrap_or_default())
}

/// `a=b,c=d`
pub(super) fn pairs(text: &str) -> Result<Map<String, Value>, CliError> {
    let pair = |pair: &str| match pair.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), json!(value))),
        _ => Err(CliError::plain(format!("unexpected label spec: {pair}"))),
    };
    text.split(',').map(pair).collect()
}

fn selector(args: &ExposeArgs, object: &Value, kind: &str) -> Result<Value, CliError> {
    if !args.selector.is_empty() {
        return pairs(&args.selector).map(Value::Object);
    }
    let refused = |why: &str| {
        Err(CliError::plain(format!("couldn't retrieve selectors via --selector flag or introspection: {why}")))
    };
    let found = match kind {
        "Pod" => object.pointer("/metadata/labels"),
        "Service" => object.pointer("/spec/selector"),
        _ if object.pointer("/spec/selector/matchExpressions").is_some() => {
            return refused("couldn't convert expressions to map-based selector format");
        }
        _ => object.pointer("/spec/selector/matchLabels"),
    };
    match (found, kind) {
        (Some(found), _) => Ok(found.clone()),
        (None, "Pod") => refused("the pod has no labels and cannot be exposed"),
        (None, _) => refused("no selectors found"),
    }
}

fn ports(args: &ExposeArgs, object: &Value, kind: &str) -> Result<Vec<Value>, CliError> {
    let known = known_ports(object, kind);
    let wanted: Vec<u16> = if args.port.is_empty() {
        known.iter().map(|(port, _)| *port).collect()
    } else {
        args.port.split(',').map(number).collect::<Result<_, _>>()?
    };
    if wanted.is_empty() {
        return Err(CliError::plain("couldn't find port via --port flag or introspection"));
    }
    let several = wanted.len() > 1;
    let port = |(index, number): (usize, &u16)| {
        let own = known.iter().find(|(port, _)| port == number).map(|(_, protocol)| protocol.as_str());
        let protocol = args.protocol.as_deref().or(own).unwrap_or("TCP");
        let target = match args.target_port.parse::<u16>() {
            Ok(target) => json!(target),
            Err(_) if args.target_port.is_empty() => json!(number),
            Err(_) => json!(args.target_port),
        };
        let mut port = json!({"port": number, "protocol": protocol, "targetPort": target});
        if several {
            port["name"] = json!(format!("port-{}", index + 1));
        }
        port
    };
    Ok(wanted.iter().enumerate().map(port).collect())
}

fn number(text: &str) -> Result<u16, CliError> {
    text.parse().map_err(|_| CliError::plain(format!("strconv.Atoi: parsing {text:?}: invalid syntax")))
}

/// The ports that the object names, with their protocols.
fn known_ports(object: &Value, kind: &str) -> Vec<(u16, String)> {
    let list = |pointer: &str| object.pointer(pointer).and_then(Value::as_array).cloned().unwrap_or_default();
    let (ports, field) = match kind {
        "Service" => (list("/spec/ports"), "port"),
        "Pod" => (container_ports(&list("/spec/containers")), "containerPort"),
        _ => (container_ports(&list("/spec/template/spec/containers")), "containerPort"),
    };
    let read = |port: &Value| {
        let number = port.get(field).and_then(Value::as_u64).and_then(|own| u16::try_from(own).ok())?;
        Some((number, port.get("protocol").and_then(Value::as_str).unwrap_or("TCP").to_owned()))
    };
    ports.iter().filter_map(read).collect()
}

fn container_ports(containers: &[Value]) -> Vec<Value> {
    containers.iter().filter_map(|own| own.get("ports").and_then(Value::as_array)).flatten().cloned().collect()
}
