//! The flags of `reeve server`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use ipnet::Ipv4Net;

use super::super::etcd::EtcdArgs;
use super::super::store::StoreArgs;
use crate::kubectl::connect::parse_duration;

/// Where a server's data lies unless it is told otherwise.
pub(super) const DATA_DIR: &str = "/var/lib/reeve/server";

/// `reeve server`
#[derive(Debug, Clone, Args)]
pub(crate) struct ServerArgs {
    /// Name of this server, unique in the control plane and lasting [default: the host name]
    #[arg(long)]
    pub name: Option<String>,
    /// Where its data lies
    #[arg(long, value_name = "DIR", default_value = DATA_DIR)]
    pub data_dir: PathBuf,
    /// Address by which other servers, nodes and pods reach this one [default: that of the default route]
    #[arg(long, value_name = "IP")]
    pub advertise_address: Option<Ipv4Addr>,
    /// Address to listen on
    #[arg(long, value_name = "IP", default_value = "0.0.0.0")]
    pub bind_address: IpAddr,
    /// Port of the API server
    #[arg(long, value_name = "PORT", default_value_t = 6443)]
    pub secure_port: u16,
    /// Port for the other servers
    #[arg(long, value_name = "PORT", default_value_t = 2380)]
    pub peer_port: u16,
    /// Addresses of pods, settled by the first server [default: 10.64.0.0/16]
    #[arg(long, value_name = "CIDR", conflicts_with = "join")]
    pub cluster_cidr: Option<Ipv4Net>,
    /// Addresses of Services, settled by the first server [default: 10.128.0.0/20]
    #[arg(long, value_name = "CIDR", conflicts_with = "join")]
    pub service_cidr: Option<Ipv4Net>,
    /// Join the control plane that the server at this address belongs to; needs --token, or REEVE_TOKEN in the
    /// environment. Once it has joined, the flag means nothing
    #[arg(long, value_name = "ADDRESS")]
    pub join: Option<String>,
    /// Take the place, and the name unless --name says otherwise, of this member, which is lost
    #[arg(long, value_name = "MEMBER", requires = "join")]
    pub replace: Option<String>,
    /// How often the leader compares the data of all servers, such as 10m; 0 for never
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = duration)]
    pub corrupt_check_time: Duration,
    /// Where the control plane's state lies.
    #[command(flatten)]
    pub etcd: EtcdArgs,
    #[command(flatten)]
    pub store: StoreArgs,
}

fn duration(text: &str) -> Result<Duration, String> {
    let parsed = parse_duration(text).map_err(|err| err.to_string())?;
    Ok(parsed.unwrap_or_default())
}

impl ServerArgs {
    /// How often the data of all servers is compared, if ever.
    pub(super) fn compared_every(&self) -> Option<Duration> {
        Some(self.corrupt_check_time).filter(|every| !every.is_zero())
    }

    /// Where the API server listens.
    pub(super) fn api_listener(&self) -> SocketAddr {
        SocketAddr::new(self.bind_address, self.secure_port)
    }

    /// Where clients of etcd are listened to, on that port.
    pub(super) fn etcd_listener(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.bind_address, port)
    }

    /// Where the other servers are listened to.
    pub(super) fn peer_listener(&self) -> SocketAddr {
        SocketAddr::new(self.bind_address, self.peer_port)
    }
}
