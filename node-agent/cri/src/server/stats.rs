//! What containers and pods use.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use reeve_engine::engine::{Container, ContainerState, FsUsage, Sandbox, SandboxState, Usage};
use reeve_proto::cri::{
    ContainerAttributes, ContainerStats, ContainerStatsFilter, FilesystemUsage, LinuxPodSandboxStats,
    PodSandboxAttributes, PodSandboxStats, PodSandboxStatsFilter,
};
use tonic::Status;

use super::Shared;
use super::error::{self, Answer};
use crate::convert::{self, container, sandbox, stats};

/// How old the size of a folder may be: looking at every file is slow.
const SIZE_AGE_MAX: Duration = Duration::from_secs(10);
/// The least time between two looks that a rate is computed from.
const RATE_AFTER: Duration = Duration::from_secs(1);

/// What was seen before: rates and sizes come from it.
#[derive(Default)]
pub(crate) struct Seen {
    cpu: Mutex<HashMap<String, CpuSeen>>,
    sizes: Mutex<HashMap<String, (Duration, FsUsage)>>,
}

#[derive(Clone, Copy)]
struct CpuSeen {
    at: Duration,
    nanoseconds: u64,
    rate: Option<u64>,
}

impl Seen {
    /// Nanoseconds of CPU time per second, of late.
    fn rate(&self, id: &str, now: Duration, used: Option<u64>) -> Option<u64> {
        let nanoseconds = used?;
        let mut cpu = self.cpu.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = CpuSeen { at: now, nanoseconds, rate: None };
        let before = *cpu.entry(id.to_owned()).or_insert(fresh);
        let passed = now.saturating_sub(before.at);
        if passed < RATE_AFTER {
            return before.rate;
        }
        // A counter that goes back is a new one.
        let more = nanoseconds.checked_sub(before.nanoseconds).map(u128::from);
        let rate = more.map(|more| more * 1_000_000_000 / passed.as_nanos().max(1));
        let rate = rate.and_then(|rate| u64::try_from(rate).ok());
        cpu.insert(id.to_owned(), CpuSeen { rate, ..fresh });
        rate
    }

    fn size(&self, id: &str, now: Duration) -> Option<FsUsage> {
        let sizes = self.sizes.lock().unwrap_or_else(PoisonError::into_inner);
        sizes.get(id).filter(|(at, _)| now.saturating_sub(*at) < SIZE_AGE_MAX).map(|(_, size)| size.clone())
    }

    fn forget(&self, id: &str) {
        self.cpu.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
        self.sizes.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    /// Keeps only what is still there.
    fn retain(&self, is_there: impl Fn(&str) -> bool) {
        self.cpu.lock().unwrap_or_else(PoisonError::into_inner).retain(|id, _| is_there(id));
        self.sizes.lock().unwrap_or_else(PoisonError::into_inner).retain(|id, _| is_there(id));
    }
}

impl Shared {
    pub(super) async fn container_stats(&self, id: &str) -> Answer<ContainerStats> {
        let found = self.container(id).await?;
        let used = self.engine.usage().await.map_err(error::engine)?;
        Ok(self.stats_of(&found, &used).await)
    }

    pub(super) async fn list_container_stats(
        &self,
        filter: Option<ContainerStatsFilter>,
    ) -> Answer<Vec<ContainerStats>> {
        let filter = filter.unwrap_or_default();
        let used = self.engine.usage().await.map_err(error::engine)?;
        let mut found = Vec::new();
        for own in self.engine.list_containers().await.map_err(error::engine)? {
            let is_wanted = matches!(own.state, ContainerState::Running { .. })
                && own.id.starts_with(&filter.id)
                && own.sandbox.starts_with(&filter.pod_sandbox_id)
                && convert::selects(&filter.label_selector, &container::listed(&own).labels);
            if is_wanted {
                found.push(self.stats_of(&own, &used).await);
            }
        }
        Ok(found)
    }

    async fn stats_of(&self, own: &Container, used: &BTreeMap<String, Usage>) -> ContainerStats {
        let (now, listed) = (self.now(), container::listed(own));
        let nothing = Usage::default();
        let usage = used.get(&own.id).unwrap_or(&nothing);
        let rate = self.seen.rate(&own.id, self.clock.monotonic(), usage.cpu_nanoseconds);
        let limit = own.config.resources.memory_limit_bytes;
        ContainerStats {
            attributes: Some(ContainerAttributes {
                id: listed.id,
                metadata: listed.metadata,
                labels: listed.labels,
                annotations: listed.annotations,
            }),
            cpu: Some(stats::cpu(usage, now, rate)),
            memory: Some(stats::memory(usage, now, limit)),
            writable_layer: self.writable_layer(&own.id, now).await,
            swap: Some(stats::swap(usage, now)),
            io: stats::io(usage, now),
        }
    }

    async fn writable_layer(&self, id: &str, now: i64) -> Option<FilesystemUsage> {
        self.writable_size(id).await.map(|size| stats::folder(&size, now))
    }

    /// What a container has written, as of a moment ago.
    pub(super) async fn writable_size(&self, id: &str) -> Option<FsUsage> {
        if let Some(known) = self.seen.size(id, self.clock.monotonic()) {
            return Some(known);
        }
        let size = self.engine.writable_layer(id).await.ok()?;
        let mut sizes = self.seen.sizes.lock().unwrap_or_else(PoisonError::into_inner);
        sizes.insert(id.to_owned(), (self.clock.monotonic(), size.clone()));
        Some(size)
    }

    pub(super) async fn pod_sandbox_stats(&self, id: &str) -> Answer<PodSandboxStats> {
        let found = self.sandbox(id).await?;
        if found.state != SandboxState::Ready {
            return Err(Status::failed_precondition(format!("sandbox {:?} is not ready", found.id)));
        }
        self.stats_of_pod(&found).await
    }

    pub(super) async fn list_sandbox_stats(
        &self,
        filter: Option<PodSandboxStatsFilter>,
    ) -> Answer<Vec<PodSandboxStats>> {
        let filter = filter.unwrap_or_default();
        let all = self.engine.list_pod_sandboxes().await.map_err(error::engine)?;
        let containers = self.engine.list_containers().await.map_err(error::engine)?;
        self.seen.retain(|id| containers.iter().any(|own| own.id == id) || all.iter().any(|own| own.id == id));
        let mut found = Vec::new();
        for own in all {
            let is_wanted = own.state == SandboxState::Ready
                && own.id.starts_with(&filter.id)
                && convert::selects(&filter.label_selector, &sandbox::listed(&own).labels);
            if is_wanted {
                // One that goes while somebody looks uses nothing any more.
                found.extend(self.stats_of_pod(&own).await.ok());
            }
        }
        Ok(found)
    }

    async fn stats_of_pod(&self, own: &Sandbox) -> Answer<PodSandboxStats> {
        let usage = self.engine.pod_sandbox_usage(&own.id).await.map_err(error::engine)?;
        let filter = ContainerStatsFilter { pod_sandbox_id: own.id.clone(), ..ContainerStatsFilter::default() };
        let containers = self.list_container_stats(Some(filter)).await?;
        let (now, listed) = (self.now(), sandbox::listed(own));
        let rate = self.seen.rate(&own.id, self.clock.monotonic(), usage.cpu_nanoseconds);
        Ok(PodSandboxStats {
            attributes: Some(PodSandboxAttributes {
                id: listed.id,
                metadata: listed.metadata,
                labels: listed.labels,
                annotations: listed.annotations,
            }),
            linux: Some(LinuxPodSandboxStats {
                cpu: Some(stats::cpu(&usage, now, rate)),
                memory: Some(stats::memory(&usage, now, own.config.resources.memory_limit_bytes)),
                network: stats::network(&usage, now),
                process: Some(stats::processes(&usage, now)),
                containers,
                io: stats::io(&usage, now),
            }),
        })
    }

    /// Of a container that is gone nothing is remembered.
    pub(super) fn forget(&self, id: &str) {
        self.seen.forget(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_what_was_used_between_two_looks() {
        let (seen, at) = (Seen::default(), Duration::from_millis);
        assert_eq!(seen.rate("a", at(0), Some(1_000_000_000)), None);
        assert_eq!(seen.rate("a", at(500), Some(1_200_000_000)), None, "too soon to say");
        assert_eq!(seen.rate("a", at(2000), Some(2_000_000_000)), Some(500_000_000));
        assert_eq!(seen.rate("a", at(2500), Some(2_900_000_000)), Some(500_000_000));
        assert_eq!(seen.rate("a", at(4000), Some(0)), None, "a counter that goes back is a new one");
        seen.forget("a");
        assert_eq!(seen.rate("a", at(9000), None), None);
    }
}
