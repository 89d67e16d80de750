//! Limits and shares.

use reeve_engine::engine::Resources;
use reeve_proto::cri::LinuxContainerResources;

use super::{filled, positive};

/// What a container or pod may use; zero and empty mean not set.
#[must_use]
pub fn to_engine(given: &LinuxContainerResources) -> Resources {
    Resources {
        cpu_shares: positive(given.cpu_shares).and_then(|shares| u64::try_from(shares).ok()),
        // Minus one lifts the limit.
        cpu_quota_us: (given.cpu_quota != 0).then_some(given.cpu_quota),
        cpu_period_us: positive(given.cpu_period).and_then(|period| u64::try_from(period).ok()),
        memory_limit_bytes: (given.memory_limit_in_bytes != 0).then_some(given.memory_limit_in_bytes),
        pids_max: None,
        oom_score_adj: i32::try_from(given.oom_score_adj).ok(),
        cpuset_cpus: filled(&given.cpuset_cpus),
    }
}

/// A change of limits: the OOM score stays, because processes have it already.
#[must_use]
pub fn to_change(given: &LinuxContainerResources) -> Resources {
    Resources { oom_score_adj: None, ..to_engine(given) }
}

/// What a container or pod may use, as it is told.
#[must_use]
pub fn to_cri(own: &Resources) -> LinuxContainerResources {
    LinuxContainerResources {
        cpu_period: own.cpu_period_us.and_then(|period| i64::try_from(period).ok()).unwrap_or_default(),
        cpu_quota: own.cpu_quota_us.unwrap_or_default(),
        cpu_shares: own.cpu_shares.and_then(|shares| i64::try_from(shares).ok()).unwrap_or_default(),
        memory_limit_in_bytes: own.memory_limit_bytes.unwrap_or_default(),
        oom_score_adj: own.oom_score_adj.unwrap_or_default().into(),
        cpuset_cpus: own.cpuset_cpus.clone().unwrap_or_default(),
        ..LinuxContainerResources::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_survive_both_ways_and_what_is_not_set_stays_so() {
        let own = Resources {
            cpu_shares: Some(512),
            cpu_quota_us: Some(-1),
            cpu_period_us: Some(100_000),
            memory_limit_bytes: Some(1 << 20),
            pids_max: None,
            oom_score_adj: Some(-997),
            cpuset_cpus: Some("0-1".to_owned()),
        };
        assert_eq!(to_engine(&to_cri(&own)), own);
        let none = Resources { oom_score_adj: Some(0), ..Resources::default() };
        assert_eq!(to_engine(&LinuxContainerResources::default()), none);
        assert_eq!(to_change(&LinuxContainerResources::default()), Resources::default());
    }
}
