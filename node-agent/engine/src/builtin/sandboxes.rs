//! Sandboxes: a pod's namespaces and cgroup.

use futures::future::join_all;

use super::link::Link;
use super::records::{self, SandboxRecord};
use super::state::not_found;
use super::{BuiltinEngine, Inner, blocking};
use crate::engine::{EngineError, NamespaceMode, Resources, Sandbox, SandboxConfig, SandboxState};
use crate::runtime::namespaces::Pinned;
use crate::supervisor::plan::{CgroupPlan, InitPlan};
use crate::supervisor::wire::{Reply, Request};

/// `HOST_NAME_MAX` of Linux less the closing zero, and Kubernetes' own limit.
const HOSTNAME_LEN_MAX: usize = 63;

impl BuiltinEngine {
    pub(super) async fn run_sandbox(&self, config: SandboxConfig) -> Result<Sandbox, EngineError> {
        if config.hostname.len() > HOSTNAME_LEN_MAX {
            return Err(EngineError::Invalid(format!("hostname {:?} is too long", config.hostname)));
        }
        check_cgroup(&config.cgroup)?;
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
        let cgroup = self.cgroups.plan(&pod_cgroup(&id, &config), &config.resources);
        self.cgroups.create(&cgroup, &config.resources).map_err(crate::runtime::cgroup::CgroupError::into_engine)?;
        records::make_dir(&config.log_dir)?;
        let run = self.layout.sandbox_run(&id);
        records::make_dir(&run)?;
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
            self.cgroups.remove(&self.cgroups.plan(&group, &sandbox.config.resources)).map_err(fail)?;
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
    if path.is_empty() || path.split('/').all(plain) {
        return Ok(());
    }
    Err(EngineError::Invalid(format!("cgroup path {path:?} must be relative and without empty parts")))
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
