//! Sandboxes: made in the engine, wired by CNI, furnished with their files.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use reeve_engine::engine::{Sandbox, SandboxState};
use reeve_proto::cri::{
    ContainerEventType, PodSandbox, PodSandboxConfig, PodSandboxFilter, PodSandboxStatus, PodSandboxStatusRequest,
    PodSandboxStatusResponse, Protocol, RunPodSandboxRequest, UpdatePodSandboxResourcesRequest,
};
use serde_json::json;
use tonic::Status;

use super::error::{self, Answer};
use super::{Shared, files, information};
use crate::cni::Pod;
use crate::convert::{self, resources, sandbox};

/// The one kind of runtime that there is, by its two names.
pub(super) const HANDLERS: [&str; 2] = ["", "reeve"];

impl Shared {
    pub(super) async fn run_pod_sandbox(&self, request: RunPodSandboxRequest) -> Answer<String> {
        if !HANDLERS.contains(&request.runtime_handler.as_str()) {
            let handler = &request.runtime_handler;
            return Err(Status::not_found(format!("no runtime for {handler:?} is configured")));
        }
        let node = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let config = sandbox::to_engine(&request, &node).map_err(error::refused)?;
        let made = self.engine.run_pod_sandbox(config).await.map_err(error::engine)?;
        if let Err(status) = self.furnish(&made, &request.config.unwrap_or_default()).await {
            // Half a sandbox is of no use, and whoever asked does not know its id.
            if let Err(left) = self.remove_pod_sandbox(&made.id).await {
                tracing::warn!(sandbox = made.id, %left, "parts of a sandbox are left behind");
            }
            return Err(status);
        }
        self.tell_of_sandbox(&made, ContainerEventType::ContainerCreatedEvent).await;
        self.tell_of_sandbox(&made, ContainerEventType::ContainerStartedEvent).await;
        Ok(made.id)
    }

    /// Gives a sandbox its network and its files.
    async fn furnish(&self, made: &Sandbox, config: &PodSandboxConfig) -> Answer<()> {
        let mut address = None;
        if let Some(netns) = &made.netns {
            let pod = Pod {
                id: made.id.clone(),
                netns: netns.clone(),
                args: arguments(made),
                capabilities: capabilities(config),
            };
            let list = self.cni.network().map_err(|error| Status::unavailable(error.to_string()))?;
            let attached = self.cni.attach(&pod, list).await;
            let attached = attached.map_err(|error| error::network("setup", &made.id, &error))?;
            address = attached.first().map(ToString::to_string);
        }
        let dir = files::dir(&self.dir, &made.id);
        let written = files::write(&dir, &made.config, config.dns_config.as_ref(), address.as_deref());
        written.map_err(|error| Status::unknown(format!("failed to write {}: {error}", dir.display())))
    }

    pub(super) async fn stop_pod_sandbox(&self, id: &str) -> Answer<()> {
        let Some(found) = self.find_sandbox(id).await? else { return Ok(()) };
        // First, while the namespace is there; again where a sandbox was stopped and its network could not be.
        let detached = self.cni.detach(&found.id).await;
        detached.map_err(|error| error::network("destroy", &found.id, &error))?;
        self.engine.stop_pod_sandbox(&found.id).await.map_err(error::engine)?;
        if found.state == SandboxState::Ready {
            self.tell_of_sandbox(&self.sandbox(&found.id).await?, ContainerEventType::ContainerStoppedEvent).await;
        }
        Ok(())
    }

    pub(super) async fn remove_pod_sandbox(&self, id: &str) -> Answer<()> {
        let Some(found) = self.find_sandbox(id).await? else { return Ok(()) };
        self.stop_pod_sandbox(&found.id).await?;
        let containers = self.engine.list_containers().await.map_err(error::engine)?;
        self.engine.remove_pod_sandbox(&found.id).await.map_err(error::engine)?;
        let dir = files::dir(&self.dir, &found.id);
        match std::fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Status::unknown(format!("failed to remove {}: {error}", dir.display())));
            }
            _ => {}
        }
        let gone = Sandbox { state: SandboxState::NotReady, ..found };
        for container in containers.iter().filter(|own| own.sandbox == gone.id) {
            self.tell(&container.id, &gone, ContainerEventType::ContainerDeletedEvent).await;
        }
        self.tell_of_sandbox(&gone, ContainerEventType::ContainerDeletedEvent).await;
        Ok(())
    }

    pub(super) async fn list_sandboxes(&self, filter: Option<PodSandboxFilter>) -> Answer<Vec<PodSandbox>> {
        let filter = filter.unwrap_or_default();
        let all = self.engine.list_pod_sandboxes().await.map_err(error::engine)?;
        let listed = all.iter().filter(|own| own.id.starts_with(&filter.id)).map(sandbox::listed);
        let wanted = listed.filter(|own| {
            filter.state.is_none_or(|wanted| wanted.state == own.state)
                && convert::selects(&filter.label_selector, &own.labels)
        });
        Ok(wanted.collect())
    }

    pub(super) async fn pod_sandbox_status(
        &self,
        request: PodSandboxStatusRequest,
    ) -> Answer<PodSandboxStatusResponse> {
        // Taken first: what happens while we look is newer, and a kubelet must believe the event that tells it.
        let timestamp = self.now();
        let found = self.sandbox(&request.pod_sandbox_id).await?;
        let info = if request.verbose { self.about_sandbox(&found).await? } else { HashMap::new() };
        let containers = self.statuses_of(&found.id).await?;
        let status = Some(self.status_of(&found));
        Ok(PodSandboxStatusResponse { status, info, containers_statuses: containers, timestamp })
    }

    /// What a person wants to know besides.
    async fn about_sandbox(&self, own: &Sandbox) -> Answer<HashMap<String, String>> {
        let containers = self.engine.list_containers().await.map_err(error::engine)?;
        let network = self.cni.result(&own.id);
        Ok(information::told(&information::of_sandbox(own, network.as_ref(), &containers)))
    }

    /// A sandbox with its addresses.
    pub(super) fn status_of(&self, own: &Sandbox) -> PodSandboxStatus {
        // One that is not ready has none any more.
        let addresses = self.cni.addresses(&own.id).ok().flatten().filter(|_| own.state == SandboxState::Ready);
        let texts: Vec<String> = addresses.iter().flat_map(|all| all.iter()).map(ToString::to_string).collect();
        sandbox::status(own, &texts)
    }

    pub(super) async fn update_sandbox_resources(&self, request: UpdatePodSandboxResourcesRequest) -> Answer<()> {
        let found = self.sandbox(&request.pod_sandbox_id).await?;
        request.resources.as_ref().map_or(Ok(()), resources::check).map_err(error::refused)?;
        let own = request.resources.as_ref().map(resources::to_change).unwrap_or_default();
        let cost = request.overhead.as_ref().map(resources::to_change).unwrap_or_default();
        let changed = self.engine.update_pod_sandbox_resources(&found.id, sandbox::add(own, &cost)).await;
        changed.map_err(error::engine)
    }

    /// A sandbox by its id or an unambiguous beginning of it.
    pub(super) async fn sandbox(&self, id: &str) -> Answer<Sandbox> {
        let found = self.find_sandbox(id).await?;
        found.ok_or_else(|| Status::not_found(format!("an error occurred when try to find sandbox: {id:?}: not found")))
    }

    pub(super) async fn find_sandbox(&self, id: &str) -> Answer<Option<Sandbox>> {
        let all = self.engine.list_pod_sandboxes().await.map_err(error::engine)?;
        only(all, id, |own| &own.id)
    }

    /// Takes away what an earlier life has left half done: nobody was told of it.
    pub(super) async fn take_up(self: &Arc<Self>) {
        let sandboxes = match self.engine.list_pod_sandboxes().await {
            Ok(sandboxes) => sandboxes,
            Err(error) => return tracing::warn!(%error, "the sandboxes of earlier lives cannot be listed"),
        };
        for own in &sandboxes {
            let is_whole = files::dir(&self.dir, &own.id).join("resolv.conf").exists();
            if own.state == SandboxState::Ready && !is_whole {
                tracing::warn!(sandbox = own.id, "removing a sandbox whose making was cut off");
                if let Err(error) = self.remove_pod_sandbox(&own.id).await {
                    tracing::warn!(sandbox = own.id, %error, "it cannot be removed");
                }
            }
        }
        for id in self.cni.recorded() {
            let known = sandboxes.iter().find(|own| own.id == id);
            let result = match known {
                Some(own) if own.state == SandboxState::Ready => self.cni.check(&id).await.map_err(|e| e.to_string()),
                Some(_) => Ok(()),
                None => self.cni.detach(&id).await.map_err(|error| error.to_string()),
            };
            if let Err(error) = result {
                tracing::warn!(sandbox = id, error, "the network of a sandbox is not as it was made");
            }
        }
    }
}

/// The one whose id is this or begins with it.
pub(super) fn only<T>(all: Vec<T>, id: &str, id_of: impl Fn(&T) -> &String) -> Answer<Option<T>> {
    if id.is_empty() {
        return Ok(None);
    }
    let mut matching: Vec<T> = all.into_iter().filter(|own| id_of(own).starts_with(id)).collect();
    if let Some(exact) = matching.iter().position(|own| id_of(own) == id) {
        return Ok(Some(matching.swap_remove(exact)));
    }
    if matching.len() > 1 {
        return Err(Status::invalid_argument(format!("{id:?} is the beginning of several ids")));
    }
    Ok(matching.pop())
}

/// What plugins are told of a pod; containerd's names.
fn arguments(own: &Sandbox) -> Vec<(&'static str, String)> {
    vec![
        ("IgnoreUnknown", "1".to_owned()),
        ("K8S_POD_NAMESPACE", own.config.namespace.clone()),
        ("K8S_POD_NAME", own.config.name.clone()),
        ("K8S_POD_INFRA_CONTAINER_ID", own.id.clone()),
        ("K8S_POD_UID", own.config.uid.clone()),
    ]
}

/// What a pod needs of plugins that can give it. Source: the conventions of the CNI specification.
fn capabilities(config: &PodSandboxConfig) -> BTreeMap<String, serde_json::Value> {
    let mut capabilities = BTreeMap::new();
    let ports = config.port_mappings.iter().filter(|port| port.host_port > 0).map(|port| {
        let protocol = match port.protocol() {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        };
        json!({"hostPort": port.host_port, "containerPort": port.container_port, "protocol": protocol,
            "hostIP": port.host_ip})
    });
    let ports: Vec<_> = ports.collect();
    if !ports.is_empty() {
        capabilities.insert("portMappings".to_owned(), ports.into());
    }
    if let Some(dns) = &config.dns_config {
        let dns = json!({"servers": dns.servers, "searches": dns.searches, "options": dns.options});
        capabilities.insert("dns".to_owned(), dns);
    }
    capabilities.insert("io.kubernetes.cri.pod-annotations".to_owned(), json!(config.annotations));
    capabilities
}

#[cfg(test)]
mod tests {
    use reeve_proto::cri::PortMapping;

    use super::*;

    #[test]
    fn an_id_may_be_cut_as_long_as_it_is_one() {
        let all = || ["abc", "abd", "b"].map(str::to_owned).to_vec();
        let found = |id: &str| only(all(), id, |own| own).map_err(|status| status.code());
        assert_eq!(found("abc"), Ok(Some("abc".to_owned())));
        assert_eq!(found("b"), Ok(Some("b".to_owned())));
        assert_eq!(found("ab"), Err(tonic::Code::InvalidArgument));
        assert_eq!((found(""), found("x")), (Ok(None), Ok(None)));
    }

    #[test]
    fn only_ports_of_the_node_are_led_to_the_pod() {
        let port = |host_port| PortMapping { container_port: 80, host_port, ..PortMapping::default() };
        let config = PodSandboxConfig { port_mappings: vec![port(0), port(8080)], ..PodSandboxConfig::default() };
        let ports = &capabilities(&config)["portMappings"];
        let wanted = json!([{"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": ""}]);
        assert_eq!(*ports, wanted);
    }
}
