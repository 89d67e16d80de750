//! Who we are, and whether we are well.

use std::collections::HashMap;

use reeve_proto::cri::{
    CgroupDriver, LinuxRuntimeConfiguration, RuntimeCondition, RuntimeConfigResponse, RuntimeFeatures, RuntimeHandler,
    RuntimeHandlerFeatures, RuntimeStatus, StatusResponse, VersionResponse,
};
use serde_json::json;

use super::Shared;
use super::sandboxes::HANDLERS;
use crate::cni::{INTERFACE, NetworkList};

/// The version of the answer, which the kubelet once checked.
const KUBE_API_VERSION: &str = "0.1.0";
/// The version of the interface.
const API_VERSION: &str = "v1";

impl Shared {
    pub(super) fn about(&self) -> VersionResponse {
        VersionResponse {
            version: KUBE_API_VERSION.to_owned(),
            runtime_name: "reeve".to_owned(),
            runtime_version: self.version.clone(),
            runtime_api_version: API_VERSION.to_owned(),
        }
    }

    pub(super) fn status(&self, is_verbose: bool) -> StatusResponse {
        let list = self.cni.network();
        let network = match &list {
            Ok(Some(_)) => None,
            Ok(None) => Some("cni plugin not initialized".to_owned()),
            Err(error) => Some(error.to_string()),
        };
        let is_ready = |kind: &str| RuntimeCondition { r#type: kind.to_owned(), status: true, ..Default::default() };
        let network_condition = match &network {
            None => is_ready("NetworkReady"),
            Some(why) => RuntimeCondition {
                r#type: "NetworkReady".to_owned(),
                status: false,
                reason: "NetworkPluginNotReady".to_owned(),
                message: format!("Network plugin returns error: {why}"),
            },
        };
        let own = self.engine.features();
        let features = RuntimeHandlerFeatures {
            recursive_read_only_mounts: own.recursive_read_only_mounts,
            user_namespaces: own.user_namespaces,
        };
        let handlers = HANDLERS.map(|name| RuntimeHandler { name: name.to_owned(), features: Some(features) });
        let network = network.unwrap_or_else(|| "OK".to_owned());
        let info = is_verbose.then(|| self.about_runtime(network, list.ok().flatten().as_ref()));
        StatusResponse {
            status: Some(RuntimeStatus { conditions: vec![is_ready("RuntimeReady"), network_condition] }),
            info: info.unwrap_or_default(),
            runtime_handlers: handlers.to_vec(),
            features: Some(RuntimeFeatures {
                supplemental_groups_policy: own.supplemental_groups_policy,
                user_namespaces_host_network: false,
            }),
        }
    }

    /// What a person wants to know besides, by containerd's names.
    fn about_runtime(&self, loaded: String, list: Option<&NetworkList>) -> HashMap<String, String> {
        let (cni, streams) = (self.cni.config(), self.streams.address());
        let config = json!({
            "stateDir": self.dir,
            "streamServerAddress": streams.ip().to_string(),
            "streamServerPort": streams.port().to_string(),
            "cni": {"binDirs": cni.bin_dirs, "confDir": cni.conf_dir, "maxConfNum": 1},
        });
        let networks = list.map(|list| json!({"Config": list, "IFName": INTERFACE}));
        let network = json!({"PluginDirs": cni.bin_dirs, "PluginConfDir": cni.conf_dir, "PluginMaxConfNum": 1,
            "Networks": networks.into_iter().collect::<Vec<_>>()});
        [("config", config.to_string()), ("cniconfig", network.to_string()), ("lastCNILoadStatus", loaded)]
            .map(|(name, value)| (name.to_owned(), value))
            .into()
    }

    /// Groups are paths, not systemd's slices.
    pub(super) fn runtime_config() -> RuntimeConfigResponse {
        let driver = CgroupDriver::Cgroupfs.into();
        RuntimeConfigResponse { linux: Some(LinuxRuntimeConfiguration { cgroup_driver: driver }) }
    }
}
