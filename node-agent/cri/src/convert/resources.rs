//! Limits and shares.

use std::collections::BTreeMap;

use reeve_engine::engine::Resources;
use reeve_proto::cri::{HugepageLimit, LinuxContainerResources};

use super::{Refused, filled, positive};

/// What a kubelet says of every container on cgroup v2, and the engine does by itself: all its processes end together.
const AS_EVER: (&str, &str) = ("memory.oom.group", "1");

/// Refuses limits that contradict each other.
///
/// # Errors
/// With the limit's name and value.
pub fn check(given: &LinuxContainerResources) -> Result<(), Refused> {
    let refuse = |what: String| Err(Refused::new(format!("{what} is not supported")));
    let (swap, memory) = (given.memory_swap_limit_in_bytes, given.memory_limit_in_bytes);
    if swap > 0 && swap < memory {
        return refuse(format!("memory_swap_limit_in_bytes {swap} below memory_limit_in_bytes {memory}"));
    }
    Ok(())
}

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
        cpuset_mems: filled(&given.cpuset_mems),
        // The memory's own limit is what there is without being asked for.
        memory_swap_bytes: Some(given.memory_swap_limit_in_bytes)
            .filter(|swap| *swap != 0 && *swap != given.memory_limit_in_bytes),
        hugepages: given.hugepage_limits.iter().map(|huge| (huge.page_size.clone(), huge.limit)).collect(),
        unified: unified(given),
        ..Resources::default()
    }
}

fn unified(given: &LinuxContainerResources) -> BTreeMap<String, String> {
    let said = given.unified.iter().filter(|(file, value)| (file.as_str(), value.as_str()) != AS_EVER);
    said.map(|(file, value)| (file.clone(), value.clone())).collect()
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
        cpuset_mems: own.cpuset_mems.clone().unwrap_or_default(),
        memory_swap_limit_in_bytes: own.memory_swap_bytes.unwrap_or_default(),
        hugepage_limits: hugepages(own),
        unified: own.unified.clone().into_iter().collect(),
    }
}

fn hugepages(own: &Resources) -> Vec<HugepageLimit> {
    own.hugepages.iter().map(|(size, limit)| HugepageLimit { page_size: size.clone(), limit: *limit }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_that_are_not_set_here_are_refused_by_name() {
        let told = |change: fn(&mut LinuxContainerResources)| {
            let mut given = LinuxContainerResources { memory_limit_in_bytes: 7, ..LinuxContainerResources::default() };
            change(&mut given);
            check(&given).map_err(|refused| refused.0)
        };
        for said in [
            told(|_| ()),
            told(|given| given.memory_swap_limit_in_bytes = 7),
            told(|given| drop(given.unified.insert("memory.oom.group".to_owned(), "1".to_owned()))),
        ] {
            assert_eq!(said, Ok(()));
        }
        let below = told(|given| given.memory_swap_limit_in_bytes = 5);
        assert_eq!(below.unwrap_err(), "memory_swap_limit_in_bytes 5 below memory_limit_in_bytes 7 is not supported");
    }

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
            cpuset_mems: Some("0".to_owned()),
            memory_swap_bytes: Some(-1),
            hugepages: BTreeMap::from([("2MB".to_owned(), 4 << 20)]),
            unified: BTreeMap::from([("memory.high".to_owned(), "7".to_owned())]),
            ..Resources::default()
        };
        assert_eq!(to_engine(&to_cri(&own)), own);
        let mut given = to_cri(&own);
        given.unified.insert(AS_EVER.0.to_owned(), AS_EVER.1.to_owned());
        given.memory_swap_limit_in_bytes = given.memory_limit_in_bytes;
        let plain = Resources { memory_swap_bytes: None, ..own };
        assert_eq!(to_engine(&given), plain, "what is so anyway is no limit");
        let none = Resources { oom_score_adj: Some(0), ..Resources::default() };
        assert_eq!(to_engine(&LinuxContainerResources::default()), none);
        assert_eq!(to_change(&LinuxContainerResources::default()), Resources::default());
    }
}
