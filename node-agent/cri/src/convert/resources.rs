//! Limits and shares.

use std::collections::BTreeMap;

use reeve_engine::engine::Resources;
use reeve_proto::cri::LinuxContainerResources;

use super::{Refused, filled, positive};

/// What a kubelet says of every container on cgroup v2, and the engine does by itself: all its processes end together.
const AS_EVER: (&str, &str) = ("memory.oom.group", "1");

/// Refuses limits that this engine does not set: a number of huge pages. None at all is taken, as of every container of
/// a kubelet, whose own group of the pod sees to it.
///
/// # Errors
/// With the limit's name and value.
pub fn check(given: &LinuxContainerResources) -> Result<(), Refused> {
    let refuse = |what: String| Err(Refused::new(format!("{what} is not supported")));
    if let Some(huge) = given.hugepage_limits.iter().find(|huge| huge.limit > 0) {
        return refuse(format!("a limit of {} bytes of {} huge pages", huge.limit, huge.page_size));
    }
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
        unified: unified(given),
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
        unified: own.unified.clone().into_iter().collect(),
        ..LinuxContainerResources::default()
    }
}

#[cfg(test)]
mod tests {
    use reeve_proto::cri::HugepageLimit;

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
            told(|given| given.hugepage_limits = vec![HugepageLimit { page_size: "2MB".to_owned(), limit: 0 }]),
            told(|given| drop(given.unified.insert("memory.oom.group".to_owned(), "1".to_owned()))),
        ] {
            assert_eq!(said, Ok(()));
        }
        for (said, why) in [
            (
                told(|given| given.memory_swap_limit_in_bytes = 5),
                "memory_swap_limit_in_bytes 5 below memory_limit_in_bytes 7 is not supported",
            ),
            (
                told(|given| given.hugepage_limits = vec![HugepageLimit { page_size: "2MB".to_owned(), limit: 9 }]),
                "a limit of 9 bytes of 2MB huge pages is not supported",
            ),
        ] {
            assert_eq!(said.unwrap_err(), why);
        }
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
            unified: BTreeMap::from([("memory.high".to_owned(), "7".to_owned())]),
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
