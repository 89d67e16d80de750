//! Sandboxes.

use std::collections::BTreeMap;
use std::path::PathBuf;

use reeve_engine::engine::{NamespaceMode, Resources, Sandbox, SandboxConfig, SandboxState, UserNamespace};
use reeve_proto::cri::{
    IdMapping, LinuxPodSandboxConfig, LinuxPodSandboxStatus, LinuxSandboxSecurityContext, Namespace,
    NamespaceMode as CriMode, NamespaceOption, PodIp, PodSandbox, PodSandboxConfig, PodSandboxMetadata,
    PodSandboxNetworkStatus, PodSandboxState, PodSandboxStatus, RunPodSandboxRequest, UserNamespace as CriUsers,
};

use super::{Refused, from_record, nanoseconds, noted, resources};

/// What a sandbox is to be. `node` is the node's own host name.
///
/// # Errors
/// For what is missing, and for what this engine does not have.
pub fn to_engine(request: &RunPodSandboxRequest, node: &str) -> Result<SandboxConfig, Refused> {
    let config = request.config.as_ref().ok_or_else(|| Refused::new("sandbox config is nil"))?;
    let metadata = config.metadata.as_ref().ok_or_else(|| Refused::new("sandbox config must include metadata"))?;
    let linux = config.linux.clone().unwrap_or_default();
    let options = options(&linux);
    let user_namespace = user_namespace(&options)?;
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
        user_namespace,
        privileged: linux.security_context.as_ref().is_some_and(|context| context.privileged),
        cgroup: cgroup(&linux.cgroup_parent)?,
        resources: pod_resources(&linux),
        sysctls: linux.sysctls.into_iter().collect(),
        log_dir: PathBuf::from(&config.log_directory),
        labels: BTreeMap::new(),
        annotations: noted(&config.annotations, request),
    })
}

fn options(linux: &LinuxPodSandboxConfig) -> NamespaceOption {
    let context = linux.security_context.as_ref();
    context.and_then(|context| context.namespace_options.clone()).unwrap_or_default()
}

/// Whoever asks for a user namespace counts on it.
fn user_namespace(options: &NamespaceOption) -> Result<Option<UserNamespace>, Refused> {
    let Some(wanted) = &options.userns_options else { return Ok(None) };
    match wanted.mode() {
        CriMode::Node if wanted.uids.is_empty() && wanted.gids.is_empty() => Ok(None),
        CriMode::Node => Err(Refused::new("user namespace mode is NODE, but ids are mapped")),
        CriMode::Pod => ids(&wanted.uids, &wanted.gids).map(Some),
        other => Err(Refused::new(format!("unsupported user namespace mode {}", other.as_str_name()))),
    }
}

/// What two lists of mappings say: one range, the same for users and groups, that begins with root.
///
/// # Errors
/// When they say something else, which the engine does not have.
pub fn ids(uids: &[IdMapping], gids: &[IdMapping]) -> Result<UserNamespace, Refused> {
    let [own] = uids else {
        return Err(Refused::new(format!("only one range of ids can be mapped, got {}", uids.len())));
    };
    if uids != gids {
        return Err(Refused::new("users and groups must be mapped alike"));
    }
    if own.container_id != 0 || own.length == 0 {
        return Err(Refused::new("id 0 must be mapped"));
    }
    Ok(UserNamespace { first: own.host_id, length: own.length })
}

/// The same for another runtime.
#[must_use]
pub fn to_mappings(own: UserNamespace) -> Vec<IdMapping> {
    vec![IdMapping { host_id: own.first, container_id: 0, length: own.length }]
}

/// What is said of a pod's users to another runtime.
#[must_use]
pub fn to_users(own: Option<UserNamespace>) -> CriUsers {
    let mappings = own.map(to_mappings).unwrap_or_default();
    let mode = if own.is_some() { CriMode::Pod } else { CriMode::Node };
    CriUsers { mode: mode.into(), uids: mappings.clone(), gids: mappings }
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

/// The pod's group: with a leading slash from the top of every hierarchy, where a kubelet makes it, else below the
/// engine's own. Empty parts and those that lead elsewhere are the engine's to refuse.
fn cgroup(parent: &str) -> Result<String, Refused> {
    if parent.ends_with(".slice") {
        let why = "is one of systemd's slices, and the cgroup driver of this runtime is cgroupfs";
        return Err(Refused::new(format!("cgroup_parent {parent:?} {why}")));
    }
    let plain = parent.trim_end_matches('/');
    Ok(if plain.starts_with('/') { format!("/{}", plain.trim_start_matches('/')) } else { plain.to_owned() })
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
        userns_options: Some(to_users(own.user_namespace)),
        ..NamespaceOption::default()
    };
    let linux = LinuxPodSandboxConfig {
        cgroup_parent: own.cgroup.clone(),
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
        assert_eq!((config.hostname.as_str(), config.cgroup.as_str()), ("node1", "/kubepods/podu1"));
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
    fn a_kubelets_group_is_where_it_has_made_it() {
        for (parent, own) in [("", ""), ("/", ""), ("/a/b/", "/a/b"), ("a/b", "a/b"), ("//a", "/a")] {
            assert_eq!(cgroup(parent).as_deref(), Ok(own), "{parent}");
        }
        let refused = cgroup("kubepods-besteffort.slice").expect_err("refused").0;
        assert!(refused.contains("the cgroup driver of this runtime is cgroupfs"), "{refused}");
    }

    #[test]
    fn a_user_namespace_is_made_as_it_is_asked_for_or_refused() {
        let asked = |mode: CriMode, ranges: &[(u32, u32, u32)]| {
            let mapping = |(host_id, container_id, length): &(u32, u32, u32)| IdMapping {
                host_id: *host_id,
                container_id: *container_id,
                length: *length,
            };
            let mappings: Vec<IdMapping> = ranges.iter().map(mapping).collect();
            let users = CriUsers { mode: mode.into(), uids: mappings.clone(), gids: mappings };
            let linux = with(NamespaceOption { userns_options: Some(users), ..NamespaceOption::default() });
            to_engine(&request_of(linux), "n").map(|own| own.user_namespace).map_err(|refused| refused.0)
        };
        let own = UserNamespace { first: 65_536, length: 65_536 };
        assert_eq!(asked(CriMode::Pod, &[(65_536, 0, 65_536)]), Ok(Some(own)));
        assert_eq!(asked(CriMode::Node, &[]), Ok(None));
        let refused = |mode, ranges| asked(mode, ranges).expect_err("refused");
        assert_eq!(refused(CriMode::Pod, &[]), "only one range of ids can be mapped, got 0");
        assert_eq!(refused(CriMode::Pod, &[(65_536, 1, 9)]), "id 0 must be mapped");
        assert_eq!(refused(CriMode::Node, &[(65_536, 0, 9)]), "user namespace mode is NODE, but ids are mapped");
        assert_eq!(refused(CriMode::Container, &[]), "unsupported user namespace mode CONTAINER");
        let sent = to_request(&SandboxConfig { user_namespace: Some(own), ..SandboxConfig::default() });
        assert_eq!(to_engine(&sent, "n").map(|back| back.user_namespace), Ok(Some(own)), "both ways");
    }
}
