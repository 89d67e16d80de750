//! Where a cluster's state lies: in a store of its own, or in a cluster of etcd; and the port on which the own store is
//! served to clients of etcd. Both are lasting choices, made by flags of `reeve up`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use reeve_api::clock::SharedClock;
use reeve_apiserver::pki::{LiveCertificate, Pki};
use reeve_etcd::{EtcdConfig, EtcdKv, EtcdServer, EtcdTls, ServerConfig, StoreFacts};
use reeve_store::{Leadership, Role, SharedKv, Store, StoreConfig};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::components::Surroundings;
use super::config::ClusterConfig;
use super::error::{ClusterError, at};

/// What all keys begin with in somebody else's etcd, unless told otherwise: not what Kubernetes' own begin with.
const PREFIX: &str = "/reeve";

/// The flags.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct EtcdArgs {
    /// Keep the cluster's state in this cluster of etcd instead of in the data folder; its members, separated by commas
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    pub etcd_servers: Vec<String>,
    /// Certificate of the authority of these members
    #[arg(long, value_name = "FILE", requires = "etcd_servers")]
    pub etcd_cafile: Option<PathBuf>,
    /// Certificate to show them
    #[arg(long, value_name = "FILE", requires = "etcd_cafile", requires = "etcd_keyfile")]
    pub etcd_certfile: Option<PathBuf>,
    /// Key of that certificate
    #[arg(long, value_name = "FILE", requires = "etcd_certfile")]
    pub etcd_keyfile: Option<PathBuf>,
    /// What all keys begin with there [default: /reeve]
    #[arg(long, value_name = "PREFIX", requires = "etcd_servers")]
    pub etcd_prefix: Option<String>,
    /// Serve the cluster's own store to clients of etcd (etcdctl) on this port
    #[arg(long, value_name = "PORT", conflicts_with = "etcd_servers")]
    pub etcd_port: Option<u16>,
}

/// A cluster of etcd that holds a cluster's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct EtcdChoice {
    /// Its members' URLs.
    pub servers: Vec<String>,
    /// What all keys begin with.
    pub prefix: String,
    /// Certificate of their authority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// Certificate and key to show them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_files: Option<(PathBuf, PathBuf)>,
}

impl EtcdArgs {
    fn choice(&self) -> Result<Option<EtcdChoice>, ClusterError> {
        if self.etcd_servers.is_empty() {
            return Ok(None);
        }
        let lasting = |path: &PathBuf| {
            // The background process has another working folder.
            path.canonicalize().map_err(|err| ClusterError::io(at("read", path), err))
        };
        let client = self.etcd_certfile.as_ref().zip(self.etcd_keyfile.as_ref());
        Ok(Some(EtcdChoice {
            servers: self.etcd_servers.clone(),
            prefix: self.etcd_prefix.clone().unwrap_or_else(|| PREFIX.to_owned()),
            ca_file: self.etcd_cafile.as_ref().map(lasting).transpose()?,
            client_files: client
                .map(|(cert, key)| Ok::<_, ClusterError>((lasting(cert)?, lasting(key)?)))
                .transpose()?,
        }))
    }
}

/// The choices with what the flags say. What a cluster's state lies in is chosen once.
pub(crate) fn chosen(own: ClusterConfig, args: &EtcdArgs, is_new: bool) -> Result<ClusterConfig, ClusterError> {
    let etcd = args.choice()?;
    if !is_new && etcd.is_some() && etcd.as_ref().map(|new| &new.prefix) != own.etcd.as_ref().map(|old| &old.prefix) {
        let rule = "the cluster's state lies elsewhere; `reeve down --purge` first, or another --name".to_owned();
        return Err(ClusterError::Invalid { what: "--etcd-servers", value: args.etcd_servers.join(","), rule });
    }
    if own.etcd.is_some() && args.etcd_port.is_some() {
        let (what, value) = ("--etcd-port", args.etcd_port.unwrap_or_default().to_string());
        let rule = "the cluster's state lies in an etcd, which has a port of its own".to_owned();
        return Err(ClusterError::Invalid { what, value, rule });
    }
    let etcd_port = args.etcd_port.or(own.etcd_port);
    Ok(ClusterConfig { etcd: etcd.or(own.etcd), etcd_port, ..own })
}

/// The store of a cluster that runs.
pub(crate) struct OpenStore {
    /// Where the API server keeps everything.
    pub kv: SharedKv,
    own: Option<Arc<Store>>,
    port: Option<EtcdServer>,
    /// Says that this server leads where there is no other: on an etcd.
    alone: watch::Sender<Leadership>,
}

fn alone() -> watch::Sender<Leadership> {
    watch::Sender::new(Leadership { role: Role::Leader, ..Leadership::default() })
}

/// Opens the store that the cluster has chosen.
pub(crate) async fn open(own: &Surroundings) -> Result<OpenStore, ClusterError> {
    if let Some(choice) = &own.config.etcd {
        let kv = EtcdKv::connect(config_of(choice)?).await.map_err(|err| ClusterError::component("etcd", err))?;
        return Ok(OpenStore { kv, own: None, port: None, alone: alone() });
    }
    let config = StoreConfig::new(own.paths.data_dir.join("store"), own.clock.clone(), own.rng.clone());
    let store = Store::open(StoreConfig { limits: own.config.store.limits(), ..config })
        .await
        .map_err(|err| ClusterError::component("store", err))?;
    Ok(OpenStore { kv: store.clone(), own: Some(store), port: None, alone: alone() })
}

fn config_of(choice: &EtcdChoice) -> Result<EtcdConfig, ClusterError> {
    let read = |path: &Path| std::fs::read_to_string(path).map_err(|err| ClusterError::io(at("read", path), err));
    let tls = match &choice.ca_file {
        None => None,
        Some(ca) => {
            let client = choice.client_files.as_ref();
            let client = client.map(|(cert, key)| Ok::<_, ClusterError>((read(cert)?, read(key)?))).transpose()?;
            Some(EtcdTls { ca_pem: read(ca)?, client })
        }
    };
    Ok(EtcdConfig { tls, prefix: choice.prefix.clone(), ..EtcdConfig::new(choice.servers.clone()) })
}

impl OpenStore {
    /// Who leads: what one server of several does is done by that one.
    pub(crate) fn leadership(&self) -> watch::Receiver<Leadership> {
        self.own.as_ref().map_or_else(|| self.alone.subscribe(), |store| store.leadership())
    }

    /// Serves the own store to clients of etcd, if that was chosen: on loopback and on the node's address.
    pub(crate) async fn serve(&mut self, own: &Surroundings, pki: &Pki) -> Result<(), ClusterError> {
        let (Some(port), Some(store)) = (own.config.etcd_port, &self.own) else { return Ok(()) };
        let failed = |err: &dyn std::fmt::Display| ClusterError::component("port for clients of etcd", err);
        let addresses = [IpAddr::from(Ipv4Addr::LOCALHOST), own.node_ip.into()];
        let urls = addresses.iter().map(|address| format!("https://{}", SocketAddr::from((*address, port)))).collect();
        let facts = StoreFacts::of(store.clone(), urls).await.map_err(|err| failed(&err))?;
        let server = server(pki, &own.clock, (self.kv.clone(), facts), &addresses)?;
        let mut bound = addresses.to_vec();
        bound.dedup();
        for address in bound {
            let address = SocketAddr::from((address, port));
            let listener = TcpListener::bind(address);
            let listener = listener.map_err(|err| ClusterError::io(format!("listen on {address}"), err))?;
            server.serve(listener).map_err(|err| failed(&err))?;
        }
        self.port = Some(server);
        Ok(())
    }

    /// Ends what can be ended in order.
    pub(crate) async fn close(&self) {
        if let Some(port) = &self.port {
            port.stop().await;
        }
        let Some(store) = &self.own else { return };
        if let Err(err) = store.close().await {
            tracing::error!(%err, "the store was not closed cleanly; it will be checked at the next start");
        }
    }
}

fn server(
    pki: &Pki,
    clock: &SharedClock,
    (kv, facts): (SharedKv, StoreFacts),
    addresses: &[IpAddr],
) -> Result<EtcdServer, ClusterError> {
    let certificates = pki.etcd(addresses, clock.now()).map_err(|err| ClusterError::component("certificates", err))?;
    let shown = LiveCertificate::new(&certificates.serving);
    let shown = shown.map_err(|err| ClusterError::component("certificates", err))?;
    let config = ServerConfig {
        kv,
        facts: Arc::new(facts),
        clock: clock.clone(),
        client_ca_pem: certificates.ca_pem,
        certificate: shown,
    };
    EtcdServer::new(config).map_err(|err| ClusterError::component("port for clients of etcd", err))
}
