//! Limits of what runs already, changed in place, and what a whole pod uses.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::records::{self, ContainerRecord};
use super::sandboxes::pod_cgroup;
use super::state::{not_found, word};
use super::{BuiltinEngine, Inner, blocking};
use crate::engine::{Container, ContainerState, EngineError, Resources, Sandbox, Usage};
use crate::runtime::cgroup::{CgroupError, freezer, usage};
use crate::runtime::interfaces;
use crate::supervisor::plan::CgroupPlan;

impl BuiltinEngine {
    pub(super) async fn update_container(
        &self,
        id: &str,
        resources: Resources,
        annotations: BTreeMap<String, String>,
    ) -> Result<(), EngineError> {
        let busy = self.inner.state(|state| state.container(id).map(|entry| Arc::clone(&entry.busy)))?;
        let _busy = busy.lock().await;
        let mut container = self.inner.state(|state| state.container(id).map(|entry| entry.container.clone()))?;
        if matches!(container.state, ContainerState::Exited { .. }) {
            return Err(EngineError::WrongState { id: id.to_owned(), state: word(&container.state) });
        }
        container.config.resources = container.config.resources.updated(&resources);
        container.config.annotations.extend(annotations);
        let config = container.config.clone();
        let inner = Arc::clone(&self.inner);
        blocking(move || inner.change_container(container, &resources)).await?;
        self.inner.state(|state| state.container_mut(id).map(|entry| entry.container.config = config))
    }

    pub(super) async fn update_sandbox(&self, id: &str, resources: Resources) -> Result<(), EngineError> {
        let sandbox = self.inner.ready_sandbox(id)?;
        let inner = Arc::clone(&self.inner);
        blocking(move || inner.change_sandbox(&sandbox, &resources)).await
    }

    /// Holds a container's processes still, or lets them go on.
    pub(super) async fn set_paused(&self, id: &str, paused: bool) -> Result<(), EngineError> {
        let (container, _) = self.running(id)?;
        let inner = Arc::clone(&self.inner);
        blocking(move || {
            let group = inner.container_cgroup(&container, &inner.sandbox(&container.sandbox)?);
            let done = if paused { freezer::freeze(&group) } else { freezer::thaw(&group) };
            done.map_err(CgroupError::into_engine)
        })
        .await
    }

    /// Looks at the group of each running container, by the container's id.
    pub(super) async fn look_at_running<T: Send + 'static>(
        &self,
        look: fn(&CgroupPlan) -> T,
    ) -> Result<BTreeMap<String, T>, EngineError> {
        let inner = Arc::clone(&self.inner);
        // Some small files per container: not on the async threads.
        blocking(move || {
            let running: Vec<Container> = inner.state(|state| {
                let all = state.containers.values().map(|entry| &entry.container);
                all.filter(|own| matches!(own.state, ContainerState::Running { .. })).cloned().collect()
            });
            let seen = running.into_iter().filter_map(|container| {
                let sandbox = inner.sandbox(&container.sandbox).ok()?;
                let seen = look(&inner.container_cgroup(&container, &sandbox));
                Some((container.id, seen))
            });
            Ok(seen.collect())
        })
        .await
    }

    pub(super) async fn sandbox_usage(&self, id: &str) -> Result<Usage, EngineError> {
        let sandbox = self.inner.sandbox(id)?;
        let inner = Arc::clone(&self.inner);
        blocking(move || {
            let used = usage::read(&inner.pod_group(&sandbox, &sandbox.config.resources));
            // What ends while somebody looks has no traffic any more.
            let interfaces = sandbox.netns.as_deref().and_then(|netns| interfaces::read(netns).ok());
            Ok(Usage { interfaces: interfaces.unwrap_or_default(), ..used })
        })
        .await
    }
}

impl Inner {
    /// Kernel first: a record of limits that were refused would be believed by the next life.
    fn change_container(&self, container: Container, change: &Resources) -> Result<(), EngineError> {
        let sandbox = self.sandbox(&container.sandbox)?;
        let id = container.id.clone();
        self.change_limits(&self.container_cgroup(&container, &sandbox), change)?;
        let container = Container { state: ContainerState::Created, ..container };
        records::write(
            &self.layout.container_record(&id),
            &ContainerRecord { boot_id: self.boot_id.clone(), container },
        )
    }

    fn change_sandbox(&self, sandbox: &Sandbox, change: &Resources) -> Result<(), EngineError> {
        self.lift_ended_quotas(sandbox);
        let resources = sandbox.config.resources.clone().updated(change);
        self.change_limits(&self.own_pod_group(sandbox, &resources)?, change)?;
        let changed = self.state(|state| {
            let known = state.sandboxes.get_mut(&sandbox.id)?;
            known.config.resources = resources;
            Some(known.clone())
        });
        self.write_sandbox(&changed.ok_or_else(|| not_found("sandbox", &sandbox.id))?)
    }

    /// Lifts the CPU quota of containers that have ended: v1 lets no group have a smaller quota than one below it, does
    /// not ask whether anything runs there, and still counts one for a moment after its removal.
    fn lift_ended_quotas(&self, sandbox: &Sandbox) {
        let ended: Vec<Container> = self.state(|state| {
            let own = state.containers.values().map(|entry| &entry.container);
            let ended =
                own.filter(|own| own.sandbox == sandbox.id && matches!(own.state, ContainerState::Exited { .. }));
            ended.cloned().collect()
        });
        let unlimited = Resources { cpu_quota_us: Some(-1), ..Resources::default() };
        for container in ended {
            // Gone with the container; what stays shows in the pod's limit.
            if let Err(err) = self.cgroups.update(&self.container_cgroup(&container, sandbox), &unlimited) {
                tracing::debug!(container = container.id, %err, "the quota of an ended container stays");
            }
        }
    }

    fn change_limits(&self, group: &CgroupPlan, change: &Resources) -> Result<(), EngineError> {
        self.check_limits(change)?;
        let refuse = |used: u64| {
            let limit = change.memory_limit_bytes.unwrap_or_default();
            Err(EngineError::Invalid(format!("cannot set the memory limit ({limit}) below current usage ({used})")))
        };
        if let Some(used) = self.cgroups.beyond(group, change.memory_limit_bytes) {
            return refuse(used);
        }
        match self.cgroups.update(group, change) {
            Err(err) if err.is_memory_in_use() => refuse(usage::read(group).memory_bytes.unwrap_or_default()),
            other => other.map_err(CgroupError::into_engine),
        }
    }

    fn pod_group(&self, sandbox: &Sandbox, resources: &Resources) -> CgroupPlan {
        self.cgroups.plan(&pod_cgroup(&sandbox.id, &sandbox.config), resources)
    }
}
