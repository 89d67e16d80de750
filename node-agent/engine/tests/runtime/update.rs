//! Limits that change while containers run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reeve_engine::engine::{ContainerState, Engine as _, EngineError, Resources, SandboxConfig};
use reeve_engine::runtime::cgroup::Hierarchies;

use crate::bed::{Bed, eventually};

crate::tests![
    limits_change_while_a_container_runs_and_a_later_agent_knows_them,
    a_pod_shrinks_below_what_its_dead_containers_had,
    a_memory_limit_below_what_is_used_is_refused_and_nothing_is_killed,
    a_container_without_a_cpuset_can_be_given_one,
];

fn limits(milli: i64, mebibytes: i64) -> Resources {
    Resources {
        cpu_shares: Some(u64::try_from(milli).unwrap() * 1024 / 1000),
        cpu_quota_us: Some(milli * 100),
        cpu_period_us: Some(100_000),
        memory_limit_bytes: Some(mebibytes << 20),
        ..Resources::default()
    }
}

/// The folder of a group in the hierarchy with a controller, and whether that is v2.
fn folder(bed: &Bed, controller: &str, group: &str) -> (PathBuf, bool) {
    let hierarchies = Hierarchies::read().unwrap();
    let root = bed.cgroup_root();
    match hierarchies.legacy_of(controller) {
        Some(legacy) => (legacy.base.join(root).join(group), false),
        None => (hierarchies.unified.unwrap().base.join(root).join(group), true),
    }
}

fn text(dir: &Path, file: &str) -> String {
    std::fs::read_to_string(dir.join(file)).unwrap().trim().to_owned()
}

/// Thousandths of a CPU and mebibytes that the kernel grants a group.
fn granted(bed: &Bed, group: &str) -> (i64, i64) {
    let (cpu, v2) = folder(bed, "cpu", group);
    let quota = if v2 { text(&cpu, "cpu.max") } else { text(&cpu, "cpu.cfs_quota_us") };
    let quota: i64 = quota.split(' ').next().unwrap().parse().unwrap();
    let (memory, v2) = folder(bed, "memory", group);
    let limit: i64 = text(&memory, if v2 { "memory.max" } else { "memory.limit_in_bytes" }).parse().unwrap();
    (quota / 100, limit >> 20)
}

fn pod(bed: &Bed, resources: Resources) -> SandboxConfig {
    SandboxConfig { resources, ..bed.sandbox_config() }
}

const GROUP: &str = "kubepods/burstable/podu1";

async fn limits_change_while_a_container_runs_and_a_later_agent_knows_them() {
    let bed = Bed::new().await;
    let sandbox = bed.engine.run_pod_sandbox(pod(&bed, limits(200, 40))).await.unwrap();
    let mut config = bed.script("web", "sleep 1000");
    config.resources = limits(200, 40);
    let id = bed.start(&sandbox, config).await;
    let group = format!("{GROUP}/{id}");
    assert_eq!((granted(&bed, GROUP), granted(&bed, &group)), ((200, 40), (200, 40)));
    let told = BTreeMap::from([("told".to_owned(), "more".to_owned())]);
    bed.engine.update_pod_sandbox_resources(&sandbox.id, limits(400, 80)).await.unwrap();
    bed.engine.update_container_resources(&id, limits(400, 80), told).await.unwrap();
    assert_eq!((granted(&bed, GROUP), granted(&bed, &group)), ((400, 80), (400, 80)));
    // Only what is said changes.
    let memory = Resources { memory_limit_bytes: Some(60 << 20), ..Resources::default() };
    bed.engine.update_container_resources(&id, memory, BTreeMap::new()).await.unwrap();
    assert_eq!(granted(&bed, &group), (400, 60));
    bed.engine.update_container_resources(&id, limits(100, 30), BTreeMap::new()).await.unwrap();
    bed.engine.update_pod_sandbox_resources(&sandbox.id, limits(100, 30)).await.unwrap();
    assert_eq!((granted(&bed, GROUP), granted(&bed, &group)), ((100, 30), (100, 30)));
    let later = bed.reopen().await;
    let container = later.container_status(&id).await.unwrap();
    assert!(matches!(container.state, ContainerState::Running { .. }), "{:?}", container.state);
    assert_eq!(container.config.resources, limits(100, 30));
    assert_eq!(container.config.annotations.get("told").map(String::as_str), Some("more"));
    assert_eq!(later.list_pod_sandboxes().await.unwrap()[0].config.resources, limits(100, 30));
    let used = later.pod_sandbox_usage(&sandbox.id).await.unwrap().memory_bytes.unwrap();
    assert!(used > 0 && used < 30 << 20, "{used}");
    // It must not put another supervisor in the place of the one that is ended now.
    later.shutdown(Duration::ZERO).await.unwrap();
    bed.close().await;
}

async fn a_pod_shrinks_below_what_its_dead_containers_had() {
    let bed = Bed::new().await;
    let sandbox = bed.engine.run_pod_sandbox(pod(&bed, limits(300, 40))).await.unwrap();
    let mut config = bed.script("once", "true");
    config.resources = limits(300, 40);
    let id = bed.start(&sandbox, config).await;
    assert_eq!(bed.end(&id).await.0, Some(0));
    let gone = bed.engine.update_container_resources(&id, limits(100, 40), BTreeMap::new()).await.unwrap_err();
    assert!(matches!(gone, EngineError::WrongState { state: "exited", .. }), "{gone}");
    bed.engine.update_pod_sandbox_resources(&sandbox.id, limits(100, 40)).await.unwrap();
    assert_eq!(granted(&bed, GROUP), (100, 40));
    bed.engine.remove_container(&id).await.unwrap();
    bed.close().await;
}

async fn a_memory_limit_below_what_is_used_is_refused_and_nothing_is_killed() {
    let bed = Bed::new().await;
    let sandbox = bed.engine.run_pod_sandbox(pod(&bed, limits(500, 80))).await.unwrap();
    let mut config = bed.script("full", "dd if=/dev/zero of=/dev/shm/x bs=1048576 count=20 2>/dev/null; sleep 1000");
    config.resources = limits(500, 80);
    let id = bed.start(&sandbox, config).await;
    let (memory, v2) = folder(&bed, "memory", &format!("{GROUP}/{id}"));
    let usage = if v2 { "memory.current" } else { "memory.usage_in_bytes" };
    eventually("20 MiB are used", || text(&memory, usage).parse::<u64>().unwrap() >= 20 << 20).await;
    let refused = bed.engine.update_container_resources(&id, limits(500, 5), BTreeMap::new()).await.unwrap_err();
    assert!(
        refused.to_string().starts_with("cannot set the memory limit (5242880) below current usage ("),
        "{refused}"
    );
    let container = bed.engine.container_status(&id).await.unwrap();
    assert!(matches!(container.state, ContainerState::Running { .. }), "{:?}", container.state);
    assert_eq!(container.config.resources, limits(500, 80), "what was refused is not believed");
    assert_eq!(granted(&bed, &format!("{GROUP}/{id}")).1, 80);
    bed.close().await;
}

async fn a_container_without_a_cpuset_can_be_given_one() {
    let bed = Bed::new().await;
    let sandbox = bed.sandbox().await;
    let id = bed.start(&sandbox, bed.script("pinned", "sleep 1000; true")).await;
    let change = Resources { cpuset_cpus: Some("0".to_owned()), ..Resources::default() };
    bed.engine.update_container_resources(&id, change, BTreeMap::new()).await.unwrap();
    let ContainerState::Running { pid, .. } = bed.engine.container_status(&id).await.unwrap().state else { panic!() };
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let allowed = status.lines().find(|line| line.starts_with("Cpus_allowed_list:")).unwrap();
    assert_eq!(allowed.split_whitespace().nth(1), Some("0"));
    bed.engine.remove_container(&id).await.unwrap();
    bed.close().await;
}
