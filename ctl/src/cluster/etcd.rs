//! Where a cluster's state lies: in a store of its own, or in a cluster of etcd; and the port on which the own store is
//! served to clients of etcd. Both are lasting choices, made by flags of `reeve up` and `reeve server`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use futures::future::BoxFuture;
use reeve_api::clock::SharedClock;
use reeve_apiserver::pki::{LiveCertificate, Pki};
use reeve_etcd::{EtcdConfig, EtcdKv, EtcdServer, EtcdTls, ServerConfig, StoreFacts};
use reeve_store::{SharedKv, Store, StoreConfig};
use serde::{Deserialize, Serialize};

use super::components::{Surroundings, keep_valid};
use super::error::{ClusterError, at, with_causes};
use super::store::StoreArgs;

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

impl EtcdChoice {
    /// The flags that say the same, for another server.
    pub(super) fn flags(&self) -> String {
        let mut flags = format!("--etcd-servers {}", self.servers.join(","));
        let mut add = |flag: &str, value: &dyn std::fmt::Display| flags.push_str(&format!(" --etcd-{flag} {value}"));
        if self.prefix != PREFIX {
            add("prefix", &self.prefix);
        }
        if let Some(file) = &self.ca_file {
            add("cafile", &file.display());
        }
        if let Some((certificate, key)) = &self.client_files {
            add("certfile", &certificate.display());
            add("keyfile", &key.display());
        }
        flags
    }
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

/// What was chosen before: an etcd, and the port for clients of etcd.
pub(crate) type Before = (Option<EtcdChoice>, Option<u16>);

/// The choices with what the flags say. What a cluster's state lies in is chosen once; `elsewhere` says how another one
/// is made.
pub(crate) fn chosen(
    (etcd, port): Before,
    args: &EtcdArgs,
    is_new: bool,
    elsewhere: &str,
) -> Result<Before, ClusterError> {
    let given = args.choice()?;
    if !is_new && given.is_some() && given.as_ref().map(|new| &new.prefix) != etcd.as_ref().map(|old| &old.prefix) {
        let rule = format!("the cluster's state lies elsewhere; {elsewhere}");
        return Err(ClusterError::Invalid { what: "--etcd-servers", value: args.etcd_servers.join(","), rule });
    }
    if etcd.is_some() && args.etcd_port.is_some() {
        let (what, value) = ("--etcd-port", args.etcd_port.unwrap_or_default().to_string());
        let rule = "the cluster's state lies in an etcd, which has a port of its own".to_owned();
        return Err(ClusterError::Invalid { what, value, rule });
    }
    let etcd = given.or(etcd);
    let port = args.etcd_port.or(port).filter(|_| etcd.is_none());
    Ok((etcd, port))
}

/// Refuses what an etcd decides for itself.
pub(crate) fn check_store(etcd: Option<&EtcdChoice>, args: &StoreArgs) -> Result<(), ClusterError> {
    let quota = args.quota_backend_bytes.filter(|_| etcd.is_some());
    quota.map_or(Ok(()), |bytes| {
        let rule = "the state lies in an etcd, which has a quota of its own".to_owned();
        Err(ClusterError::Invalid { what: "--quota-backend-bytes", value: bytes.to_string(), rule })
    })
}

/// The store of a cluster that runs.
pub(crate) struct OpenStore {
    /// Where the API server keeps everything.
    pub kv: SharedKv,
    own: Option<Arc<Store>>,
    port: Option<EtcdServer>,
}

/// Opens the store that the cluster has chosen.
pub(crate) async fn open(own: &Surroundings) -> Result<OpenStore, ClusterError> {
    if let Some(choice) = &own.config.etcd {
        let kv = connect(choice).await?;
        refuse_servers(&kv, choice).await?;
        return Ok(OpenStore { kv, own: None, port: None });
    }
    let config = StoreConfig::new(own.paths.data_dir.join("store"), own.clock.clone(), own.rng.clone());
    let store = Store::open(StoreConfig { limits: own.config.store.limits(), ..config })
        .await
        .map_err(|err| ClusterError::component("store", with_causes(&err)))?;
    Ok(OpenStore { kv: store.clone(), own: Some(store), port: None })
}

/// The state in an etcd.
pub(super) async fn connect(choice: &EtcdChoice) -> Result<SharedKv, ClusterError> {
    let kv = EtcdKv::connect(config_of(choice)?).await.map_err(|err| ClusterError::component("etcd", err))?;
    Ok(kv)
}

/// Refuses the state of a control plane of servers: those have its keys, and would go on writing.
async fn refuse_servers(kv: &SharedKv, choice: &EtcdChoice) -> Result<(), ClusterError> {
    let owner = reeve_apiserver::join::owner(kv).await.map_err(|err| ClusterError::component("etcd", err))?;
    let Some(_) = owner else { return Ok(()) };
    Err(ClusterError::Told(format!(
        "the etcd at {} holds under {:?} a control plane of servers (`reeve server`): choose another --etcd-prefix",
        choice.servers.join(","),
        choice.prefix
    )))
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
    /// Serves the own store to clients of etcd, if that was chosen: on loopback and on the node's address. What keeps
    /// the port's certificate valid is returned.
    pub(crate) async fn serve(&mut self, own: &Surroundings, pki: &Pki) -> Result<Option<Renewal>, ClusterError> {
        let (Some(port), Some(store)) = (own.config.etcd_port, &self.own) else { return Ok(None) };
        let mut addresses = vec![IpAddr::from(Ipv4Addr::LOCALHOST), own.node_ip.into()];
        addresses.dedup();
        let bind = |address: &IpAddr| {
            let address = SocketAddr::from((*address, port));
            TcpListener::bind(address).map_err(|err| ClusterError::io(format!("listen on {address}"), err))
        };
        let listeners = addresses.iter().map(bind).collect::<Result<Vec<_>, _>>()?;
        let (server, renewal) = serve_store(store, pki, &own.clock, Port { port, addresses, listeners }).await?;
        self.port = Some(server);
        Ok(Some(renewal))
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

/// Where clients of etcd reach a store.
pub(super) struct Port {
    /// Its number.
    pub port: u16,
    /// What its certificate is valid for, and what clients are told.
    pub addresses: Vec<IpAddr>,
    /// Already bound.
    pub listeners: Vec<TcpListener>,
}

/// Keeps a certificate valid as long as it is polled.
pub(super) type Renewal = BoxFuture<'static, ()>;

/// Serves a store to clients of etcd.
pub(super) async fn serve_store(
    store: &Arc<Store>,
    pki: &Pki,
    clock: &SharedClock,
    at: Port,
) -> Result<(EtcdServer, Renewal), ClusterError> {
    let failed = |err: &dyn std::fmt::Display| ClusterError::component("port for clients of etcd", err);
    let url = |address: &IpAddr| format!("https://{}", SocketAddr::from((*address, at.port)));
    let facts = StoreFacts::of(Arc::clone(store), at.addresses.iter().map(url).collect()).await;
    let facts = Arc::new(facts.map_err(|err| failed(&err))?);
    let (folder, time, addresses) = (pki.clone(), clock.clone(), at.addresses);
    let issue = move || folder.etcd(&addresses, time.now()).map(|certificates| certificates.serving);
    let shown = LiveCertificate::new(&issue().map_err(|err| failed(&err))?).map_err(|err| failed(&err))?;
    let config = ServerConfig {
        kv: Arc::clone(store) as SharedKv,
        facts,
        clock: clock.clone(),
        client_ca_pem: pki.etcd_ca_pem().to_owned(),
        certificate: Arc::clone(&shown) as _,
    };
    let server = EtcdServer::new(config).map_err(|err| failed(&err))?;
    at.listeners.into_iter().try_for_each(|listener| server.serve(listener)).map_err(|err| failed(&err))?;
    Ok((server, Box::pin(keep_valid(shown, issue))))
}
