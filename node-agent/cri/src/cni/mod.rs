//! Pods' networks by CNI plugins, as `crictl` users and kubelets expect of a runtime.
//!
//! Which network there is stands in the configuration folder (`config.rs`); a pod gets the first one. What was done for
//! a sandbox is kept before and after it is done, so that it can be undone in any later life with the very
//! configuration it was done with. Without a configuration a pod has its loopback only. What is not here: Services, and
//! the node network of our own clusters.
//!
//! Source: the CNI specification 1.0 (`containernetworking/cni/SPEC.md`).

mod config;
mod plugin;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use config::{ConfigError, NetworkList};
pub use plugin::PluginError;

/// Name of a pod's interface.
pub(crate) const INTERFACE: &str = "eth0";
/// Longest record: a network list and a result.
const RECORD_BYTES_MAX: u64 = 4 << 20;

/// Why a pod has no network. Retryable.
#[derive(Debug, thiserror::Error)]
pub enum CniError {
    /// A plugin failed.
    #[error(transparent)]
    Plugin(#[from] PluginError),
    /// What was done before cannot be kept or read.
    #[error("failed to {step} {path:?}: {source}")]
    Record {
        /// What was tried.
        step: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Where configuration and plugins lie.
#[derive(Debug, Clone)]
pub struct CniConfig {
    /// `/etc/cni/net.d`
    pub conf_dir: PathBuf,
    /// `/opt/cni/bin`; the first folder with a plugin wins.
    pub bin_dirs: Vec<PathBuf>,
    /// Where it is kept what was done.
    pub record_dir: PathBuf,
}

/// A pod to be wired.
#[derive(Debug, Clone)]
pub struct Pod {
    /// Its sandbox.
    pub id: String,
    /// Its network namespace.
    pub netns: PathBuf,
    /// What plugins are told of it besides, `K8S_POD_NAME` and its like.
    pub args: Vec<(&'static str, String)>,
    /// What a plugin gets that says it can do this, `portMappings` and its like.
    pub capabilities: BTreeMap<String, Value>,
}

/// What was done for a sandbox.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    /// The network; `None`: there was none.
    list: Option<NetworkList>,
    netns: PathBuf,
    args: String,
    capabilities: BTreeMap<String, Value>,
    /// What the last plugin said; `None` until all have.
    result: Option<Value>,
}

/// Wires pods. Any number of tasks may do so at once, one per pod.
#[derive(Debug)]
pub struct Cni {
    config: CniConfig,
    /// Addresses of pods that are wired: asked for often, and never changed.
    known: Mutex<BTreeMap<String, Arc<[IpAddr]>>>,
}

impl Cni {
    /// Makes the folder of the records.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new(config: CniConfig) -> io::Result<Self> {
        std::fs::create_dir_all(&config.record_dir)?;
        Ok(Self { config, known: Mutex::default() })
    }

    /// The network that the next pod gets; `None`: there is none. Blocks.
    ///
    /// # Errors
    /// When there is a configuration that cannot be used, and none that can.
    pub fn network(&self) -> Result<Option<NetworkList>, ConfigError> {
        config::load(&self.config.conf_dir)
    }

    /// Wires a pod; its addresses. After an error everything is undone, as far as it can be.
    ///
    /// # Errors
    /// See [`CniError`].
    pub async fn attach(&self, pod: &Pod, list: Option<NetworkList>) -> Result<Arc<[IpAddr]>, CniError> {
        let args = pod.args.iter().map(|(name, value)| format!("{name}={value}"));
        let mut record = Record {
            list,
            netns: pod.netns.clone(),
            args: args.collect::<Vec<_>>().join(";"),
            capabilities: pod.capabilities.clone(),
            result: None,
        };
        self.write(&pod.id, &record)?;
        match self.add(&pod.id, &record).await {
            // Nothing said, where there is no network, is a result, too.
            Ok(Value::Null) => record.result = Some(Value::Object(serde_json::Map::new())),
            Ok(result) => record.result = Some(result),
            Err(error) => {
                if let Err(left) = self.detach(&pod.id).await {
                    tracing::warn!(sandbox = pod.id, %left, "parts of a pod's network are left behind");
                }
                return Err(error.into());
            }
        }
        self.write(&pod.id, &record)?;
        Ok(self.remember(&pod.id, &record))
    }

    async fn add(&self, id: &str, record: &Record) -> Result<Value, PluginError> {
        let mut result = Value::Null;
        for plugin in record.list.iter().flat_map(NetworkList::plugins) {
            result = self.run("ADD", id, record, &plugin, &result).await?;
        }
        Ok(result)
    }

    /// Takes a pod's network away, with the configuration it was made with. Idempotent.
    ///
    /// # Errors
    /// See [`CniError`]; it may be called again.
    pub async fn detach(&self, id: &str) -> Result<(), CniError> {
        let Some(record) = self.read(id)? else { return Ok(()) };
        let result = record.result.clone().unwrap_or_default();
        let mut plugins: Vec<_> = record.list.iter().flat_map(NetworkList::plugins).collect();
        plugins.reverse();
        for plugin in plugins {
            self.run("DEL", id, &record, &plugin, &result).await?;
        }
        let path = self.path(id);
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(CniError::Record { step: "remove", path, source });
            }
            _ => {}
        }
        self.known(|known| known.remove(id));
        Ok(())
    }

    /// Asks the plugins whether a pod's network is still as they made it.
    ///
    /// # Errors
    /// When it is not.
    pub async fn check(&self, id: &str) -> Result<(), CniError> {
        let Some(record) = self.read(id)? else { return Ok(()) };
        let result = record.result.clone().unwrap_or_default();
        let addresses = plugin::addresses(&result);
        for plugin in record.list.iter().filter(|list| list.has_check()).flat_map(NetworkList::plugins) {
            match self.run("CHECK", id, &record, &plugin, &result).await {
                Err(error) if error.misses_what_is_not_made(&addresses) => {}
                checked => drop(checked?),
            }
        }
        Ok(())
    }

    /// The addresses of a pod; `None`: it was never wired to the end. Blocks.
    ///
    /// # Errors
    /// When its record cannot be read.
    pub fn addresses(&self, id: &str) -> Result<Option<Arc<[IpAddr]>>, CniError> {
        if let Some(known) = self.known(|known| known.get(id).cloned()) {
            return Ok(Some(known));
        }
        let record = self.read(id)?;
        Ok(record.filter(|record| record.result.is_some()).map(|record| self.remember(id, &record)))
    }

    /// What the plugins said of a pod's network, if it was wired to the end. Blocks.
    pub fn result(&self, id: &str) -> Option<Value> {
        self.read(id).ok().flatten()?.result
    }

    /// Where it looks for networks and plugins.
    pub fn config(&self) -> &CniConfig {
        &self.config
    }

    /// The sandboxes of which something was done, to the end or not. Blocks.
    pub fn recorded(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.config.record_dir).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        names.filter_map(|name| Some(name.strip_suffix(".json")?.to_owned())).collect()
    }

    fn remember(&self, id: &str, record: &Record) -> Arc<[IpAddr]> {
        let addresses: Arc<[IpAddr]> = record.result.as_ref().map(plugin::addresses).unwrap_or_default().into();
        self.known(|known| known.insert(id.to_owned(), Arc::clone(&addresses)));
        addresses
    }

    async fn run(
        &self,
        command: &'static str,
        id: &str,
        record: &Record,
        plugin: &config::Plugin,
        before: &Value,
    ) -> Result<Value, PluginError> {
        let netns = record.netns.to_string_lossy().into_owned();
        // A namespace that is gone (a reboot) has nothing in it that could be taken back.
        let netns = if command == "ADD" || record.netns.exists() { netns } else { String::new() };
        let call = plugin::Call {
            command,
            container: id.to_owned(),
            netns,
            interface: INTERFACE,
            args: record.args.clone(),
            bin_dirs: &self.config.bin_dirs,
        };
        plugin::run(&call, plugin, &record.capabilities, before).await
    }

    fn path(&self, id: &str) -> PathBuf {
        self.config.record_dir.join(format!("{id}.json"))
    }

    fn known<T>(&self, look: impl FnOnce(&mut BTreeMap<String, Arc<[IpAddr]>>) -> T) -> T {
        look(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Small files, on the caller's thread: they are seldom written, and read once.
    fn write(&self, id: &str, record: &Record) -> Result<(), CniError> {
        let path = self.path(id);
        let beside = path.with_extension("tmp");
        let written = serde_json::to_vec(record).map_err(io::Error::other);
        let written = written.and_then(|text| std::fs::write(&beside, text));
        let written = written.and_then(|()| std::fs::rename(&beside, &path));
        written.map_err(|source| CniError::Record { step: "write", path, source })
    }

    fn read(&self, id: &str) -> Result<Option<Record>, CniError> {
        let path = self.path(id);
        let text = match read_limited(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(|source| CniError::Record { step: "read", path: path.clone(), source })?,
        };
        let record = serde_json::from_slice(&text).map_err(io::Error::other);
        record.map(Some).map_err(|source| CniError::Record { step: "read", path, source })
    }
}

fn read_limited(path: &Path) -> io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut text = Vec::new();
    std::fs::File::open(path)?.take(RECORD_BYTES_MAX).read_to_end(&mut text)?;
    Ok(text)
}
