//! Sandboxes: a pod's namespaces and cgroup.

use std::path::PathBuf;

use futures::future::join_all;
use serde::{Deserialize, Serialize};

use super::link::Link;
use super::records::{self, SandboxRecord};
use super::state::not_found;
use super::{BuiltinEngine, Inner, blocking};
use crate::engine::{EngineError, NamespaceMode, Resources, Sandbox, SandboxConfig, SandboxState};
use crate::runtime::namespaces::Pinned;
use crate::supervisor::plan::{CgroupPlan, InitPlan, UserPlan};
use crate::supervisor::wire::{Reply, Request};

/// `HOST_NAME_MAX` of Linux less the closing zero, and Kubernetes' own limit.
const HOSTNAME_LEN_MAX: usize = 63;

/// What is ours of groups that another may have made.
#[derive(Debug, Default, Serialize, Deserialize)]
struct OwnGroups {
    /// Of the pod's own.
    groups: CgroupPlan,
    /// Of those around it, the innermost of each hierarchy first.
    parents: Vec<PathBuf>,
}

impl OwnGroups {
    /// What another sandbox has made for the same pod, or around it, is as much ours. Once: what two sandboxes have
    /// written down alike would double with every one that comes.
    fn inherit(&mut self, before: Self, is_same_pod: bool, plan: &CgroupPlan) {
        let add = |all: &mut Vec<PathBuf>, path: PathBuf| {
            if !all.contains(&path) {
                all.push(path);
            }
        };
        if is_same_pod {
            self.groups.unified = self.groups.unified.take().or(before.groups.unified);
            before.groups.legacy.into_iter().for_each(|group| add(&mut self.groups.legacy, group));
        }
        let is_around = |parent: &PathBuf| plan.legacy.iter().chain(&plan.unified).any(|g| g.starts_with(parent));
        before.parents.into_iter().filter(is_around).for_each(|parent| add(&mut self.parents, parent));
        self.parents.sort_by_key(|parent| std::cmp::Reverse(parent.components().count()));
    }
}

impl BuiltinEngine {
    pub(super) async fn run_sandbox(&self, config: SandboxConfig) -> Result<Sandbox, EngineError> {
        if config.hostname.len() > HOSTNAME_LEN_MAX {
            return Err(EngineError::Invalid(format!("hostname {:?} is too long", config.hostname)));
        }
        check_cgroup(&config.cgroup)?;
        check_users(&config)?;
        let id = self.inner.new_id();
        let inner = std::sync::Arc::clone(&self.inner);
        let sandbox = blocking(move || inner.make_sandbox(id, config)).await?;
        if sandbox.config.pid == NamespaceMode::Pod
            && let Err(err) = self.start_init_now(&sandbox).await
        {
            let inner = std::sync::Arc::clone(&self.inner);
            let _ = blocking(move || inner.unmake_sandbox(&sandbox)).await;
            return Err(err);
        }
        self.inner.state(|state| state.sandboxes.insert(sandbox.id.clone(), sandbox.clone()));
        Ok(sandbox)
    }

    async fn start_init_now(&self, sandbox: &Sandbox) -> Result<(), EngineError> {
        self.start_init(sandbox, &self.inner.link().await?).await
    }

    /// Starts (or finds) the small init of a pod whose containers share a PID namespace.
    pub(super) async fn start_init(&self, sandbox: &Sandbox, link: &Link) -> Result<(), EngineError> {
        let inner = &self.inner;
        let plan = InitPlan {
            sandbox: sandbox.id.clone(),
            cgroup: inner.init_cgroup(sandbox),
            user: inner.user_plan(sandbox),
            started: inner.layout.sandbox_run(&sandbox.id).join("init.json"),
        };
        match link.ask(Request::StartInit(plan)).await? {
            Reply::Done => Ok(()),
            other => Err(unexpected("start the pod's init", other)),
        }
    }

    pub(super) async fn stop_sandbox(&self, id: &str) -> Result<(), EngineError> {
        let Some(sandbox) = self.inner.state(|state| state.sandboxes.get(id).cloned()) else { return Ok(()) };
        let containers = self.inner.state(|state| state.containers_of(id));
        for stopped in join_all(containers.iter().map(|id| self.stop(id, std::time::Duration::ZERO))).await {
            stopped?;
        }
        if sandbox.state == SandboxState::NotReady {
            return Ok(());
        }
        if sandbox.config.pid == NamespaceMode::Pod {
            self.inner.link().await?.ask(Request::KillInit(id.to_owned())).await?;
        }
        let stopped = Sandbox { state: SandboxState::NotReady, ..sandbox };
        let inner = std::sync::Arc::clone(&self.inner);
        let record = stopped.clone();
        blocking(move || {
            inner.write_sandbox(&record)?;
            inner.pins(&record).remove().map_err(crate::runtime::namespaces::NamespaceError::into_engine)
        })
        .await?;
        self.inner.state(|state| state.sandboxes.insert(id.to_owned(), stopped));
        Ok(())
    }

    pub(super) async fn remove_sandbox(&self, id: &str) -> Result<(), EngineError> {
        let Some(sandbox) = self.inner.state(|state| state.sandboxes.get(id).cloned()) else { return Ok(()) };
        self.stop_sandbox(id).await?;
        let containers = self.inner.state(|state| state.containers_of(id));
        for removed in join_all(containers.iter().map(|id| self.remove(id))).await {
            removed?;
        }
        let inner = std::sync::Arc::clone(&self.inner);
        blocking(move || inner.unmake_sandbox(&sandbox)).await?;
        self.inner.state(|state| state.sandboxes.remove(id));
        Ok(())
    }
}

impl Inner {
    fn make_sandbox(&self, id: String, config: SandboxConfig) -> Result<Sandbox, EngineError> {
        self.check_limits(&config.resources)?;
        records::make_dir(&config.log_dir)?;
        let run = self.layout.sandbox_run(&id);
        records::make_dir(&run)?;
        if let Err(err) = self.make_pod_group(&id, &config) {
            let _ = records::remove(&run);
            return Err(err);
        }
        let pins = Pinned::paths(&run, &config);
        let sandbox = Sandbox {
            netns: pins.net.clone(),
            ips: Vec::new(),
            state: SandboxState::Ready,
            created_at: self.config.clock.now(),
            id,
            config,
        };
        let made = pins
            .create(&sandbox.config)
            .map_err(crate::runtime::namespaces::NamespaceError::into_engine)
            .and_then(|()| self.make_init_cgroup(&sandbox))
            .and_then(|()| self.write_sandbox(&sandbox));
        if let Err(err) = made {
            let _ = self.unmake_sandbox(&sandbox);
            return Err(err);
        }
        Ok(sandbox)
    }

    /// Takes everything of a sandbox away; its containers are gone already.
    fn unmake_sandbox(&self, sandbox: &Sandbox) -> Result<(), EngineError> {
        self.pins(sandbox).remove().map_err(crate::runtime::namespaces::NamespaceError::into_engine)?;
        let fail = crate::runtime::cgroup::CgroupError::into_engine;
        self.cgroups.remove(&self.init_cgroup(sandbox)).map_err(fail)?;
        let group = pod_cgroup(&sandbox.id, &sandbox.config);
        // A pod's later sandbox has the same group.
        let shared = self.state(|state| {
            let others = state.sandboxes.values().filter(|other| other.id != sandbox.id);
            others.into_iter().any(|other| pod_cgroup(&other.id, &other.config) == group)
        });
        if !shared {
            self.cgroups.remove(&self.own_pod_group(sandbox, &sandbox.config.resources)?).map_err(fail)?;
        }
        for parent in self.own_groups(sandbox)?.parents {
            // One that another pod is in stays; that pod's note has it, too.
            let _ = std::fs::remove_dir(parent);
        }
        records::remove(&self.layout.sandbox_record(&sandbox.id))?;
        records::remove(&self.layout.sandbox_run(&sandbox.id))
    }

    pub(super) fn write_sandbox(&self, sandbox: &Sandbox) -> Result<(), EngineError> {
        let record = SandboxRecord { boot_id: self.boot_id.clone(), sandbox: sandbox.clone() };
        records::write(&self.layout.sandbox_record(&sandbox.id), &record)
    }

    /// Where a sandbox's namespaces are kept.
    pub(super) fn pins(&self, sandbox: &Sandbox) -> Pinned {
        Pinned::paths(&self.layout.sandbox_run(&sandbox.id), &sandbox.config)
    }

    /// Makes the pod's group. Of one that somebody else may have made it is written down what of it is ours, before it
    /// is made.
    fn make_pod_group(&self, id: &str, config: &SandboxConfig) -> Result<(), EngineError> {
        let fail = crate::runtime::cgroup::CgroupError::into_engine;
        let plan = self.cgroups.plan(&pod_cgroup(id, config), &config.resources);
        if !config.cgroup.starts_with('/') {
            return self.cgroups.create(&plan, &config.resources).map_err(fail);
        }
        let mut ours = OwnGroups { groups: self.cgroups.missing(&plan), parents: self.cgroups.missing_parents(&plan) };
        for other in self.state(|state| state.sandboxes.values().cloned().collect::<Vec<_>>()) {
            ours.inherit(self.own_groups(&other)?, other.config.cgroup == config.cgroup, &plan);
        }
        records::write(&self.layout.own_groups(id), &ours)?;
        self.cgroups.create(&plan, &Resources::default()).map_err(fail)?;
        self.cgroups.update(&ours.groups, &config.resources).map_err(fail)
    }

    /// What of the groups of a pod and around it is ours, where another may have made them. Without a note the machine
    /// was restarted: then nothing is.
    fn own_groups(&self, sandbox: &Sandbox) -> Result<OwnGroups, EngineError> {
        Ok(records::read(&self.layout.own_groups(&sandbox.id))?.unwrap_or_default())
    }

    /// What of a pod's group is ours to limit and to remove.
    pub(super) fn own_pod_group(&self, sandbox: &Sandbox, resources: &Resources) -> Result<CgroupPlan, EngineError> {
        if !sandbox.config.cgroup.starts_with('/') {
            return Ok(self.cgroups.plan(&pod_cgroup(&sandbox.id, &sandbox.config), resources));
        }
        Ok(self.own_groups(sandbox)?.groups)
    }

    /// Whether this node's kernel can set what is asked for.
    pub(super) fn check_limits(&self, resources: &Resources) -> Result<(), EngineError> {
        let has = self.cgroups.hierarchies();
        let needs_v2 = |what: String| {
            Err(EngineError::Unsupported(format!("{what} needs cgroup v2 alone, which this node does not have")))
        };
        let no_controller = |what: String, name: &str| {
            Err(EngineError::Unsupported(format!(
                "{what} needs the cgroup controller {name}, which this node does not have"
            )))
        };
        if let Some(weight) = resources.io_weight.filter(|weight| !(10..=1000).contains(weight)) {
            return Err(EngineError::Invalid(format!("io weight {weight}: must be between 10 and 1000")));
        }
        if (resources.io_weight.is_some() || !resources.io_limits.is_empty()) && !has.offers("io", "blkio") {
            return no_controller("a limit of disks".to_owned(), "io");
        }
        if let Some(size) = resources.hugepages.keys().find(|size| !size.bytes().all(|b| b.is_ascii_alphanumeric())) {
            return Err(EngineError::Invalid(format!("{size:?} is not a size of huge pages")));
        }
        if let Some((size, bytes)) = resources.hugepages.iter().find(|(_, bytes)| **bytes > 0)
            && !has.offers("hugetlb", "hugetlb")
        {
            return no_controller(format!("a limit of {bytes} bytes of {size} huge pages"), "hugetlb");
        }
        if has.is_unified() {
            let is_file = |name: &str| name.contains('.') && !name.contains('/') && !name.starts_with("cgroup.");
            return match resources.unified.keys().find(|name| !is_file(name)) {
                Some(name) => Err(EngineError::Invalid(format!("unified {name:?} is not a file of a controller"))),
                None => Ok(()),
            };
        }
        match resources.unified.keys().next() {
            Some(file) => needs_v2(format!("unified {file}")),
            None if resources.memory_high_bytes.is_some() => needs_v2("memory.high".to_owned()),
            None => Ok(()),
        }
    }

    /// The user namespace of a sandbox that has one.
    pub(super) fn user_plan(&self, sandbox: &Sandbox) -> Option<UserPlan> {
        let (path, ids) = self.pins(sandbox).user.zip(sandbox.config.user_namespace)?;
        Some(UserPlan { path, ids })
    }

    /// The group of the pod's init: v2 allows processes in leaves only.
    fn init_cgroup(&self, sandbox: &Sandbox) -> CgroupPlan {
        let group = format!("{}/init-{}", pod_cgroup(&sandbox.id, &sandbox.config), sandbox.id);
        self.cgroups.plan(&group, &Resources::default())
    }

    fn make_init_cgroup(&self, sandbox: &Sandbox) -> Result<(), EngineError> {
        if sandbox.config.pid != NamespaceMode::Pod {
            return Ok(());
        }
        let made = self.cgroups.create(&self.init_cgroup(sandbox), &Resources::default());
        made.map_err(crate::runtime::cgroup::CgroupError::into_engine)
    }

    /// A sandbox that takes containers, as it is now.
    pub(super) fn ready_sandbox(&self, id: &str) -> Result<Sandbox, EngineError> {
        self.state(|state| state.ready_sandbox(id).cloned())
    }

    /// A sandbox, ready or not.
    pub(super) fn sandbox(&self, id: &str) -> Result<Sandbox, EngineError> {
        self.state(|state| state.sandboxes.get(id).cloned()).ok_or_else(|| not_found("sandbox", id))
    }
}

/// The pod's group below the engine's root.
pub(super) fn pod_cgroup(id: &str, config: &SandboxConfig) -> String {
    if config.cgroup.is_empty() { format!("sandbox-{id}") } else { config.cgroup.clone() }
}

/// A group's path comes from the caller and becomes folders.
fn check_cgroup(path: &str) -> Result<(), EngineError> {
    let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
    if path.is_empty() || path.strip_prefix('/').unwrap_or(path).split('/').all(plain) {
        return Ok(());
    }
    Err(EngineError::Invalid(format!("cgroup path {path:?} must be without empty parts and lead nowhere else")))
}

/// What belongs to the node cannot belong to a pod's user namespace. Ids of the node are not for pods: 0 is root.
fn check_users(config: &SandboxConfig) -> Result<(), EngineError> {
    let Some(ids) = config.user_namespace else { return Ok(()) };
    let refuse = |why: &str| Err(EngineError::Invalid(format!("a sandbox with a user namespace of its own {why}")));
    if config.host_network || config.host_ipc || config.pid == NamespaceMode::Node {
        return refuse("cannot have the network, IPC or PID namespace of the node");
    }
    if ids.first == 0 || ids.length == 0 || ids.first.checked_add(ids.length - 1).is_none() {
        return refuse(&format!("cannot map {} ids from {} on", ids.length, ids.first));
    }
    Ok(())
}

/// An answer of the supervisor that is not the hoped-for one, as an error.
pub(super) fn unexpected(step: &str, reply: Reply) -> EngineError {
    match reply {
        Reply::Failed { step, errno } => EngineError::Io { step, source: std::io::Error::from_raw_os_error(errno) },
        Reply::CannotStart(message) => EngineError::Start(message),
        other => EngineError::Io {
            step: step.to_owned(),
            source: std::io::Error::other(format!("the supervisor answered {other:?}")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_other_sandboxes_have_written_down_is_inherited_once_and_the_innermost_comes_first() {
        let paths = |all: &[&str]| all.iter().map(PathBuf::from).collect::<Vec<_>>();
        let plan = CgroupPlan { legacy: paths(&["/cpu/pods/burst/u1"]), ..CgroupPlan::default() };
        let note = |groups: &[&str], parents: &[&str]| OwnGroups {
            groups: CgroupPlan { legacy: paths(groups), ..CgroupPlan::default() },
            parents: paths(parents),
        };
        let mut ours = note(&[], &[]);
        for _ in 0..2 {
            ours.inherit(note(&["/cpu/pods/u2"], &["/cpu/pods", "/cpu/others"]), false, &plan);
            ours.inherit(note(&["/cpu/pods/burst/u1"], &["/cpu/pods/burst", "/cpu/pods"]), true, &plan);
        }
        assert_eq!(ours.parents, paths(&["/cpu/pods/burst", "/cpu/pods"]));
        assert_eq!(ours.groups.legacy, plan.legacy);
    }
}
