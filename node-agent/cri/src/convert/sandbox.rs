//! Sandboxes.

use std::collections::BTreeMap;
use std::path::PathBuf;

use reeve_engine::engine::{NamespaceMode, Resources, Sandbox, SandboxConfig, SandboxState};
use reeve_proto::cri::{
    LinuxPodSandboxConfig, LinuxPodSandboxStatus, LinuxSandboxSecurityContext, Namespace, NamespaceMode as CriMode,
    NamespaceOption, PodIp, PodSandbox, PodSandboxConfig, PodSandboxMetadata, PodSandboxNetworkStatus, PodSandboxState,
    PodSandboxStatus, RunPodSandboxRequest,
};

use super::{RECORD, Refused, from_record, nanoseconds, resources, to_record};

/// What a sandbox is to be. `node` is the node's own host name.
///
/// # Errors
/// For what is missing, and for what this engine does not have.
pub fn to_engine(request: &RunPodSandboxRequest, node: &str) -> Result<SandboxConfig, Refused> {
    let config = request.config.as_ref().ok_or_else(|| Refused::new("sandbox config is nil"))?;
    let metadata = config.metadata.as_ref().ok_or_else(|| Refused::new("sandbox config must include metadata"))?;
    let linux = config.linux.clone().unwrap_or_default();
    let options = options(&linux);
    check_user_namespace(&options)?;
    linux.resources.as_ref().map_or(Ok(()), super::resources::check)?;
    let host_network = options.network() == CriMode::Node;
    let hostname = match config.hostname.as_str() {
        "" if host_network => node,
        "" => metadata.name.get(..metadata.name.len().min(63)).unwrap_or_default(),
        given => given,
    };
    Ok(SandboxConfig {
        name: metadata.name.clone(),
        namespace: metadata.namespace.clone(),
        uid: metadata.uid.clone(),
        attempt: metadata.attempt,
        hostname: hostname.to_owned(),
        host_network,
        host_ipc: options.ipc() == CriMode::Node,
        pid: mode(options.pid()),
        privileged: linux.security_context.as_ref().is_some_and(|context| context.privileged),
        cgroup: cgroup(&linux.cgroup_parent),
        resources: pod_resources(&linux),
        sysctls: linux.sysctls.into_iter().collect(),
        log_dir: PathBuf::from(&config.log_directory),
        labels: BTreeMap::new(),
        annotations: BTreeMap::from([(RECORD.to_owned(), to_record(request))]),
    })
}

fn options(linux: &LinuxPodSandboxConfig) -> NamespaceOption {
    let context = linux.security_context.as_ref();
    context.and_then(|context| context.namespace_options.clone()).unwrap_or_default()
}

/// Whoever asks for a user namespace counts on it.
fn check_user_namespace(options: &NamespaceOption) -> Result<(), Refused> {
    match &options.userns_options {
        Some(wanted) if wanted.mode() == CriMode::Pod => Err(Refused::new("user namespaces are not supported")),
        _ => Ok(()),
    }
}

/// Which PID namespace containers use; `TARGET` says more than this, and is the container's own matter.
#[must_use]
pub fn mode(given: CriMode) -> NamespaceMode {
    match given {
        CriMode::Pod => NamespaceMode::Pod,
        CriMode::Node => NamespaceMode::Node,
        CriMode::Container | CriMode::Target => NamespaceMode::Container,
    }
}

/// The same for another runtime.
#[must_use]
pub fn to_mode(own: NamespaceMode) -> CriMode {
    match own {
        NamespaceMode::Pod => CriMode::Pod,
        NamespaceMode::Node => CriMode::Node,
        NamespaceMode::Container => CriMode::Container,
    }
}

/// The pod's group below the engine's own. Empty parts and those that lead elsewhere are the engine's to refuse.
fn cgroup(parent: &str) -> String {
    parent.trim_matches('/').to_owned()
}

/// What a pod as a whole may use: its containers' sum, and what it costs itself.
fn pod_resources(linux: &LinuxPodSandboxConfig) -> Resources {
    let own = linux.resources.as_ref().map(resources::to_change).unwrap_or_default();
    let cost = linux.overhead.as_ref().map(resources::to_change).unwrap_or_default();
    add(own, &cost)
}

/// Limits with what comes on top; what is not limited stays so.
#[must_use]
pub fn add(own: Resources, cost: &Resources) -> Resources {
    let sum = |own: Option<i64>, cost: Option<i64>| match (own, cost) {
        (Some(own), Some(cost)) if own > 0 && cost > 0 => Some(own.saturating_add(cost)),
        (own, _) => own,
    };
    Resources {
        memory_limit_bytes: sum(own.memory_limit_bytes, cost.memory_limit_bytes),
        cpu_quota_us: sum(own.cpu_quota_us, cost.cpu_quota_us),
        cpu_shares: own.cpu_shares.map(|shares| shares.saturating_add(cost.cpu_shares.unwrap_or_default())),
        ..own
    }
}

/// What a sandbox was made from: as it was told, or, where the engine made it for somebody else, as far as it is known.
#[must_use]
pub fn request(sandbox: &Sandbox) -> RunPodSandboxRequest {
    from_record(&sandbox.config.annotations).unwrap_or_else(|| to_request(&sandbox.config))
}

/// A sandbox for another runtime.
#[must_use]
pub fn to_request(own: &SandboxConfig) -> RunPodSandboxRequest {
    let network = if own.host_network { CriMode::Node } else { CriMode::Pod };
    let ipc = if own.host_ipc { CriMode::Node } else { CriMode::Pod };
    let options = NamespaceOption {
        network: network.into(),
        pid: to_mode(own.pid).into(),
        ipc: ipc.into(),
        ..NamespaceOption::default()
    };
    let linux = LinuxPodSandboxConfig {
        cgroup_parent: if own.cgroup.is_empty() { String::new() } else { format!("/{}", own.cgroup) },
        security_context: Some(LinuxSandboxSecurityContext {
            namespace_options: Some(options),
            privileged: own.privileged,
            ..LinuxSandboxSecurityContext::default()
        }),
        sysctls: own.sysctls.clone().into_iter().collect(),
        overhead: None,
        resources: Some(resources::to_cri(&own.resources)),
    };
    let config = PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: own.name.clone(),
            uid: own.uid.clone(),
            namespace: own.namespace.clone(),
            attempt: own.attempt,
        }),
        hostname: own.hostname.clone(),
        log_directory: own.log_dir.to_string_lossy().into_owned(),
        labels: own.labels.clone().into_iter().collect(),
        annotations: own.annotations.clone().into_iter().collect(),
        linux: Some(linux),
        ..PodSandboxConfig::default()
    };
    RunPodSandboxRequest { config: Some(config), runtime_handler: String::new() }
}

/// Whether it takes containers.
#[must_use]
pub fn state(own: SandboxState) -> PodSandboxState {
    match own {
        SandboxState::Ready => PodSandboxState::SandboxReady,
        SandboxState::NotReady => PodSandboxState::SandboxNotready,
    }
}

/// A sandbox in a list.
#[must_use]
pub fn listed(sandbox: &Sandbox) -> PodSandbox {
    let request = request(sandbox);
    let config = request.config.unwrap_or_default();
    PodSandbox {
        id: sandbox.id.clone(),
        metadata: config.metadata,
        state: state(sandbox.state).into(),
        created_at: nanoseconds(sandbox.created_at),
        labels: config.labels,
        annotations: config.annotations,
        runtime_handler: request.runtime_handler,
    }
}

/// A sandbox and its addresses, the first one the pod's own.
#[must_use]
pub fn status(sandbox: &Sandbox, addresses: &[String]) -> PodSandboxStatus {
    let request = request(sandbox);
    let config = request.config.unwrap_or_default();
    let network = addresses.split_first().map(|(first, others)| PodSandboxNetworkStatus {
        ip: first.clone(),
        additional_ips: others.iter().map(|ip| PodIp { ip: ip.clone() }).collect(),
    });
    PodSandboxStatus {
        id: sandbox.id.clone(),
        metadata: config.metadata,
        state: state(sandbox.state).into(),
        created_at: nanoseconds(sandbox.created_at),
        network: Some(network.unwrap_or_default()),
        linux: Some(LinuxPodSandboxStatus {
            namespaces: Some(Namespace { options: Some(options(&config.linux.unwrap_or_default())) }),
        }),
        labels: config.labels,
        annotations: config.annotations,
        runtime_handler: request.runtime_handler,
    }
}

#[cfg(test)]
mod tests {
    use reeve_proto::cri::UserNamespace;

    use super::*;

    fn request_of(linux: LinuxPodSandboxConfig) -> RunPodSandboxRequest {
        let metadata = PodSandboxMetadata { name: "web".to_owned(), ..PodSandboxMetadata::default() };
        let config = PodSandboxConfig { metadata: Some(metadata), linux: Some(linux), ..PodSandboxConfig::default() };
        RunPodSandboxRequest { config: Some(config), runtime_handler: String::new() }
    }

    fn with(options: NamespaceOption) -> LinuxPodSandboxConfig {
        let security = LinuxSandboxSecurityContext { namespace_options: Some(options), ..Default::default() };
        LinuxPodSandboxConfig { security_context: Some(security), ..LinuxPodSandboxConfig::default() }
    }

    #[test]
    fn a_sandbox_shares_what_its_options_say_and_is_told_as_it_was_made() {
        let options = NamespaceOption {
            network: CriMode::Node.into(),
            pid: CriMode::Container.into(),
            ..NamespaceOption::default()
        };
        let linux = LinuxPodSandboxConfig { cgroup_parent: "/kubepods/podu1".to_owned(), ..with(options) };
        let request = request_of(linux);
        let config = to_engine(&request, "node1").expect("valid");
        assert_eq!((config.hostname.as_str(), config.cgroup.as_str()), ("node1", "kubepods/podu1"));
        assert!(config.host_network && !config.host_ipc && config.pid == NamespaceMode::Container);
        let sandbox = Sandbox {
            id: "s".to_owned(),
            config,
            state: SandboxState::Ready,
            created_at: super::super::timestamp(7),
            netns: None,
            ips: Vec::new(),
        };
        let status = status(&sandbox, &["10.0.0.1".to_owned(), "fd00::1".to_owned()]);
        let network = status.network.expect("a network");
        assert_eq!((network.ip.as_str(), network.additional_ips[0].ip.as_str()), ("10.0.0.1", "fd00::1"));
        assert_eq!((status.metadata, status.created_at), (request.config.expect("a config").metadata, 7));
        assert!(status.annotations.is_empty(), "the record is nobody else's business");
    }

    #[test]
    fn a_user_namespace_is_refused_not_left_out() {
        let wanted = UserNamespace { mode: CriMode::Pod.into(), ..UserNamespace::default() };
        let linux = with(NamespaceOption { userns_options: Some(wanted), ..NamespaceOption::default() });
        assert_eq!(to_engine(&request_of(linux), "n").expect_err("refused").0, "user namespaces are not supported");
        let none = UserNamespace { mode: CriMode::Node.into(), ..UserNamespace::default() };
        let linux = with(NamespaceOption { userns_options: Some(none), ..NamespaceOption::default() });
        assert!(to_engine(&request_of(linux), "n").is_ok());
    }
}
