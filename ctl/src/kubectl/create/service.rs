//! `create service clusterip|nodeport|loadbalancer|externalname`.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{CommonArgs, Create, Made, exactly_one, required};
use crate::kubectl::api::Api;
use crate::kubectl::error::CliError;

/// `create service`
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum ServiceCommand {
    /// A Service inside the cluster
    Clusterip(ClusterIpArgs),
    /// A Service on a port of every node
    Nodeport(NodePortArgs),
    /// A Service with an address from outside
    Loadbalancer(PortsArgs),
    /// A Service that stands for a name outside
    Externalname(ExternalNameArgs),
}

/// What every Service takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct PortsArgs {
    /// NAME
    pub names: Vec<String>,
    /// PORT[:TARGETPORT]; may be repeated
    #[arg(long, value_name = "PORT[:TARGETPORT]", value_delimiter = ',')]
    pub tcp: Vec<String>,
    #[command(flatten)]
    pub common: CommonArgs,
}

/// `create service clusterip`
#[derive(Debug, Clone, Args)]
pub(crate) struct ClusterIpArgs {
    #[command(flatten)]
    pub ports: PortsArgs,
    /// The Service's address; `None` for none at all [default: the cluster chooses]
    #[arg(long, value_name = "ADDRESS")]
    pub clusterip: Option<String>,
}

/// `create service nodeport`
#[derive(Debug, Clone, Args)]
pub(crate) struct NodePortArgs {
    #[command(flatten)]
    pub ports: PortsArgs,
    /// The nodes' port [default: the cluster chooses]
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    pub node_port: i32,
}

/// `create service externalname`
#[derive(Debug, Clone, Args)]
pub(crate) struct ExternalNameArgs {
    #[command(flatten)]
    pub ports: PortsArgs,
    /// The name outside
    #[arg(long, value_name = "NAME")]
    pub external_name: Option<String>,
}

/// Runs `create service`.
pub(super) async fn run(command: &ServiceCommand, api: &Api) -> Result<(), CliError> {
    let (own, kind) = match command {
        ServiceCommand::Clusterip(args) => (&args.ports, "ClusterIP"),
        ServiceCommand::Nodeport(args) => (&args.ports, "NodePort"),
        ServiceCommand::Loadbalancer(args) => (args, "LoadBalancer"),
        ServiceCommand::Externalname(args) => (&args.ports, "ExternalName"),
    };
    let name = exactly_one(&own.names, &format!("create service {}", kind.to_ascii_lowercase()))?;
    let mut spec = json!({"type": kind, "selector": {"app": name}});
    let mut ports = own.tcp.iter().map(|text| port(text)).collect::<Result<Vec<Value>, CliError>>()?;
    let mut portless = false;
    match command {
        ServiceCommand::Clusterip(args) => {
            portless = args.clusterip.as_deref() == Some("None");
            if let Some(address) = &args.clusterip {
                spec["clusterIP"] = json!(address);
            }
        }
        ServiceCommand::Nodeport(args) if args.node_port != 0 => {
            ports.iter_mut().for_each(|port| port["nodePort"] = json!(args.node_port));
        }
        ServiceCommand::Externalname(args) => {
            portless = true;
            spec["externalName"] = json!(required(args.external_name.as_deref(), "external-name")?);
        }
        ServiceCommand::Nodeport(_) | ServiceCommand::Loadbalancer(_) => {}
    }
    if ports.is_empty() && !portless {
        return Err(CliError::plain("at least one tcp port specifier must be provided"));
    }
    if !ports.is_empty() {
        spec["ports"] = Value::Array(ports);
    }
    let content = json!({
        "metadata": {"name": name, "labels": {"app": name}}, "spec": spec, "status": {"loadBalancer": {}},
    });
    let made = Made::new("v1", "Service", "services", content);
    Create::new(api, &own.common)?.generated(made, &format!("failed to create {kind} service: ")).await
}

/// `80`, `80:8080`, `80:http`
fn port(text: &str) -> Result<Value, CliError> {
    let (port, target) = text.split_once(':').unwrap_or((text, text));
    let port = parse_port(port)?;
    let target = target.parse::<u16>().map_or_else(|_| json!(target), |number| json!(number));
    Ok(json!({"name": text.replace(':', "-"), "port": port, "protocol": "TCP", "targetPort": target}))
}

/// A port's number, refused in kubectl's words.
fn parse_port(text: &str) -> Result<u16, CliError> {
    let bad = || {
        let why = if !text.is_empty() && text.chars().all(|c| c.is_ascii_digit()) {
            "value out of range"
        } else {
            "invalid syntax"
        };
        CliError::plain(format!("strconv.ParseUint: parsing {text:?}: {why}"))
    };
    text.parse().map_err(|_| bad())
}
