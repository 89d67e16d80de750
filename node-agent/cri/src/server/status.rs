//! Who we are, and whether we are well.

use std::collections::HashMap;

use reeve_proto::cri::{
    CgroupDriver, LinuxRuntimeConfiguration, RuntimeCondition, RuntimeConfigResponse, RuntimeFeatures, RuntimeHandler,
    RuntimeHandlerFeatures, RuntimeStatus, StatusResponse, VersionResponse,
};
use serde_json::json;

use super::Shared;
use super::sandboxes::HANDLERS;

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
        let network = match self.cni.network() {
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
        let info = is_verbose.then(|| {
            let info = json!({"dir": self.dir, "streams": self.streams.address().to_string(),
                "network": network.unwrap_or_else(|| "OK".to_owned())});
            HashMap::from([("config".to_owned(), info.to_string())])
        });
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

    /// Groups are paths, not systemd's slices.
    pub(super) fn runtime_config() -> RuntimeConfigResponse {
        let driver = CgroupDriver::Cgroupfs.into();
        RuntimeConfigResponse { linux: Some(LinuxRuntimeConfiguration { cgroup_driver: driver }) }
    }
}
