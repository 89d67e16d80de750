//! Sandboxes and containers of ours at a runtime: what is sent, and what comes back.

use std::collections::HashMap;
use std::path::PathBuf;

use futures::{StreamExt as _, TryStreamExt as _};
use reeve_engine::engine::{
    Container, ContainerConfig, ContainerState, EngineError, ProcessUser, Sandbox, SandboxConfig, SandboxState,
};
use reeve_proto::cri::{
    ContainerFilter, ContainerState as CriState, ContainerStatus, ContainerStatusRequest, CreateContainerRequest,
    ListContainersRequest, ListPodSandboxRequest, PodSandboxConfig, PodSandboxFilter, PodSandboxState,
    PodSandboxStatusRequest, PodSandboxStatusResponse,
};
use serde_json::Value;

use super::{CALLS_AT_ONCE, CONFIG, CriEngine, OWNER, error};
use crate::convert::{container, sandbox, timestamp};

/// Exit code of a container that could not be started.
const START_ERROR_CODE: i32 = 128;
/// What a runtime calls an end that nobody saw.
const UNKNOWN: [&str; 2] = ["Unknown", "ContainerStatusUnknown"];

impl CriEngine {
    /// The label of all that is ours.
    pub(super) fn ours(&self) -> HashMap<String, String> {
        HashMap::from([(OWNER.to_owned(), self.inner.config.owner.clone())])
    }

    /// A sandbox as the runtime is to make it.
    pub(super) fn sandbox_request(&self, own: &SandboxConfig) -> Result<PodSandboxConfig, EngineError> {
        let mut config = sandbox::to_request(own).config.unwrap_or_default();
        if let Some(linux) = &mut config.linux {
            let group = if own.cgroup.is_empty() { own.uid.as_str() } else { own.cgroup.as_str() };
            linux.cgroup_parent = format!("/{}/{group}", self.inner.config.cgroup_root);
        }
        config.labels.extend(self.ours());
        // By these names people and tools know pods at a runtime.
        for (name, value) in [("name", &own.name), ("namespace", &own.namespace), ("uid", &own.uid)] {
            config.labels.insert(format!("io.kubernetes.pod.{name}"), value.clone());
        }
        config.annotations.insert(CONFIG.to_owned(), text(own)?);
        Ok(config)
    }

    /// A container as the runtime is to make it.
    pub(super) fn container_request(
        &self,
        pod: &Sandbox,
        own: &ContainerConfig,
    ) -> Result<CreateContainerRequest, EngineError> {
        let mut request = container::to_request(&pod.id, own);
        let sandbox_config = self.sandbox_request(&pod.config)?;
        if let Some(config) = &mut request.config {
            if let Some(ids) = pod.config.user_namespace {
                let mappings = sandbox::to_mappings(ids);
                for mount in &mut config.mounts {
                    (mount.uid_mappings, mount.gid_mappings) = (mappings.clone(), mappings.clone());
                }
            }
            let context = config.linux.as_mut().and_then(|linux| linux.security_context.as_mut());
            if let Some(options) = context.and_then(|context| context.namespace_options.as_mut()) {
                options.userns_options = Some(sandbox::to_users(pod.config.user_namespace));
            }
            let relative = own.log_path.strip_prefix(&pod.config.log_dir);
            let relative = relative.unwrap_or(&own.log_path);
            config.log_path = relative.to_string_lossy().into_owned();
            config.labels.extend(sandbox_config.labels.clone());
            config.labels.insert("io.kubernetes.container.name".to_owned(), own.name.clone());
            config.annotations.insert(CONFIG.to_owned(), text(own)?);
        }
        request.sandbox_config = Some(sandbox_config);
        Ok(request)
    }

    /// A sandbox of ours, with what only its status tells.
    pub(super) async fn sandbox(&self, id: &str) -> Result<Sandbox, EngineError> {
        let missing = || EngineError::NotFound { what: "sandbox", id: id.to_owned() };
        let request = PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: true };
        let answer = self.runtime().pod_sandbox_status(request).await;
        let answer = answer.map_err(|status| error::of(&status, "look at sandbox", id))?.into_inner();
        read_sandbox(answer).ok_or_else(missing)
    }

    pub(super) async fn sandboxes(&self) -> Result<Vec<Sandbox>, EngineError> {
        let filter = PodSandboxFilter { label_selector: self.ours(), ..PodSandboxFilter::default() };
        let listed = self.runtime().list_pod_sandbox(ListPodSandboxRequest { filter: Some(filter) }).await;
        let listed = listed.map_err(|status| error::of(&status, "list", "sandboxes"))?.into_inner();
        let found = futures::stream::iter(listed.items)
            .map(|item| async move { present(self.sandbox(&item.id).await) })
            .buffer_unordered(CALLS_AT_ONCE);
        found.try_filter_map(|own| std::future::ready(Ok(own))).try_collect().await
    }

    pub(super) async fn container(&self, id: &str) -> Result<Container, EngineError> {
        let missing = || EngineError::NotFound { what: "container", id: id.to_owned() };
        let request = ContainerStatusRequest { container_id: id.to_owned(), verbose: true };
        let answer = self.runtime().container_status(request).await;
        let answer = answer.map_err(|status| error::of(&status, "look at container", id))?.into_inner();
        let info = information(&answer.info);
        let status = answer.status.ok_or_else(missing)?;
        let sandbox = info["sandboxID"].as_str().unwrap_or_default().to_owned();
        let pid = info["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).unwrap_or_default();
        let mut own = read_container(status, sandbox, pid).ok_or_else(missing)?;
        self.inner.notes.of(id).apply(&mut own.config);
        Ok(own)
    }

    pub(super) async fn containers(&self) -> Result<Vec<Container>, EngineError> {
        let filter = ContainerFilter { label_selector: self.ours(), ..ContainerFilter::default() };
        let listed = self.runtime().list_containers(ListContainersRequest { filter: Some(filter) }).await;
        let listed = listed.map_err(|status| error::of(&status, "list", "containers"))?.into_inner();
        let found = futures::stream::iter(listed.containers)
            .map(|item| async move {
                let own = present(self.container(&item.id).await)?;
                Ok::<_, EngineError>(own.map(|own| Container { sandbox: item.pod_sandbox_id, ..own }))
            })
            .buffer_unordered(CALLS_AT_ONCE);
        found.try_filter_map(|own| std::future::ready(Ok(own))).try_collect().await
    }
}

/// What is gone since it was listed is not there.
fn present<T>(found: Result<T, EngineError>) -> Result<Option<T>, EngineError> {
    match found {
        Err(EngineError::NotFound { .. }) => Ok(None),
        other => other.map(Some),
    }
}

fn text<T: serde::Serialize>(own: &T) -> Result<String, EngineError> {
    serde_json::to_string(own).map_err(|error| EngineError::Invalid(error.to_string()))
}

/// What a runtime says besides, as containerd and we do.
fn information(info: &HashMap<String, String>) -> Value {
    info.get("info").and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

/// `None`: it is nobody's of ours.
fn read_sandbox(answer: PodSandboxStatusResponse) -> Option<Sandbox> {
    let info = information(&answer.info);
    let status = answer.status?;
    let config: SandboxConfig = serde_json::from_str(status.annotations.get(CONFIG)?).ok()?;
    let network = status.network.clone().unwrap_or_default();
    let texts = std::iter::once(network.ip).chain(network.additional_ips.into_iter().map(|ip| ip.ip));
    let ips: Vec<_> = texts.filter_map(|ip| ip.parse().ok()).filter(|_| !config.host_network).collect();
    // One that has no address may be wired by whoever finds its namespace.
    let netns = netns(&info).filter(|_| ips.is_empty() && !config.host_network);
    let state = match status.state() {
        PodSandboxState::SandboxReady => SandboxState::Ready,
        PodSandboxState::SandboxNotready => SandboxState::NotReady,
    };
    Some(Sandbox { id: status.id, config, state, created_at: timestamp(status.created_at), netns, ips })
}

fn netns(info: &Value) -> Option<PathBuf> {
    let own = info["netNamespace"].as_str();
    let spaces = info["runtimeSpec"]["linux"]["namespaces"].as_array();
    let network = spaces.into_iter().flatten().find(|space| space["type"] == "network");
    let path = own.or_else(|| network?["path"].as_str())?;
    (!path.is_empty()).then(|| path.into())
}

fn read_container(status: ContainerStatus, sandbox: String, pid: i32) -> Option<Container> {
    let config: ContainerConfig = serde_json::from_str(status.annotations.get(CONFIG)?).ok()?;
    let state = read_state(&status, pid);
    let user = status.user.and_then(|user| user.linux).map(|user| ProcessUser {
        uid: u32::try_from(user.uid).unwrap_or_default(),
        gid: u32::try_from(user.gid).unwrap_or_default(),
        groups: user.supplemental_groups.iter().filter_map(|group| u32::try_from(*group).ok()).collect(),
    });
    Some(Container {
        id: status.id,
        sandbox,
        config,
        image_id: status.image_ref,
        user,
        state,
        created_at: timestamp(status.created_at),
    })
}

fn read_state(status: &ContainerStatus, pid: i32) -> ContainerState {
    match status.state() {
        CriState::ContainerCreated => ContainerState::Created,
        CriState::ContainerRunning => ContainerState::Running { started_at: timestamp(status.started_at), pid },
        state @ (CriState::ContainerExited | CriState::ContainerUnknown) => {
            let is_known = state == CriState::ContainerExited && !UNKNOWN.contains(&status.reason.as_str());
            let was_started = status.started_at > 0;
            ContainerState::Exited {
                started_at: was_started.then(|| timestamp(status.started_at)),
                finished_at: timestamp(status.finished_at.max(status.created_at)),
                exit_code: is_known.then_some(status.exit_code),
                reason: reason(status, is_known, was_started),
                message: status.message.clone(),
            }
        }
    }
}

/// The runtime's reason, by the engine's names.
fn reason(status: &ContainerStatus, is_known: bool, was_started: bool) -> String {
    let own = match status.reason.as_str() {
        _ if !is_known => "ContainerStatusUnknown",
        "" if !was_started && status.exit_code == START_ERROR_CODE => "StartError",
        "" if status.exit_code == 0 => "Completed",
        "" => "Error",
        given => given,
    };
    own.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_by_the_engines_reasons() {
        let of = |code, reason: &str, started_at| {
            let status = ContainerStatus {
                state: CriState::ContainerExited.into(),
                exit_code: code,
                reason: reason.to_owned(),
                started_at,
                ..ContainerStatus::default()
            };
            match read_state(&status, 0) {
                ContainerState::Exited { exit_code, reason, .. } => (exit_code, reason),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(of(0, "", 1), (Some(0), "Completed".to_owned()));
        assert_eq!(of(137, "OOMKilled", 1), (Some(137), "OOMKilled".to_owned()));
        assert_eq!(of(255, "Unknown", 1), (None, "ContainerStatusUnknown".to_owned()));
        assert_eq!(of(128, "", 0), (Some(128), "StartError".to_owned()));
    }

    #[test]
    fn a_namespace_is_found_where_runtimes_tell_of_it() {
        let ours = serde_json::json!({"netNamespace": "/run/a"});
        let theirs = serde_json::json!({"runtimeSpec": {"linux": {"namespaces": [
            {"type": "pid"}, {"type": "network", "path": "/var/run/netns/b"}]}}});
        assert_eq!(netns(&ours), Some("/run/a".into()));
        assert_eq!(netns(&theirs), Some("/var/run/netns/b".into()));
        assert_eq!(netns(&Value::Null), None);
    }
}
